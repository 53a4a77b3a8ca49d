"""The camera shows what it should: everything is visible, to a fraction of a pixel."""

import numpy as np
import pytest

from phaseb.config.data import EnvironmentConfig
from phaseb.workcell import BatchedCell
from phaseb.workcell.camera import CART, FRAME_SIZE, HOOK, INFEED, OUTFEED, PART, VIEW_M
from phaseb.workcell.collect import collect_episodes
from phaseb.workcell.physics import CellParameters

QUIET = CellParameters(sensor_noise=0)
METRES_PER_PIXEL = VIEW_M / FRAME_SIZE


def cell_at(*, cart, swing, loaded, seed=0):
    cell = BatchedCell(1, "frames", config=QUIET)
    cell.reset([seed])
    cell._cranes.place(np.array([[cart, swing]]), np.zeros((1, 2)))
    if loaded:
        cell._cranes.attach(np.array([True]), cell._part)
    return cell


def seen(frame, colour, tolerance=60):
    """(share of the picture, column in metres of the rail, row) of what has this colour."""
    match = np.abs(frame.astype(int) - np.array(colour)).sum(axis=-1) < tolerance
    if not match.any():
        return 0, np.nan, np.nan
    rows, columns = np.nonzero(match)
    return match.sum(), (columns.mean() + 0.5 - FRAME_SIZE / 2) * METRES_PER_PIXEL, rows.mean()


@pytest.mark.parametrize("loaded", [True, False])
@pytest.mark.parametrize(("cart", "swing"), [(-1.2, 0.3), (0.0, 0.0), (0.9, -0.4)])
def test_everything_is_where_it_is(cart, swing, loaded):
    cell = cell_at(cart=cart, swing=swing, loaded=loaded)
    frame, true = cell.render()[0], cell.true_state()
    assert seen(frame, CART)[1] == pytest.approx(cart, abs=METRES_PER_PIXEL)
    assert seen(frame, INFEED)[1] == pytest.approx(true["infeed"][0], abs=METRES_PER_PIXEL)
    assert seen(frame, OUTFEED)[1] == pytest.approx(true["outfeed"][0], abs=METRES_PER_PIXEL)
    hook = true["hook_position"][0]
    assert seen(frame, HOOK, 150)[1] == pytest.approx(hook, abs=METRES_PER_PIXEL)
    part = seen(frame, PART)
    assert part[1] == pytest.approx(hook if loaded else true["infeed"][0], abs=METRES_PER_PIXEL)
    rope = frame[16:30].astype(int).sum(axis=-1).max(axis=-1)
    assert (rope > 150).all(), "the rope is seen in every row between cart and hook"


def test_heavier_parts_are_larger():
    sizes, masses = [], []
    for seed in range(24):
        cell = cell_at(cart=0, swing=0, loaded=True, seed=seed)
        frame = cell.render()[0].astype(int)
        sizes.append(np.sqrt(seen(frame, PART, 200)[0]))
        masses.append(cell.true_state()["part_mass"][0])
    assert np.corrcoef(sizes, masses)[0, 1] > 0.95


def test_half_a_pixel_is_seen():
    one = cell_at(cart=0.0, swing=0.0, loaded=True).render()
    two = cell_at(cart=0.5 * METRES_PER_PIXEL, swing=0.0, loaded=True).render()
    assert not np.array_equal(one, two)


def test_larger_pictures_can_be_drawn():
    cell = cell_at(cart=0.0, swing=0.2, loaded=True)
    large, small = cell.render(256)[0], cell.render()[0]
    assert large.shape == (256, 256, 3)
    reduced = large.reshape(64, 4, 64, 4, 3).mean(axis=(1, 3))
    assert np.abs(reduced - small).mean() < 6


def test_a_straight_line_through_the_pixels_finds_the_state(monkeypatch):
    """Least squares from column and row profiles, fitted on some episodes and judged on others."""
    monkeypatch.setattr("phaseb.workcell.batch.CellParameters", lambda: QUIET)
    config = EnvironmentConfig()
    episodes = collect_episodes(config, 0, range(40))

    def profiles(chosen):
        frames = np.concatenate([e.frames for e in chosen]).astype(np.float64) / 255
        # Columns of the whole picture, and of the upper half, where only cart, rope and hook are.
        parts = [frames.sum(axis=1), frames[:, :12].sum(axis=1), frames[:, 20:36].sum(axis=1), frames.sum(axis=2)]
        return np.concatenate([p.reshape(len(frames), -1) for p in parts], axis=1)

    def targets(chosen):
        state = np.concatenate([e.state for e in chosen]).astype(np.float64)
        hook = state[:, 0] + np.sin(state[:, 2])
        return np.stack([state[:, 0], hook, state[:, 2], state[:, 4], state[:, 7]], axis=1)

    train, test = episodes[:30], episodes[30:]
    x, y = profiles(train), targets(train)
    centre = x.mean(axis=0)
    ridge = np.linalg.solve((x - centre).T @ (x - centre) + 0.3 * np.eye(x.shape[1]), (x - centre).T @ (y - y.mean(0)))
    found, truth = (profiles(test) - centre) @ ridge + y.mean(axis=0), targets(test)
    r2 = 1 - ((found - truth) ** 2).sum(axis=0) / ((truth - truth.mean(axis=0)) ** 2).sum(axis=0)
    names = ("cart", "hook", "swing", "loaded", "mass")
    assert dict(zip(names, r2 > (0.97, 0.97, 0.7, 0.9, 0.8), strict=True)) == dict.fromkeys(names, True), r2
