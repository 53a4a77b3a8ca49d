"""The page: one self-contained HTML file, verdict first, no network, readable on a phone and on paper."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

STYLE = """
:root{--ink:#1b1f24;--soft:#5a6572;--line:#d8dee4;--ground:#fff;--hint:#f4f6f8}
*{box-sizing:border-box}body{margin:0 auto;max-width:1180px;padding:24px 18px;font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--ground)}
h1{font-size:1.5rem;margin:0 0 .2rem}h2{font-size:1.15rem;margin:2.2rem 0 .6rem}h3{font-size:1rem;margin:0 0 .3rem}
.verdict{font-size:1.15rem;padding:14px 18px;border-left:6px solid #009E73;background:var(--hint);margin:14px 0}
.verdict.kept{border-color:#E69F00}.soft{color:var(--soft);font-size:.9rem}
.grid-2{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,480px),1fr));gap:22px}
figure{margin:0;border:1px solid var(--line);border-radius:8px;padding:12px}figcaption{color:var(--soft);font-size:.88rem;margin-top:4px}
svg{width:100%;height:auto;font:12px system-ui,sans-serif}svg .box{fill:none;stroke:var(--line)}svg .grid{stroke:#edf0f3}svg .label{fill:var(--soft)}
.legend{display:flex;flex-wrap:wrap;gap:2px 14px;font-size:.82rem;color:var(--soft);margin:2px 0 4px}.legend i{display:inline-block;width:10px;height:10px;border-radius:5px;margin-right:5px}
.table{overflow-x:auto}td.told,th.told{text-align:left;white-space:normal;min-width:260px;color:var(--soft)}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}th,td{padding:5px 10px;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left}thead th{color:var(--soft);font-weight:600}
.cells{display:flex;flex-wrap:wrap;gap:18px}.cell{width:192px}.film{width:192px;height:192px;image-rendering:pixelated;border:1px solid var(--line);background-repeat:no-repeat}
input[type=range]{width:70%}@media print{body{max-width:none}figure{break-inside:avoid}input{display:none}}
"""
SCRIPT = """
for(const figure of document.querySelectorAll('figure[data-steps]')){const names=JSON.parse(figure.dataset.steps);
const slider=figure.querySelector('input'),label=figure.querySelector('output');
const show=()=>{const name=names[+slider.value];label.textContent=name;
for(const g of figure.querySelectorAll('g.cloud'))g.style.display=g.dataset.group===name?'':'none';};
slider.addEventListener('input',show);show();}
"""

MEANINGS = {
    "std_ratio": "spread of a rollout over time, synthetic / real; 1 is alike, 0 stands still",
    "std_ratio_pooled": "the same, as the founding report pooled it; 1 is alike",
    "range_ratio": "range of each latent, synthetic / real; 1 is alike",
    "variance_growth": "spread at the end over spread at the start, synthetic / real; above 1 explodes, below collapses",
    "lag_match": "how far changes over 1 to 10 steps are from real ones (log ratio); 0 is alike",
    "bounds_pass": "share of rollouts within the real episodes' bounds: the report's filter",
    "rmse": "error of the last step of a rollout from held-out starts, in standard deviations",
    "judge_auc": "the worst fresh judge tells synthetic from real; 0.5 is a coin, 1 always",
    "judge_auc_noise": "the same with noise on both sides, which hides fingerprints but not mistakes",
    "pass_rate": "share of rollouts that the gate trusts as much as held-out real episodes",
    "report_model_fail_rate": "share of rollouts of the report's own model that the gate turns away; 1 is best",
    "roc_auc": "the gate tells real episodes from bad ones that it was not trained on",
    "val_accuracy": "the same as a share of right answers",
    "ece": "how far its probabilities are from frequencies; 0 is calibrated",
    "trust_gap": "mean trust of real less mean trust of synthetic episodes",
    "real_contribution": "share of the training weight that is real",
    "effective_contribution": "share of the training weight that is synthetic and trusted",
    "action_mse": "distance from the operators' actions, real-only → trust-weighted; reported, never a goal",
    "actor_loss": "at the end of training, real-only → trust-weighted",
}
"""What the numbers say, in words; the definitions are in the code that computes them."""


@dataclass(frozen=True)
class Figure:
    """A drawn figure; `slider` names the groups of marks that are shown one at a time."""

    title: str
    svg: str
    caption: str
    slider: Sequence[str] = ()


@dataclass(frozen=True)
class Film:
    """An animation: frames side by side in one PNG, as a data URI."""

    title: str
    uri: str
    num_frames: int
    seconds: float


def render(title: str, results: Mapping[str, Any], figures: Sequence[Figure], films: Sequence[Film]) -> str:
    """The whole page."""
    kept = " kept" if results["shipped"] == "real_only" else ""
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="verdict{kept}">{escape(results["verdict"])}</p>',
        "<h2>Arms</h2>", f'<p class="soft">{escape(results["arms_title"])}</p>', _arms(results), _films(films),
        "<h2>Synthetic data, beside the founding report</h2>", _numbers(results),
        "<h2>Figures</h2>", f'<div class="grid-2">{"".join(_figure(f) for f in figures)}</div>',
        "<h2>Lineage</h2>", _lineage(results),
    ]  # fmt: skip
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>{''.join(parts)}<script>{SCRIPT}</script></body></html>"
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]], told: bool = False) -> str:
    """An HTML table; the first column is its rows' names, the last one prose where `told`."""

    def row(cells: Sequence[str], tag: str) -> str:
        kinds = ["" if not told or i + 1 < len(cells) else ' class="told"' for i in range(len(cells))]
        return "".join(f"<{tag}{kind}>{escape(c)}</{tag}>" for kind, c in zip(kinds, cells, strict=True))

    head, body = row(header, "th"), "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in rows)
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def number(value: Any) -> str:
    """A number as people read it."""
    if value is None or value != value:
        return "–"
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def interval(value: Any) -> str:
    """`mean [low, high]`."""
    if not isinstance(value, Mapping):
        return number(value)
    if value.get("low") is None or value["low"] != value["low"]:
        return number(value["mean"])
    return f"{number(value['mean'])} [{number(value['low'])}, {number(value['high'])}]"


