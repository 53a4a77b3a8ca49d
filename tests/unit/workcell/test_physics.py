"""The cell's physics against the textbook's."""

import mujoco
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from phaseb.workcell.physics import (
    CONTROL_STEP_S,
    GRAVITY_M_S2,
    HOOK_BODY,
    RAIL_END_M,
    CellParameters,
    Cranes,
    build_model,
)

CONFIG = CellParameters()
CART, ROPE = CONFIG.cart_mass_kg, CONFIG.rope_length_m


def energy_j(position, velocity, hanging_kg):
    """Kinetic and potential energy of a cart and a point mass on a rigid rope."""
    swing, rate, speed = position[..., 1], velocity[..., 1], velocity[..., 0]
    kinetic = 0.5 * (CART + hanging_kg) * speed**2 + hanging_kg * ROPE * np.cos(swing) * speed * rate
    kinetic = kinetic + 0.5 * hanging_kg * ROPE**2 * rate**2
    return kinetic + hanging_kg * GRAVITY_M_S2 * ROPE * (1 - np.cos(swing))


def swinging(amplitude_rad, hanging_kg, seconds, hold_cart):
    """Positions and velocities of a crane let go at an angle."""
    model = build_model(CONFIG)
    model.body_mass[HOOK_BODY] = hanging_kg
    if hold_cart:
        model.dof_armature[0] = 1e9
    data = mujoco.MjData(model)
    data.qpos[1] = amplitude_rad
    positions, velocities = [], []
    for _ in range(int(seconds / model.opt.timestep)):
        positions.append(data.qpos.copy())
        velocities.append(data.qvel.copy())
        mujoco.mj_step(model, data)
    return np.array(positions), np.array(velocities), model.opt.timestep


def period_s(swing, step_s):
    up = np.flatnonzero((swing[:-1] < 0) & (swing[1:] >= 0))
    crossings = (up - swing[up] / (swing[up + 1] - swing[up])) * step_s
    return np.diff(crossings).mean()


@pytest.mark.parametrize("hanging_kg", [0.15, 0.45, 1.05])
@pytest.mark.parametrize("hold_cart", [True, False])
def test_small_swings_take_the_textbooks_time(hanging_kg, hold_cart):
    positions, _, step_s = swinging(0.05, hanging_kg, 60, hold_cart)
    # A free cart swings against the load, as if the rope were shorter by M / (M + m).
    textbook = 2 * np.pi * np.sqrt(ROPE / GRAVITY_M_S2 * (1 if hold_cart else CART / (CART + hanging_kg)))
    assert period_s(positions[:, 1], step_s) == pytest.approx(textbook, rel=0.01)


@pytest.mark.parametrize("amplitude_rad", [0.1, 0.5, 1.5])
@pytest.mark.parametrize("hold_cart", [True, False])
def test_a_free_pendulum_keeps_its_energy(amplitude_rad, hold_cart):
    hanging_kg = 0.75
    positions, velocities, _ = swinging(amplitude_rad, hanging_kg, 15, hold_cart)
    if hold_cart:
        velocities[:, 0] = positions[:, 0] = 0  # what little the held cart moves is the armature's, not the crane's
    kept = energy_j(positions, velocities, hanging_kg)
    assert kept[0] == pytest.approx(hanging_kg * GRAVITY_M_S2 * ROPE * (1 - np.cos(amplitude_rad)))
    np.testing.assert_allclose(kept, kept[0], rtol=0.004)


def test_a_free_crane_keeps_its_momentum_along_the_rail():
    positions, velocities, _ = swinging(1.0, 0.75, 15, hold_cart=False)
    momentum = (CART + 0.75) * velocities[:, 0] + 0.75 * ROPE * np.cos(positions[:, 1]) * velocities[:, 1]
    assert np.abs(momentum).max() < 1e-3 * 0.75 * np.abs(velocities[:, 1]).max()


def test_driven_cranes_follow_the_equations_of_motion():
    """Against Lagrange's equations, written out and solved by another integrator."""
    generator = np.random.default_rng(0)
    cranes = Cranes(CONFIG, 4)
    start, speeds = generator.uniform(-0.3, 0.3, (4, 2)), generator.uniform(-0.3, 0.3, (4, 2))
    cranes.place(start, speeds)
    cranes.attach(np.array([False, True, False, True]), np.full(4, 0.6))
    speeds = cranes.velocity.copy()
    expected = np.concatenate([start, speeds], axis=1)
    for _ in range(4):
        drive = generator.uniform(-0.5, 0.5, 4)
        cranes.advance(drive)
        for i in range(4):
            hanging, force = CONFIG.hook_mass_kg + cranes.load[i], CONFIG.max_force_n * drive[i]

            def motion(_, y, hanging=hanging, force=force):
                sine, cosine = np.sin(y[1]), np.cos(y[1])
                mass = np.array([[CART + hanging, hanging * ROPE * cosine], [cosine, ROPE]])
                load = np.array([force + hanging * ROPE * sine * y[3] ** 2, -GRAVITY_M_S2 * sine])
                return np.concatenate([y[2:], np.linalg.solve(mass, load)])

            expected[i] = solve_ivp(motion, (0, CONTROL_STEP_S), expected[i], rtol=1e-9, atol=1e-9).y[:, -1]
    np.testing.assert_allclose(cranes.position, expected[:, :2], atol=2e-4)
    np.testing.assert_allclose(cranes.velocity, expected[:, 2:], atol=1e-3)


