"""What a person sees: one live line on a terminal, plain lines elsewhere, results in tables that fit."""

import io
import itertools

import pytest
from rich.console import Console as RichConsole

from phaseb.cli.tables import PLAIN_COLUMNS, show_comparison, show_results
from phaseb.report.results import FOUNDING
from phaseb.runtime import progress_bar
from phaseb.runtime.formatting import duration, interval, number, signed
from phaseb.runtime.progress_bar import StageView

STAGES = ["collect", "encode", "policy"]


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by one second whenever it is asked."""
    ticks = itertools.count()
    monkeypatch.setattr(progress_bar.time, "monotonic", lambda: float(next(ticks)))


def view(terminal: bool, **options):
    out = io.StringIO()
    return StageView(RichConsole(file=out, force_terminal=terminal, width=100, **options), STAGES), out


def test_the_line_says_stage_bar_rate_and_time_left(clock):
    seen, _ = view(False)
    seen.on_stage_start("policy")
    first = seen.line("policy", {"step": 100, "num_steps": 1000, "loss/actor": 0.12345})
    assert first.startswith("3/3  policy  ██░░░░░░░░░░░░░░░░░░  100/1000  loss/actor 0.123  (")
    later = seen.line("policy", {"step": 500, "num_steps": 1000})
    assert "██████████░░░░░░░░░░  500/1000" in later
    rate, left = later.split("/s  ")[0].split()[-1], later.split("/s  ")[1].split(" left")[0]
    assert float(rate) > 0
    assert left.endswith(" s")
    assert "2/5" in seen.line("policy", {"rungs": 2, "of": 5})


def test_what_does_not_fit_is_left_out_whole(clock):
    """Half a number would be another number."""
    seen, _ = view(False)
    seen.on_stage_start("policy")
    many = {f"policy/action_mse/trust_weighted/{i}": 0.123456 for i in range(9)}
    told = seen.line("policy", {"step": 1, "num_steps": 10, **many}).split("1/10  ")[1].rsplit("  (", 1)[0]
    assert told == "  ".join(f"{name} 0.123" for name in list(many)[:2])


def test_where_there_is_no_terminal_lines_are_plain_and_few(clock):
    seen, out = view(False)
    seen.on_stage_start("encode")
    for step in range(100):
        seen.on_progress("encode", {"step": step, "num_steps": 100})
    seen.on_stage_end("encode", {"probe_r2": 0.9876, "other": 1}, 41.2, skipped=False)
    lines = out.getvalue().splitlines()
    assert "\x1b" not in out.getvalue()
    assert 5 <= len(lines) <= 40
    assert lines[-1].split() == ["encode", "41", "s", "probe_r2", "0.988"]


def test_a_terminal_gets_one_live_line_that_goes_away():
    seen, out = view(True)
    seen.on_stage_start("encode")
    seen.on_progress("encode", {"step": 5, "num_steps": 10})
    seen.on_stage_end("encode", {}, 3.0, skipped=True)
    assert "██████████░░░░░░░░░░" in out.getvalue()
    assert "up to date" in out.getvalue().splitlines()[-1]
    seen.close()  # once more does nothing


def test_stages_beside_each_other_have_a_line_each(clock):
    seen, out = view(False)
    seen.on_stage_start("encode")
    seen.on_stage_start("policy")
    for step in range(20):
        seen.on_progress("encode", {"step": step, "num_steps": 20})
    seen.on_stage_end("encode", {}, 41.2, skipped=False)
    seen.on_progress("policy", {"step": 3, "num_steps": 4})
    text = out.getvalue()
    assert "2/3  encode" in text
    assert "3/3  policy" in text
    assert "3/4" in seen.line("policy", {"step": 3, "num_steps": 4})


def test_no_color_means_none(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    out = io.StringIO()
    console = RichConsole(file=out, force_terminal=True, width=100, highlight=False)
    show_results(results(), console)
    assert not [
        code for code in ("\x1b[3", "\x1b[9") if any(f"{code}{digit}m" in out.getvalue() for digit in range(1, 8))
    ]


def results():
    value = {"mean": 1234.5678, "low": -12345.678, "high": 123456.78}
    arms = {
        name: {"mpl": value, "return": value}
        for name in ("real_only", "fixed_weight", "bounds_filter", "trust_weighted")
    }
    facts = [{"name": name, "value": 0.123456, "founding": f} for name, f in FOUNDING.items()]
    return {
        "verdict": "It did not help.",
        "arms_title": "arms, 3 seeds",
        "arm_columns": ["mpl", "return"],
        "arms": arms,
        "synthetic": facts,
    }


def test_tables_fit_a_hundred_columns():
    out = io.StringIO()
    console = RichConsole(file=out, width=PLAIN_COLUMNS)
    show_results(results(), console)
    value = {"mean": 1234.5678, "low": -12345.678, "high": 123456.78}
    both = {"values": [value, value], "difference": -12.3456, "apart": False}
    runs = [{"name": name, "verdict": "It did not help.", "shipped": "real_only"} for name in ("first", "second")]
    show_comparison(
        {
            "runs": runs,
            "arms": {"trust_weighted": {"net_value_per_hour": both}},
            "config": {},
            "numbers": {"judge_auc": {"values": [0.5, None], "difference": None}},
        },
        console,
    )
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= PLAIN_COLUMNS
    for words in ("It did not help.", "judge_auc", "-12.3", "0 settings differ: none"):
        assert any(words in line for line in lines), words


@pytest.mark.parametrize(
    ("value", "text"),
    [(999.4, "999"), (999.6, "1,000"), (-1234567, "-1,234,567"), (1e-5, "1e-05"), (True, "True"), ([1], "[1]")],
)
def test_one_way_to_write_numbers(value, text):
    assert number(value) == text


def test_differences_intervals_and_times():
    assert [signed(v) for v in (1.5, -1.5, 0, None)] == ["+1.5", "-1.5", "0", "–"]
    assert interval({"mean": 5000, "low": 1, "high": 2}) == "5,000 [1, 2]"
    assert [duration(s) for s in (0.2, 119, 200, 7500)] == ["0 s", "119 s", "3 min 20 s", "2 h 05 min"]
