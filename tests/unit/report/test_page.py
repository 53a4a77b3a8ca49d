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

PAIR = ("real_only", "trust_weighted")
SETTINGS = {
    "real_only": {"learner": "iql", "rollouts": "none", "generator": None, "placebo_of": ""},
    "trust_weighted": {
        "learner": "sac",
        "rollouts": "branched",
        "generator": "gp",
        "share": 0.5,
        "weight": "trust",
        "placebo_of": "",
    },
    "fixed_weight": {
        "learner": "iql",
        "rollouts": "stored",
        "generator": "gru",
        "share": 0.1,
        "weight": "uniform",
        "placebo_of": "",
    },
}
ERROR = {"mean": 0.4, "low": 0.3, "high": 0.5}
HELD_OUT = {
    "control": "behaviour_cloning",
    "num_episodes": 6,
    "mean_action": {"mean": 1.0, "low": 0.9, "high": 1.1},
    "arms": {
        "behaviour_cloning": {"error": ERROR, "by_dimension": [ERROR, {"mean": 0.5, "low": 0.4, "high": 0.6}]},
        "act": {"error": ERROR, "by_dimension": [ERROR, ERROR], "difference": {"mean": 0.0, "low": -0.1, "high": 0.1}},
    },
}
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
        "verdict": "Synthetic data helped: a < b.",
        "shipped": "trust_weighted",
        "arms_title": "arms, 3 seeds",
        "arm_columns": ["mpl", "return"],
        "arms": {
            "real_only": {
                "mpl": {"mean": 18.0, "low": 17.0, "high": 19.0},
                "return": {"mean": 1.0, "low": None, "high": None},
            },
            "trust_weighted": {"mpl": {"mean": 21.5, "low": 20.0, "high": 23.0}, "return": None},
        },
        "synthetic": [{"name": n, "value": math.nan, "founding": f} for n, f in FOUNDING.items()],
        "stages": {"collect": {"seconds": 1.5, "ended": "2026-01-01", "version": "0.1.0"}, "encode": {}},
        "promotion": {"helped": True},
        "evaluation": {"settings": {name: SETTINGS[name] for name in PAIR}},
        "seed": 0,
        "config_digest": "abcdef0123456789",
        "version": "0.1.0",
    }
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
    assert 'class="verdict kept"' in page(promotion={"helped": False})


def test_the_table_of_arms_says_what_each_learned_from():
    text = page()
    assert "<td>sac</td>" in text
    assert "<td>≤ 50% branched rollouts of gp, trust</td>" in text
    assert "<td>recorded</td>" in text


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


JUDGES = {
    "gru": {"numbers": {"judge_auc": 0.61}, "branched": {"numbers": {"judge_auc": 0.72}}},
    "gp": {"branched": {"numbers": {"judge_auc": 0.83}}},
}
HELPED = {
    "promoted": True,
    "helped": True,
    "shipped": "trust_weighted",
    "candidate": "trust_weighted",
    "control": "real_only_sac",
    "placebo": "placebo_trust_weighted",
    "reason": "it is better",
    "placebo_reason": "it beats its placebo",
}
KEPT = HELPED | {
    "promoted": False,
    "helped": False,
    "shipped": "real_only_sac",
    "reason": "too few episodes",
    "placebo_reason": "",
}


def arms(**means):
    return {name: {"net_value_per_hour": None if mean is None else {"mean": mean}} for name, mean in means.items()}


EARNED = arms(real_only=5.0, real_only_sac=10.0, trust_weighted=12.5, placebo_trust_weighted=9.0)


def said(promotion, settings=SETTINGS, judges=JUDGES, earned=EARNED):
    return verdict(earned, promotion, settings, judges)


def test_the_verdict_says_what_was_decided_and_by_how_much():
    assert said(HELPED) == (
        "Synthetic data helped: it is better; it beats its placebo. In evaluation trust_weighted earns 12.5 $ an hour "
        "of net value, real_only_sac 10 (difference +2.5), its placebo 9. The worst fresh judge tells branched "
        "rollouts of gp from recorded episodes at AUC 0.83 (0.5 is chance)."
    )


def test_gains_in_evaluation_count_against_the_control_that_earned_most_there():
    """Promotion names the control that it was closest to in its own, fewer episodes."""
    told = said(HELPED | {"control": "real_only", "controls": ["real_only", "real_only_sac", "behaviour_cloning"]})
    assert "trust_weighted earns 12.5 $ an hour of net value, real_only_sac 10 (difference +2.5)" in told


def test_the_verdict_does_not_claim_what_was_not_shown():
    told = said(KEPT)
    assert told.startswith("Synthetic data was not shown to help, so it is not used: too few episodes.")
    assert "AUC" not in told, "what ships learned from no rollouts"
    luck = said(HELPED | {"helped": False, "placebo_reason": "its placebo earned as much"})
    assert luck.startswith(
        "An arm with synthetic data is shipped, but the data were not shown to be the reason: it is "
        "better; its placebo earned as much."
    )
    alone = said(HELPED | {"helped": False, "placebo_reason": "", "placebo": ""})
    assert "it was compared with no placebo" in alone


@pytest.mark.parametrize(
    ("rollouts", "generator", "auc"),
    [
        ("stored", "gru", "0.61"),
        ("branched", "gru", "0.72"),
        ("branched", "gp", "0.83"),
        ("stored", "gp", None),
        ("none", None, None),
        ("branched", "mine", None),
    ],
)
def test_the_judge_that_is_quoted_judged_the_shipped_arm_s_rollouts_as_it_used_them(rollouts, generator, auc):
    shipped = {"trust_weighted": {"rollouts": rollouts, "generator": generator}}
    told = said(HELPED, shipped)
    if auc is None:
        assert "AUC" not in told
    else:
        assert f"tells {rollouts} rollouts of {generator} from recorded episodes at AUC {auc} " in told
        assert told.count("AUC") == 1


def test_the_verdict_compares_only_what_was_measured():
    assert "earns" not in said(HELPED, earned=arms(real_only_sac=None, trust_weighted=1.0))


def test_where_no_return_was_measured_the_verdict_speaks_of_held_out_actions():
    promotion = {
        "promoted": False,
        "helped": False,
        "shipped": "behaviour_cloning",
        "candidate": "",
        "method": "none",
        "control": "behaviour_cloning",
        "reason": "behaviour_cloning is shipped: values cannot be learned",
    }
    told = verdict({}, promotion, {}, {}, HELD_OUT)
    assert told.startswith("No policy with synthetic data was compared: behaviour_cloning is shipped")
    assert (
        "in 6 held-out episodes behaviour_cloning misses the recorded action by 0.4 σ (the mean action by 1 σ)" in told
    )
    assert "return" not in told.replace("No return was measured", "")
    better = {**promotion, "promoted": True, "helped": True, "method": "held_out", "placebo_reason": "and so on"}
    assert verdict({}, better, {}, {}, HELD_OUT).startswith("Synthetic data helped to copy held-out actions: ")


def test_held_out_actions_stand_by_dimension():
    page = render("t", results(held_out=HELD_OUT), [], [])
    assert "Held-out actions" in page
    assert "0.5 [0.4,&nbsp;0.6]" in page
    assert "less behaviour_cloning" in page
    assert "Held-out actions" not in render("t", results(), [], [])
