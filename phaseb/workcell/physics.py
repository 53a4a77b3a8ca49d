"""The crane in MuJoCo: a force-driven cart on a rail and a mass swinging from it, many of them side by side.

Coordinates of one crane: x, the cart's position on the rail (m), and θ, the rope's angle from straight down (rad),
positive where the hook is ahead of the cart. The hook is at x + L sin θ.
"""

import copy
from dataclasses import dataclass

import mujoco
import numpy as np
from mujoco import rollout
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Runge-Kutta steps of 50 ms, four evaluations of the dynamics each, keep the energy of a free crane within 0.2 % over
# an episode; ten semi-implicit Euler steps of 25 ms cost 40 % less and lose 10 to 55 % of it.
PHYSICS_STEP_S = 0.05
PHYSICS_STEPS = 5
CONTROL_STEP_S = PHYSICS_STEP_S * PHYSICS_STEPS
RAIL_END_M = 1.8
GRAVITY_M_S2 = 9.81
HOOK_BODY = 2
# MuJoCo wants a positive moment of inertia of every moving body; that of a 5 mm ball is nothing beside m L².
POINT_INERTIA = 1e-6

# Nothing touches anything and a step depends on the state alone, so contacts and the solver's warm start are off.
_XML = """
<mujoco model="gantry">
  <option timestep="{step}" integrator="RK4" gravity="0 0 -{gravity}">
    <flag contact="disable" warmstart="disable" autoreset="disable" sensor="disable" island="disable"/>
  </option>
  <worldbody>
    <body name="cart">
      <joint name="rail" type="slide" axis="1 0 0" limited="true" range="-{end} {end}"/>
      <inertial pos="0 0 0" mass="{cart}" diaginertia="{point} {point} {point}"/>
      <body name="hook">
        <joint name="rope" type="hinge" axis="0 -1 0"/>
        <inertial pos="0 0 -{rope}" mass="{hook}" diaginertia="{point} {point} {point}"/>
      </body>
    </body>
  </worldbody>
  <actuator><motor joint="rail" gear="{force}" ctrllimited="true" ctrlrange="-1 1"/></actuator>
</mujoco>
"""


@dataclass(frozen=True)
class CellParameters:
    """A cart on a rail, a part swinging from it, a gripper.

    Attributes:
        cart_mass_kg: mass of the cart on the rail.
        hook_mass_kg: mass of the empty hook at the rope's end.
        rope_length_m: length of the (rigid, massless) rope.
        max_force_n: force on the cart at full drive.
        part_mass_kg: masses of the lightest and of the heaviest part; each episode draws one.
        sensor_noise: factor on the sensors' noise; 0 reads exactly.
    """

    cart_mass_kg: float = 1.0
    hook_mass_kg: float = 0.15
    rope_length_m: float = 1.0
    max_force_n: float = 10.0
    part_mass_kg: tuple[float, float] = (0.3, 0.9)
    sensor_noise: float = 1.0


def build_model(config: CellParameters) -> mujoco.MjModel:
    """The MuJoCo model of one crane with an empty hook."""
    text = _XML.format(
        step=PHYSICS_STEP_S,
        gravity=GRAVITY_M_S2,
        end=RAIL_END_M,
        cart=config.cart_mass_kg,
        hook=config.hook_mass_kg,
        rope=config.rope_length_m,
        force=config.max_force_n,
        point=POINT_INERTIA,
    )
    return mujoco.MjModel.from_xml_string(text)


class Cranes:
    """N cranes that MuJoCo integrates in one call and one thread.

    Attributes:
        position: (N, 2) x in m and θ in rad.
        velocity: (N, 2) their rates.
        load: (N,) kg hanging from the hook besides the hook itself.
    """

    def __init__(self, config: CellParameters, num_cranes: int) -> None:
        self._config = config
        model = build_model(config)
        self._models = [copy.copy(model) for _ in range(num_cranes)]
        self._data = mujoco.MjData(model)
        self._rollout = rollout.Rollout(nthread=0)
        size = mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_FULLPHYSICS)
        self._initial = np.zeros((num_cranes, size))
        self._states = np.zeros((num_cranes, PHYSICS_STEPS, size))
        self._control = np.zeros((num_cranes, PHYSICS_STEPS, 1))
        self.position = np.zeros((num_cranes, 2))
        self.velocity = np.zeros((num_cranes, 2))
        self.load = np.zeros(num_cranes)

    @property
    def hook_position(self) -> Floats:
        """(N,) m along the rail."""
        return self.position[:, 0] + self._config.rope_length_m * np.sin(self.position[:, 1])

    @property
    def hook_speed(self) -> Floats:
        """(N,) m/s along the rail."""
        swing, rate = self.position[:, 1], self.velocity[:, 1]
        return self.velocity[:, 0] + self._config.rope_length_m * np.cos(swing) * rate

    def place(self, position: Floats, velocity: Floats) -> None:
        """Put every crane at (N, 2) coordinates and rates with an empty hook."""
        self.position, self.velocity = position.copy(), velocity.copy()
        self._hang(np.arange(len(self.load)), np.zeros(len(self.load)))

    def attach(self, which: NDArray[np.bool_], mass_kg: Floats) -> None:
        """Hang a resting part on the hooks of `which` cranes: an inelastic catch.

        The generalised momentum M(q)·q̇ is kept (the part brings none), so a catch never adds energy.
        """
        rows = np.flatnonzero(which)
        momentum = np.einsum("nij,nj->ni", self.mass_matrix()[rows], self.velocity[rows])
        self._hang(rows, mass_kg[rows])
        self.velocity[rows] = np.linalg.solve(self.mass_matrix()[rows], momentum[..., None])[..., 0]

    def release(self, which: NDArray[np.bool_]) -> None:
        """Let the parts of `which` cranes go; the hook keeps its velocity."""
        rows = np.flatnonzero(which)
        self._hang(rows, np.zeros(len(rows)))

    def advance(self, drive: Floats) -> Floats:
        """One control step under a constant drive (N,) in [-1, 1].

        Returns:
            (N,) m: the length of the way that each cart went, back and forth counted alike.
        """
        self._initial[:, 1:3], self._initial[:, 3:5] = self.position, self.velocity
        self._control[:] = drive[:, None, None]
        self._rollout.rollout(
            self._models, self._data, self._initial, self._control, nstep=PHYSICS_STEPS, state=self._states
        )
        carts = np.concatenate([self.position[:, :1], self._states[:, :, 1]], axis=1)
        self.position, self.velocity = self._states[:, -1, 1:3].copy(), self._states[:, -1, 3:5].copy()
        return np.abs(np.diff(carts, axis=1)).sum(axis=1)

    def mass_matrix(self) -> Floats:
        """(N, 2, 2) M(q) of cart and pendulum, for the masses as they hang."""
        rope, cart = self._config.rope_length_m, self._config.cart_mass_kg
        swinging = self._config.hook_mass_kg + self.load
        matrix = np.empty((len(swinging), 2, 2))
        matrix[:, 0, 0] = cart + swinging
        matrix[:, 0, 1] = matrix[:, 1, 0] = swinging * rope * np.cos(self.position[:, 1])
        matrix[:, 1, 1] = swinging * rope**2 + POINT_INERTIA
        return matrix

    def _hang(self, rows: NDArray[np.intp], mass_kg: Floats) -> None:
        self.load[rows] = mass_kg
        for row, mass in zip(rows, mass_kg, strict=True):
            self._models[row].body_mass[HOOK_BODY] = self._config.hook_mass_kg + mass
