"""What the cell's sensors report of its true state, with their noise."""

import numpy as np
from numpy.typing import NDArray

from phaseb.runtime.seeding import numpy_generator

STATE_NAMES = (
    "cart_position_m",
    "cart_speed_m_s",
    "swing_rad",
    "swing_rate_rad_s",
    "loaded",
    "range_to_infeed_m",
    "range_to_outfeed_m",
    "part_mass_kg",
)
# 1 mm, 5 mm/s, 0.1°, 0.5°/s, ranges 2 mm; the load switch and the part's label are exact.
NOISE_STD = np.array([0.001, 0.005, np.deg2rad(0.1), np.deg2rad(0.5), 0.0, 0.002, 0.002, 0.0])
# Beyond anything that the physics reaches; the sensors saturate there.
STATE_HIGH = np.array([3.0, 50.0, 500.0, 100.0, 1.0, 10.0, 10.0, 100.0], dtype=np.float32)


def draw_noise(seed: int, num_steps: int, factor: float) -> NDArray[np.float64]:
    """(num_steps + 1, 8) noise of one episode's readings, from the stream (seed, "sensor")."""
    return factor * NOISE_STD * numpy_generator(seed, "sensor").standard_normal((num_steps + 1, len(NOISE_STD)))
