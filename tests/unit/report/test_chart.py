"""Charts: marks where their values say, axes that hold them, nothing that breaks a page."""

import re
from math import isclose, nan
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phaseb.report.svg import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Chart, _ticks

numbers = st.floats(-1e9, 1e9, allow_subnormal=False)


def drawn(chart: Chart) -> ElementTree.Element:
    return ElementTree.fromstring(f"<figure>{chart.svg()}</figure>")  # it must be well-formed


def dots(chart: Chart) -> list[tuple[float, float]]:
    return [(float(c.get("cx")), float(c.get("cy"))) for c in drawn(chart).iter("circle")]


@settings(deadline=None)
@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=20))
def test_points_lie_inside_in_the_order_of_their_values(pairs):
    x, y = [p[0] for p in pairs], [p[1] for p in pairs]
    seen = dots(Chart("t").points(x, y, "p", "#000"))
    assert len(seen) == len(pairs)
    for cx, cy in seen:
        assert LEFT - 0.1 <= cx <= WIDTH - RIGHT + 0.1
        assert TOP - 0.1 <= cy <= HEIGHT - BOTTOM + 0.1
    by_x = [cx for _, (cx, _) in sorted(zip(x, seen, strict=True), key=lambda item: item[0])]
    by_y = [cy for _, (_, cy) in sorted(zip(y, seen, strict=True), key=lambda item: item[0])]
    assert by_x == sorted(by_x)
    assert by_y == sorted(by_y, reverse=True)  # down is small


def test_distances_are_in_proportion():
    (a, _), (b, _), (c, _) = dots(Chart("t").points([0, 1, 4], [0, 0, 1], "p", "#000"))
    assert isclose((c - b) / (b - a), 3, rel_tol=0.01)


def test_what_is_not_a_number_is_left_out():
    chart = Chart("t").line([1, 2, 3], [1.0, nan, 3.0], "l", "#000").bars([nan, 2], [nan, 1], [nan, 3], ["#000"] * 2)
    assert len(dots(chart)) == 2
    assert "nan" not in chart.svg()
    assert len([r for r in drawn(chart).iter("rect") if r.get("class") != "box"]) == 1


@pytest.mark.parametrize("values", [[], [nan], [5.0], [0.0, 0.0], [1e-300, 1e-300]])
def test_hardly_anything_to_show_is_no_error(values):
    assert "nan" not in Chart("t").line(list(range(len(values))), values, "l", "#000").svg()


def test_bars_start_at_zero_whatever_their_sign():
    chart = Chart("t", y_from_zero=True, categories=["a", "b"]).bars([2, -1], [nan] * 2, [nan] * 2, ["#111", "#222"])
    up, down = (r for r in drawn(chart).iter("rect") if r.get("class") != "box")
    zero = float(up.get("y")) + float(up.get("height"))
    assert isclose(zero, float(down.get("y")), abs_tol=0.11)
    assert isclose(float(up.get("height")), 2 * float(down.get("height")), rel_tol=0.01)


def test_a_whisker_spans_its_interval():
    chart = Chart("t", categories=["a"]).bars([2], [1], [3], ["#111"])
    (whisker,) = (line for line in drawn(chart).iter("line") if line.get("stroke") == "#222")
    (bar,) = (r for r in drawn(chart).iter("rect") if r.get("class") != "box")
    middle = (float(whisker.get("y1")) + float(whisker.get("y2"))) / 2
    assert isclose(middle, float(bar.get("y")), abs_tol=0.2)
    assert "95 % interval 1 to 3" in chart.svg()


def test_markup_in_names_stays_text():
    chart = Chart("<b>", "x<y", "a&b", categories=["<i>"]).points([0], [1], "<script>", "#000", ["<u>"])
    assert "<script>" not in chart.svg()
    assert "&lt;script&gt;" in chart.svg()
    drawn(chart)


def test_a_legend_names_each_series_once():
    chart = Chart("t").line([0, 1], [0, 1], "one", "#111").line([0, 1], [1, 0], "two", "#222")
    chart.band([0, 1], [0, 0], [1, 1], "between", "#111").points([0], [0], "one", "#111")
    legend = chart.svg().split("<svg")[0]
    assert re.findall(r"</i>(\w+)<", legend) == ["one", "two"]


@settings(deadline=None)
@given(numbers, st.floats(1e-6, 1e9))
def test_ticks_are_round_and_inside(low, width):
    high = low + width
    if high - low < 1e-6 * max(abs(low), 1):
        return
    ticks = _ticks(low, high)
    assert 2 <= len(ticks) <= 7
    slack = 1e-6 * (high - low)
    assert all(low - slack <= t <= high + slack for t in ticks)


def test_long_names_end_within_the_figure():
    chart = Chart("bars", categories=["a", "b", "c", "d", "placebo_trust_weighted"])
    chart.bars([1.0] * 5, [0.5] * 5, [1.5] * 5, ["#000"] * 5)
    label = next(text for text in drawn(chart).iter() if text.text == "placebo_trust_weighted")
    assert float(label.get("x")) + 6.5 * len(label.text) / 2 <= WIDTH
