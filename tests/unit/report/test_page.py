"""The page: complete in itself, true to its results, and safe to open."""

import math
import re
from html.parser import HTMLParser

import pytest

from phaseb.report.html import Figure, Film
from phaseb.report.results import FOUNDING
from phaseb.report.run_page import MEANINGS, render
from phaseb.report.svg import Chart
from phaseb.report.verdict import verdict
from phaseb.runtime.formatting import interval, number

VOID = {"meta", "link", "input", "br", "img"}


class Balanced(HTMLParser):
    """Fails where a tag is closed that was not opened last."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def results(**change):
    base = {
        "verdict": "Synthetic data helped: a < b.", "shipped": "trust_weighted",
        "arms_title": "arms, 3 seeds", "arm_columns": ["mpl", "return"],
        "arms": {
            "real_only": {"mpl": {"mean": 18.0, "low": 17.0, "high": 19.0},
                          "return": {"mean": 1.0, "low": None, "high": None}},
            "trust_weighted": {"mpl": {"mean": 21.5, "low": 20.0, "high": 23.0}, "return": None},
        },
        "synthetic": [{"name": n, "value": math.nan, "founding": f} for n, f in FOUNDING.items()],
        "stages": {"collect": {"seconds": 1.5, "ended": "2026-01-01", "version": "0.1.0"}, "encode": {}},
        "seed": 0, "config_digest": "abcdef0123456789", "version": "0.1.0",
    }  # fmt: skip
    return base | change


def page(**change):
    svg = Chart("c").line([0, 1], [0, 1], "l", "#000").svg()
    figures = [Figure("Slid", svg, "caption", slider=["step 1", "step 2"]), Figure("Plain", svg, "")]
    film = Film("real_only, seed 0", "data:image/png;base64,AA==", num_frames=9, seconds=1.0)
    return render("A title", results(**change), figures, [film])


def test_it_is_well_formed():
    parser = Balanced()
    parser.feed(page())
    assert parser.open == []


def test_it_asks_nothing_of_any_network():
    text = page()
    assert not re.search(r"https?://(?!www\.w3\.org)", text)
    assert all(ref.startswith("data:") for ref in re.findall(r"""(?:src|href)="([^"]*)""", text))
    assert all(ref.startswith("data:") for ref in re.findall(r"url\(([^)]*)\)", text))


def test_the_verdict_comes_first_and_its_colour_says_which():
    text = page()
    assert text.index("Synthetic data helped: a &lt; b.") < text.index("<table>")
    assert 'class="verdict"' in text
    assert 'class="verdict kept"' in page(shipped="real_only")


def test_every_number_of_the_report_stands_beside_this_run_and_is_explained():
    text = page()
    for name, founding in FOUNDING.items():
        assert f"<td>{name}</td>" in text
        assert founding in text
        assert len(MEANINGS[name]) > 20, name


def test_markup_in_results_stays_text():
    text = page(verdict="<script>alert(1)</script>", arms_title="<img src=x>")
    assert "<script>alert" not in text
    assert "<img src=x>" not in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (math.nan, "–"), ("0.1 → 0.2", "0.1 → 0.2"), (0.12345, "0.123"), (1234.5, "1,234"), (0, "0")],
)
def test_numbers_read_as_people_write_them(value, text):
    assert number(value) == text


def test_an_interval_without_bounds_is_its_mean():
    assert interval({"mean": 2.0, "low": 1.0, "high": 3.0}) == "2 [1, 3]"
    assert interval({"mean": 2.0, "low": None, "high": None}) == "2"
    assert interval({"mean": 2.0, "low": math.nan, "high": math.nan}) == "2"
    assert interval(None) == "–"


def arms(base, gated):
    return {"real_only": {"net_value_per_hour": base}, "trust_weighted": {"net_value_per_hour": gated}}


def test_the_verdict_says_what_was_decided_and_by_how_much():
    decided = {"promoted": True, "reason": "it is better"}
    told = verdict(arms({"mean": 10.0}, {"mean": 12.5}), decided, {"judge_auc": 0.61})
    assert told == (
        "Synthetic data helped: it is better. Trust-weighted earns 12.5 $ an hour of net value, real-only 10 "
        "(difference +2.5). The worst fresh judge tells it from real at AUC 0.61 (0.5 is a coin)."
    )


def test_the_verdict_does_not_claim_what_was_not_shown():
    told = verdict(arms({"mean": 10.0}, {"mean": 99.0}), {"promoted": False, "reason": "too few episodes"}, {})
    assert told.startswith("Synthetic data was not shown to help, so it is not used: too few episodes.")
    assert "AUC" not in told


def test_the_verdict_compares_only_what_was_measured():
    told = verdict(arms(None, {"mean": 1.0}), {"promoted": False, "reason": "r"}, {"judge_auc": None})
    assert "earns" not in told
