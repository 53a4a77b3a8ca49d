"""What becomes of z_V: sensors as they are, learned directions only where they tell what follows."""

import pytest
import torch
from sklearn.linear_model import LinearRegression

from phaseb.latents.projection import MAX_SENSOR_DIMS, fit_projection

EPISODES, STEPS = 20, 50


@pytest.fixture(scope="module")
def seen():
    """Sensors (N, T, 3), and a quantity (N, T) that they do not show."""
    generator = torch.Generator().manual_seed(0)
    walk = torch.randn(EPISODES, STEPS, 4, generator=generator).cumsum(1)
    walk = (walk - walk.mean((0, 1))) / walk.std((0, 1))
    return walk[..., :3], walk[..., 3], 0.1 * torch.randn(EPISODES, STEPS, 3, generator=generator)


def explained(x, y):
    return float(LinearRegression().fit(x, y).score(x, y))


def test_learned_latents_that_bend_and_blur_the_sensors_are_left_out(seen):
    sensors, _, texture = seen
    candidates = torch.cat([sensors, sensors + texture, torch.tanh(sensors)], dim=-1)
    readout = fit_projection(list(candidates), num_sensors=3, num_dims=8, seed=0)
    assert readout.num_dims == 3
    z = readout(candidates).flatten(0, 1)
    assert explained(z, sensors.flatten(0, 1)) > 0.9999
    assert readout.weight[3:].abs().max() == 0


def test_what_changes_nothing_is_left_out(seen):
    """A colour that differs from episode to episode, and one that walks: no sensor shows them, and nothing follows."""
    sensors, hidden, texture = seen
    colour = torch.randn(EPISODES, 1, 1, generator=torch.Generator().manual_seed(2)).expand(-1, STEPS, -1)
    candidates = torch.cat([sensors, texture, hidden[..., None], colour], dim=-1)
    readout = fit_projection(list(candidates), num_sensors=3, num_dims=8, seed=0)
    assert readout.num_dims == 3


@pytest.mark.parametrize("name", ["actions", "rewards"])
def test_what_only_the_learned_latents_tell_of_an_outcome_is_kept_without_the_sensors_share(seen, name):
    sensors, hidden, texture = seen
    candidates = torch.cat([sensors, sensors + texture, (hidden + 0.3 * sensors[..., 0])[..., None]], dim=-1)
    outcomes = [{name: (0.2 * s[:-1, 1] + h[:-1])[:, None]} for s, h in zip(sensors, hidden, strict=True)]
    readout = fit_projection(list(candidates), num_sensors=3, num_dims=8, seed=0, outcomes=outcomes)
    assert readout.num_dims == 4
    assert explained(readout(candidates).flatten(0, 1), hidden.flatten()) > 0.97
    assert fit_projection(list(candidates), 3, 8, 0, [*outcomes[:-1], {}]).num_dims == 3  # one lacks it: not counted


def test_a_place_that_the_sensors_show_later_is_kept():
    """Joints start alike and go to a part that only the camera shows; from then on they tell where it is."""
    generator = torch.Generator().manual_seed(3)
    part = torch.randn(EPISODES, 2, generator=generator)
    on_the_way = torch.linspace(-9, 9, STEPS).sigmoid()[None, :, None] * part[:, None]
    joints = on_the_way + 0.01 * torch.randn(EPISODES, STEPS, 2, generator=generator)
    camera = part[:, None] + 0.05 * torch.randn(EPISODES, STEPS, 2, generator=generator)
    camera = torch.cat([camera + joints, torch.randn(EPISODES, STEPS, 3, generator=generator)], dim=-1)
    candidates = torch.cat([joints, camera], dim=-1)
    readout = fit_projection(list(candidates), num_sensors=2, num_dims=2, seed=0)
    assert readout.num_dims == 4  # two of the camera's: the first are those that tell most
    assert explained(readout(candidates)[:, 0], part) > 0.95
    assert explained(joints[:, 0], part) < 0.5
    assert explained(joints[:, -1], part) > 0.99


def test_without_sensors_every_learned_direction_stays(seen):
    sensors, hidden, _ = seen
    candidates = torch.cat([sensors, 5 * hidden[..., None]], dim=-1)
    readout = fit_projection(list(candidates), num_sensors=0, num_dims=4, seed=0)
    assert readout.num_dims == 4
    z = readout(candidates).flatten(0, 1)
    torch.testing.assert_close(z.var(0, correction=0).sum(), torch.tensor(4.0), atol=1e-3, rtol=0)  # one weighs no more


def test_sensors_stay_whole_where_they_are_more_than_the_learned_dimensions(seen):
    sensors, hidden, texture = seen
    candidates = torch.cat([sensors, hidden[..., None], texture], dim=-1)
    readout = fit_projection(list(candidates), num_sensors=7, num_dims=4, seed=0)
    assert readout.num_dims == 7
    assert explained(readout(candidates).flatten(0, 1), candidates.flatten(0, 1)) > 0.9999


def test_of_very_many_sensors_the_leading_directions_stay(seen):
    sensors, hidden, _ = seen
    noise = 0.01 * torch.randn(EPISODES, STEPS, 96, generator=torch.Generator().manual_seed(1))
    candidates = torch.cat([sensors, hidden[..., None], noise], dim=-1)
    readout = fit_projection(list(candidates), num_sensors=100, num_dims=4, seed=0)
    assert readout.num_dims == MAX_SENSOR_DIMS
    assert explained(readout(candidates).flatten(0, 1), sensors.flatten(0, 1)) > 0.99


def test_a_sensor_that_never_moves_and_a_single_episode(seen):
    sensors, hidden, _ = seen
    still = torch.cat([sensors, torch.zeros_like(hidden)[..., None], hidden[..., None]], dim=-1)
    assert fit_projection(list(still), num_sensors=4, num_dims=8, seed=0).num_dims == 3
    assert fit_projection([still[0]], num_sensors=4, num_dims=8, seed=0).num_dims == 3


def test_long_episodes_among_short_ones_that_lack_most_phases(seen):
    """By their numbers the long ones would lie in one fold."""
    sensors, hidden, _ = seen
    whole = torch.cat([sensors, hidden[..., None]], dim=-1)
    generator = torch.Generator().manual_seed(4)
    candidates, outcomes = [], []
    for i in range(5 * EPISODES):
        long = i % 5 == 0
        candidates.append(whole[i // 5] if long else whole[i // 5, :4])
        paid = hidden[i // 5, :-1] if long else torch.randn(3, generator=generator)
        outcomes.append({"rewards": paid[:, None]})
    assert fit_projection(candidates, num_sensors=3, num_dims=8, seed=0, outcomes=outcomes).num_dims == 4


def test_it_is_turned_the_same_way_by_the_same_seed(seen):
    sensors, _, _ = seen
    a, b, c = (fit_projection(list(sensors), 3, 8, seed).weight for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.allclose(a, c)
    assert a.abs().min() > 1e-4  # no dimension is one sensor