def test_the_drives_work_becomes_the_cranes_energy():
    cranes = Cranes(CONFIG, 1)
    cranes.place(np.zeros((1, 2)), np.zeros((1, 2)))
    work = 0.0
    for drive in (0.4, 0.4, 0.2):  # the cart only goes forward, so its way is its displacement
        way = cranes.advance(np.array([drive]))
        work += CONFIG.max_force_n * drive * way[0]
    assert cranes.position[0, 0] > 0
    gained = energy_j(cranes.position, cranes.velocity, CONFIG.hook_mass_kg)[0]
    assert gained == pytest.approx(work, rel=0.005)


def test_a_catch_keeps_momentum_and_never_adds_energy():
    generator = np.random.default_rng(1)
    cranes = Cranes(CONFIG, 64)
    position, velocity = generator.uniform(-1, 1, (64, 2)), generator.uniform(-1, 1, (64, 2))
    cranes.place(position, velocity)
    catching, part = np.arange(64) % 2 == 0, generator.uniform(0.3, 0.9, 64)
    # At the instant of the catch only the part's share of the kinetic energy changes: it starts at rest.
    before = energy_j(position, velocity, CONFIG.hook_mass_kg)
    cranes.attach(catching, part)
    at_rest = part * GRAVITY_M_S2 * ROPE * (1 - np.cos(position[:, 1]))
    after = energy_j(cranes.position, cranes.velocity, CONFIG.hook_mass_kg + cranes.load)
    assert (after[catching] <= before[catching] + at_rest[catching] + 1e-12).all()
    np.testing.assert_array_equal(cranes.velocity[~catching], velocity[~catching])
    rail = (CART + CONFIG.hook_mass_kg) * velocity[:, 0]
    rail += CONFIG.hook_mass_kg * ROPE * np.cos(position[:, 1]) * velocity[:, 1]
    hanging = CONFIG.hook_mass_kg + cranes.load
    caught = (CART + hanging) * cranes.velocity[:, 0]
    caught += hanging * ROPE * np.cos(position[:, 1]) * cranes.velocity[:, 1]
    np.testing.assert_allclose(caught, rail, atol=1e-12)


def test_a_release_leaves_the_hook_its_velocity():
    cranes = Cranes(CONFIG, 2)
    cranes.place(np.array([[0.0, 0.3], [0.0, 0.3]]), np.array([[0.5, -0.4], [0.5, -0.4]]))
    cranes.attach(np.array([True, True]), np.full(2, 0.6))
    velocity = cranes.velocity.copy()
    cranes.release(np.array([True, False]))
    np.testing.assert_array_equal(cranes.velocity, velocity)
    np.testing.assert_array_equal(cranes.load, [0, 0.6])


def test_the_rail_ends():
    cranes = Cranes(CONFIG, 2)
    cranes.place(np.zeros((2, 2)), np.zeros((2, 2)))
    furthest = 0.0
    for _ in range(40):
        cranes.advance(np.array([1.0, -1.0]))
        furthest = max(furthest, np.abs(cranes.position[:, 0]).max())
    assert RAIL_END_M - 0.05 < furthest < RAIL_END_M + 0.35


def test_each_crane_is_on_its_own():
    generator = np.random.default_rng(2)
    position, velocity = generator.uniform(-1, 1, (5, 2)), generator.uniform(-1, 1, (5, 2))
    drives = generator.uniform(-1, 1, (20, 5))
    together = Cranes(CONFIG, 5)
    together.place(position, velocity)
    together.attach(np.array([False, True, False, True, False]), np.linspace(0.3, 0.9, 5))
    for drive in drives:
        together.advance(drive)
    for i in (1, 2):
        alone = Cranes(CONFIG, 1)
        alone.place(position[i : i + 1], velocity[i : i + 1])
        if i == 1:
            alone.attach(np.array([True]), np.linspace(0.3, 0.9, 5)[1:2])
        for drive in drives:
            alone.advance(drive[i : i + 1])
        np.testing.assert_allclose(alone.position[0], together.position[i], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(alone.velocity[0], together.velocity[i], rtol=1e-9, atol=1e-12)
