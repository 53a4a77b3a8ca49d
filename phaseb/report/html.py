"""What every page is made of: one self-contained HTML file, no network, readable on a phone and on paper."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

STYLE = """
:root{--ink:#1b1f24;--soft:#5a6572;--line:#d8dee4;--ground:#fff;--hint:#f4f6f8}
*{box-sizing:border-box}body{margin:0 auto;max-width:1180px;padding:24px 18px;font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--ground)}
h1{font-size:1.5rem;margin:0 0 .2rem}h2{font-size:1.15rem;margin:2.2rem 0 .6rem}h3{font-size:1rem;margin:0 0 .3rem}
.verdict{font-size:1.15rem;padding:14px 18px;border-left:6px solid #009E73;background:var(--hint);margin:14px 0}
.verdict.kept{border-color:#E69F00}.soft{color:var(--soft);font-size:.9rem}
.grid-2{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,480px),1fr));gap:22px}
figure{margin:0;border:1px solid var(--line);border-radius:8px;padding:12px}figure.wide{grid-column:1/-1}figcaption{color:var(--soft);font-size:.88rem;margin-top:4px}
svg{width:100%;height:auto;font:12px system-ui,sans-serif}svg .box{fill:none;stroke:var(--line)}svg .grid{stroke:#edf0f3}svg .label{fill:var(--soft)}
.legend{display:flex;flex-wrap:wrap;gap:2px 14px;font-size:.82rem;color:var(--soft);margin:2px 0 4px}.legend i{display:inline-block;width:10px;height:10px;border-radius:5px;margin-right:5px}
.table{overflow-x:auto}td.told,th.told{text-align:left;white-space:normal;min-width:260px;color:var(--soft)}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}th,td{padding:5px 10px;border-bottom:1px solid var(--line);text-align:right}
th:first-child,td:first-child{text-align:left}thead th{color:var(--soft);font-weight:600}
.cells{display:flex;flex-wrap:wrap;gap:18px}.cell{width:192px}.film{width:192px;height:192px;image-rendering:pixelated;border:1px solid var(--line);background-repeat:no-repeat}
input[type=range]{width:70%}svg .name{font-weight:600;paint-order:stroke;stroke:#fff;stroke-width:3px}svg .path{fill:none;stroke-width:1.4;opacity:.55}svg .path:hover{stroke-width:4;opacity:1}
.better{color:#00664b;font-weight:600}.worse{color:#9c3d00;font-weight:600}ol.flow{display:flex;flex-wrap:wrap;gap:6px 22px;padding:0;list-style:none;margin:8px 0}ol.flow li{border:1px solid var(--line);border-radius:6px;padding:3px 10px;position:relative;font-size:.88rem}ol.flow li+li::before{content:"→";position:absolute;left:-18px;color:var(--soft)}
@media(max-width:600px){body{padding:14px 10px}svg{font-size:17px}td.told,th.told{min-width:190px}th,td{padding:4px 6px}}
@media print{body{max-width:none;padding:0}figure,tr,.cell{break-inside:avoid}h2{break-after:avoid}input{display:none}.film{animation:none!important}*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""
SCRIPT = """
for(const figure of document.querySelectorAll('figure[data-steps]')){const names=JSON.parse(figure.dataset.steps);
const slider=figure.querySelector('input'),label=figure.querySelector('output');
const show=()=>{const name=names[+slider.value];label.textContent=name;
for(const g of figure.querySelectorAll('g.cloud'))g.style.display=g.dataset.group===name?'':'none';};
slider.addEventListener('input',show);show();}
"""


@dataclass(frozen=True)
class Figure:
    """A drawn figure; `slider` names the groups of marks that are shown one at a time, from number `shown` on; a
    `wide` one takes the whole row."""

    title: str
    svg: str
    caption: str
    slider: Sequence[str] = ()
    shown: int = -1
    wide: bool = False


@dataclass(frozen=True)
class Film:
    """An animation: frames side by side in one PNG, as a data URI."""

    title: str
    uri: str
    num_frames: int
    seconds: float


def document(title: str, parts: Sequence[str]) -> str:
    """A whole page of parts that are HTML already."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><h1>{escape(title)}</h1>{''.join(parts)}"
        f"<script>{SCRIPT}</script></body></html>"
    )


def section(title: str, *parts: str) -> str:
    """Parts under a heading; nothing where they are all empty."""
    body = "".join(parts)
    return f"<h2>{escape(title)}</h2>{body}" if body else ""


def paragraph(text: str, kind: str = "soft") -> str:
    """A line of prose of one of the page's classes."""
    return f'<p class="{kind}">{escape(text)}</p>'


def table(header: Sequence[str], rows: Sequence[Sequence[str]], told: bool = False) -> str:
    """An HTML table; the first column is its rows' names, the last one prose where `told`."""

    def row(cells: Sequence[str], tag: str) -> str:
        kinds = ["" if not told or i + 1 < len(cells) else ' class="told"' for i in range(len(cells))]
        return "".join(f"<{tag}{kind}>{_whole(escape(c))}</{tag}>" for kind, c in zip(kinds, cells, strict=True))

    head, body = row(header, "th"), "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in rows)
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _whole(cell: str) -> str:
    """A line may break before an interval's bracket, not within it."""
    return re.sub(r"(\[[-\d.,e+–]+), ", r"\1,&nbsp;", cell)


def gallery(figures: Sequence[Figure]) -> str:
    """Figures in two columns where there is room."""
    return f'<div class="grid-2">{"".join(map(_figure, figures))}</div>' if figures else ""


def cinema(films: Sequence[Film]) -> str:
    """Films side by side, played in a loop by style sheets alone."""
    style, cells = [], []
    for i, film in enumerate(films):
        width = 192 * film.num_frames
        style.append(
            f"@keyframes film{i}{{to{{background-position-x:-{width}px}}}}"
            f"#film{i}{{background-image:url({film.uri});background-size:{width}px 192px;"
            f"animation:film{i} {film.seconds:.1f}s steps({film.num_frames}) infinite}}"
        )
        cells.append(
            f'<div class="cell"><div class="film" id="film{i}"></div><div class="soft">{escape(film.title)}</div></div>'
        )
    return f'<style>{"".join(style)}</style><div class="cells">{"".join(cells)}</div>' if films else ""


def _figure(figure: Figure) -> str:
    slider = steps = ""
    if figure.slider:
        names = escape(json.dumps(list(figure.slider)), quote=True)
        steps = f' data-steps="{names}"'
        slider = (
            f'<label class="soft"><input type="range" min="0" max="{len(figure.slider) - 1}" '
            f'value="{figure.shown % len(figure.slider)}" aria-label="{escape(figure.title)}"> <output></output></label>'
        )
    wide = ' class="wide"' if figure.wide else ""
    return f"<figure{wide}{steps}><h3>{escape(figure.title)}</h3>{figure.svg}{slider}<figcaption>{escape(figure.caption)}</figcaption></figure>"
