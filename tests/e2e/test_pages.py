"""The pages in a real browser: nothing complains, everything is drawn, sliders move, phones and paper can show them."""

import json
from pathlib import Path

import pytest
from browser import CHROMIUM, look, print_page
from program import strict_json

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium: install the chromium package")
MAX_BYTES, MAX_OPENING_MS = 4_000_000, 2000
LOOK = """
const figures = [...document.querySelectorAll('figure')], root = document.documentElement;
const visible = f => [...f.querySelectorAll('g.cloud')].filter(g => g.style.display !== 'none');
const shown = f => visible(f).map(g => g.dataset.group);
const seen = {width: innerWidth, scroll: root.scrollWidth};
seen.verdict = document.querySelector('.verdict').innerText;
const drawn = f => f.querySelectorAll('circle,polyline,polygon,rect:not(.box)').length;
const tall = f => f.querySelector('svg').getBoundingClientRect().height;
seen.empty = figures.filter(f => !drawn(f) || tall(f) < 50).map(f => f.querySelector('h3').innerText);
seen.titles = figures.map(f => f.querySelector('h3').innerText);
seen.outside = figures.flatMap(f => [...f.querySelectorAll('circle')].filter(c => {
  const a = c.getBoundingClientRect(), b = f.getBoundingClientRect();
  return a.width && (a.left < b.left - 1 || a.right > b.right + 1)})).length;
seen.sliders = figures.filter(f => f.dataset.steps).map(f => {
  const input = f.querySelector('input'), names = JSON.parse(f.dataset.steps), at = [];
  for (const i of names.keys()) { input.value = i; input.dispatchEvent(new Event('input'));
    at.push([f.querySelector('output').innerText, [...new Set(shown(f))]]); }
  return [names, at]; });
seen.hover = document.querySelectorAll('svg title').length;
return seen;"""


def check(seen: dict, width: int) -> None:
    assert seen.get("thrown") is None
    assert seen["faults"] == []
    assert seen["requests"] == []
    assert seen["empty"] == []
    assert seen["outside"] == 0
    assert seen["opened_ms"] <= MAX_OPENING_MS
    assert seen["width"] == width
    assert seen["scroll"] <= width  # nothing sticks out sideways
    for names, at in seen["sliders"]:
        assert at == [[name, [name]] for name in names]  # each place shows its own marks, and only these


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_of_a_run(finished, width, pytestconfig):
    page = finished.folder / "report" / "index.html"
    picture = pytestconfig.rootpath / "build" / "screenshots" / f"report-{width}.png"  # kept, to be looked at
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.unlink(missing_ok=True)
    seen = look(page, LOOK, width, picture)
    check(seen, width)
    assert page.stat().st_size <= MAX_BYTES
    assert seen["verdict"].startswith("Synthetic data")
    wanted = {
        "What the policies earn",
        "Real and synthetic latents, step by step",
        "Trust along one rollout, and its cut",
        "Bricks and what they are worth",
        "Can a fresh judge tell the rollouts of gru from recorded ones?",
    }
    assert wanted <= set(seen["titles"])
    assert len(seen["sliders"]) == 2
    assert seen["hover"] > 50
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert picture.stat().st_size > 20_000


def test_it_can_be_printed(finished, tmp_path):
    print_page(finished.folder / "report" / "index.html", tmp_path / "page.pdf")
    paper = (tmp_path / "page.pdf").read_bytes()
    assert paper.startswith(b"%PDF")
    assert len(paper) > 30_000


def test_two_runs_side_by_side(finished, copied, command):
    results = json.loads((copied / "judges.json").read_text())
    results["gru"]["numbers"]["judge_auc"] = 0.5
    (copied / "judges.json").write_text(json.dumps(results))
    text = (copied / "config.yaml").read_text()
    (copied / "config.yaml").write_text(text.replace("num_episodes: 6", "num_episodes: 7"))
    told = command("report", copied, finished.folder, "--json")
    assert told.code == 0, told.err
    compared = strict_json(told.out)
    assert [run["name"] for run in compared["runs"]] == [copied.name, finished.folder.name]
    assert compared["config"] == {"evaluation.num_episodes": [7, 6]}
    auc = compared["numbers"]["judge_auc"]
    assert auc["difference"] == pytest.approx(auc["values"][1] - 0.5)
    same = compared["arms"]["real_only"]["return"]
    assert (same["difference"], same["apart"]) == (0, False)
    page = Path(compared["page"])
    assert page == copied / "report" / f"against-{finished.folder.name}.html"
    seen = look(page, LOOK)
    check(seen, 1280)
    assert "evaluation.num_episodes" in page.read_text(encoding="utf-8")
    tables = command("report", copied, finished.folder)
    assert "real_only return" in tables.out
    assert "1 settings differ: evaluation.num_episodes" in tables.out
    assert command("report", copied, copied).code == 2