HEADINGS = {
    "mpl": "MPL (good units / h)", "error_rate": "error rate", "energy_wh_per_unit": "energy (Wh / good unit)",
    "return": "return", "net_value_per_hour": "net value ($ / h)", "action_mse": "action MSE",
}  # fmt: skip


def _arms(results: Mapping[str, Any]) -> str:
    columns = results["arm_columns"]
    arms = results["arms"]
    return table(["", *arms], [[HEADINGS.get(c, c), *(interval(arm.get(c)) for arm in arms.values())] for c in columns])


def _numbers(results: Mapping[str, Any]) -> str:
    rows = [[row["name"], number(row["value"]), row["founding"], MEANINGS.get(row["name"], "")]
            for row in results["synthetic"]]  # fmt: skip
    return table(["number", "this run", "founding report", "what it says"], rows, told=True)


def _figure(figure: Figure) -> str:
    slider = ""
    steps = ""
    if figure.slider:
        names = escape("[" + ",".join(f'"{name}"' for name in figure.slider) + "]", quote=True)
        steps = f' data-steps="{names}"'
        slider = (f'<label class="soft">step <input type="range" min="0" max="{len(figure.slider) - 1}" '
                  f'value="{len(figure.slider) - 1}" aria-label="step of the rollout"> <output></output></label>')  # fmt: skip
    return f"<figure{steps}><h3>{escape(figure.title)}</h3>{figure.svg}{slider}<figcaption>{escape(figure.caption)}</figcaption></figure>"


def _films(films: Sequence[Film]) -> str:
    if not films:
        return ""
    style, cells = [], []
    for i, film in enumerate(films):
        width = 192 * film.num_frames
        style.append(f"@keyframes film{i}{{to{{background-position-x:-{width}px}}}}"
                     f"#film{i}{{background-image:url({film.uri});background-size:{width}px 192px;"
                     f"animation:film{i} {film.seconds:.1f}s steps({film.num_frames}) infinite}}")  # fmt: skip
        cells.append(
            f'<div class="cell"><div class="film" id="film{i}"></div><div class="soft">{escape(film.title)}</div></div>'
        )
    return f'<h2>In the cell</h2><style>{"".join(style)}</style><div class="cells">{"".join(cells)}</div>'


def _lineage(results: Mapping[str, Any]) -> str:
    rows = [
        [name, number(stage.get("seconds")), str(stage.get("ended") or "–"), str(stage.get("version") or "–")]
        for name, stage in results["stages"].items()
    ]
    told = f"seed {results['seed']}, config {results['config_digest'][:12]}, phaseb {results['version']}"
    return f'<p class="soft">{escape(told)}</p>' + table(["stage", "seconds", "ended", "version"], rows)
