"""The cell's camera: what a 64 × 64 picture shows, drawn offscreen by pygame without GL or a display.

From above to below: the rail with the cart, the rope, the hook with the part that it carries, and on the floor the
in-feed (green, with the waiting part while the hook is empty) and the out-feed (blue). A heavier part is larger.
Shapes are drawn on a larger canvas and averaged down, so that a pixel's shade tells positions finer than a pixel.
"""

import math
import os

import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
import pygame  # it prints a greeting unless told not to before its import

FRAME_SIZE = 64
OVERSAMPLING = 3
VIEW_M = 4.4  # width and height of what is seen; the middle of the rail is in the middle
RAIL_HEIGHT = 0.16  # of the picture, from above
FLOOR_HEIGHT = 0.80
ROPE_SHARE = 0.42  # of the picture's height for a rope of 1 m: drawn longer than to scale, so that swing shows well

BACKGROUND, RAIL, FLOOR = (18, 20, 28), (90, 95, 110), (52, 54, 62)
INFEED, OUTFEED = (30, 170, 70), (40, 90, 230)
CART, ROPE, HOOK, PART = (235, 235, 240), (170, 170, 170), (250, 210, 40), (240, 70, 50)


def part_side_m(mass_kg: float) -> float:
    """The side of the square that stands for a part of this mass, in metres of the view."""
    return 0.22 + 0.55 * mass_kg


def _surface(edge: int) -> pygame.Surface:
    """A square surface whose bytes in memory are red, green, blue, so that a picture is read in one copy."""
    return pygame.Surface((edge, edge), 0, 24, (0xFF, 0xFF00, 0xFF0000, 0))


class Camera:
    """Draws one cell at a time; holds a canvas and no window."""

    def __init__(self, size: int = FRAME_SIZE) -> None:
        self.size = size
        self._edge = size * OVERSAMPLING
        self._scale = self._edge / VIEW_M
        self._canvas, self._picture = _surface(self._edge), _surface(size)
        rows: NDArray[np.uint8] = np.frombuffer(self._picture.get_buffer(), dtype=np.uint8)  # type: ignore[call-overload]
        rows = rows.reshape(size, self._picture.get_pitch())
        self._pixels = rows[:, : 3 * size].reshape(size, size, 3)

    def background(self, infeed_m: float, outfeed_m: float) -> pygame.Surface:
        """What does not move during an episode: rail, floor, in-feed and out-feed."""
        surface = _surface(self._edge)
        surface.fill(BACKGROUND)
        edge, floor = self._edge, self._row(FLOOR_HEIGHT)
        surface.fill(FLOOR, (0, floor, edge, edge - floor))
        surface.fill(RAIL, (0, self._row(RAIL_HEIGHT) - 1, edge, 3))
        for position, colour in ((infeed_m, INFEED), (outfeed_m, OUTFEED)):
            surface.fill(colour, self._box(position, self._row(0.9), 0.5, 0.8))
        return surface

    def draw(
        self,
        background: pygame.Surface,
        out: NDArray[np.uint8],
        *,
        cart_m: float,
        swing_rad: float,
        rope_m: float,
        infeed_m: float,
        part_kg: float,
        loaded: bool,
    ) -> None:
        """Draw a cell as it stands into `out` (size, size, 3)."""
        canvas = self._canvas
        canvas.blit(background, (0, 0))
        top = (self._column(cart_m), self._row(RAIL_HEIGHT))
        hook_m = cart_m + rope_m * math.sin(swing_rad)
        hook = (self._column(hook_m), self._row(RAIL_HEIGHT + ROPE_SHARE * rope_m * math.cos(swing_rad)))
        side = part_side_m(part_kg)
        if loaded:
            canvas.fill(PART, self._box(hook_m, hook[1] + 0.5 * side * self._scale, side, side))
        else:
            canvas.fill(PART, self._box(infeed_m, self._row(FLOOR_HEIGHT) - 0.5 * side * self._scale, side, side))
        pygame.draw.line(canvas, ROPE, top, hook, OVERSAMPLING)
        canvas.fill(CART, self._box(cart_m, top[1], 0.5, 0.28))
        pygame.draw.circle(canvas, HOOK, hook, 0.14 * self._scale)
        pygame.transform.smoothscale(canvas, (self.size, self.size), self._picture)
        out[:] = self._pixels

    def _column(self, position_m: float) -> float:
        return float(0.5 * self._edge + position_m * self._scale)

    def _row(self, share: float) -> float:
        return float(self._edge * share)

    def _box(self, centre_m: float, row: float, width_m: float, height_m: float) -> tuple[int, int, int, int]:
        width, height = width_m * self._scale, height_m * self._scale
        left, top = round(self._column(centre_m) - 0.5 * width), round(row - 0.5 * height)
        return left, top, round(width), round(height)
