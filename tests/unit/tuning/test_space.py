"""Points come from the space alone, conditions hold, grids are whole, and defaults are found."""

import itertools

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phaseb.config.root import Config
from phaseb.config.tuning import Parameter
from phaseb.tuning.space import apply_point, defaults, draw, exists, grid, in_order, unflatten

SPACE = {
    "dynamics.gru.teacher_forcing.start": Parameter(
        uniform=(0.0, 1.0), when={"dynamics.gru.teacher_forcing.schedule": ["linear", "exponential"]}
    ),
    "dynamics.gru.teacher_forcing.schedule": Parameter(choice=["constant", "linear", "exponential"]),
    "dynamics.gru.learning_rate": Parameter(loguniform=(1e-4, 1e-1)),
    "dynamics.gru.hidden_size": Parameter(integer=(16, 256), log=True),
    "dynamics.gru.num_members": Parameter(integer=(1, 5), step=2),
}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31))
def test_every_drawn_point_lies_in_the_space_and_obeys_its_conditions(seed):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    point = draw(SPACE, study.ask())
    scheduled = point["dynamics.gru.teacher_forcing.schedule"] != "constant"
    assert ("dynamics.gru.teacher_forcing.start" in point) == scheduled
    assert 1e-4 <= point["dynamics.gru.learning_rate"] <= 1e-1
    assert 16 <= point["dynamics.gru.hidden_size"] <= 256
    assert point["dynamics.gru.num_members"] in (1, 3, 5)
    config = apply_point(Config(), point)
    assert config.dynamics.gru.learning_rate == point["dynamics.gru.learning_rate"]
    assert config.dynamics.gru.batch_size == Config().dynamics.gru.batch_size


def test_a_grid_holds_every_combination_once():
    space = {
        "a": Parameter(choice=["x", "y"]),
        "b": Parameter(uniform=(0, 1), when={"a": ["y"]}),
        "c": Parameter(loguniform=(1, 100)),
        "d": Parameter(integer=(1, 2)),
    }
    points = [tuple(sorted(p.items())) for p in grid(space)]
    wanted = [
        tuple(sorted({"a": a, **({"b": b} if a == "y" else {}), "c": c, "d": d}.items()))
        for a, b, c, d in itertools.product("xy", (0.0, 0.5, 1.0), (1.0, 10.0, 100.0), (1, 2))
        if a == "y" or b == 0.0
    ]
    assert len(points) == len(set(points)) == len(wanted) == 24
    assert [[n for n, _ in p] for p in sorted(points)] == [[n for n, _ in p] for p in sorted(wanted)]
    for mine, theirs in zip(sorted(points), sorted(wanted), strict=True):
        assert [v for _, v in mine] == pytest.approx([v for _, v in theirs]) or mine == theirs


def test_conditions_are_settled_before_they_are_asked_and_circles_are_refused():
    order = in_order(SPACE)
    assert order.index("dynamics.gru.teacher_forcing.schedule") < order.index("dynamics.gru.teacher_forcing.start")
    circle = {"a": Parameter(choice=[1], when={"b": [1]}), "b": Parameter(choice=[1], when={"a": [1]})}
    with pytest.raises(ValueError, match="circle: a, b"):
        in_order(circle)


def test_a_condition_on_what_does_not_exist_does_not_hold():
    chain = {
        "a": Parameter(choice=[1, 2]),
        "b": Parameter(choice=[1, 2], when={"a": [1]}),
        "c": Parameter(choice=[1], when={"b": [1]}),
    }
    assert not exists(chain["c"], {"a": 2})
    assert exists(chain["c"], {"a": 1, "b": 1})
    assert len(list(grid(chain))) == 3


def test_the_base_configs_own_values_are_a_point_if_they_lie_inside():
    config = Config()
    inside = {"dynamics.gru.learning_rate": Parameter(loguniform=(1e-5, 1.0))}
    assert defaults(inside, config) == {"dynamics.gru.learning_rate": config.dynamics.gru.learning_rate}
    assert defaults({"dynamics.gru.learning_rate": Parameter(loguniform=(0.5, 1.0))}, config) is None
    assert defaults({"dynamics.gru.loss": Parameter(choice=["mse"])}, config) is None
    assert defaults({"dynamics.gru.hidden_size": Parameter(integer=(100, 200), step=3)}, config) is None


def test_dotted_names_nest():
    assert unflatten({"a.b": 1, "a.c.d": 2}) == {"a": {"b": 1, "c": {"d": 2}}}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"uniform": [2, 1]}, "wrong way round"),
        ({"uniform": [1, 1]}, "empty"),
        ({"loguniform": [0, 1]}, "must start above 0"),
        ({"integer": [0, 4], "log": True}, "must start above 0"),
        ({"uniform": [0, 1], "choice": [1]}, "exactly one"),
        ({}, "exactly one"),
        ({"choice": []}, "at least 1"),
        ({"loguniform": [1, 2], "step": 0.1}, "step goes with"),
    ],
)
def test_ranges_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Parameter(**wrong)
