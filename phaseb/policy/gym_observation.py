"""What a Gymnasium observation holds for us: one picture, and everything else as one flat state vector."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from phaseb.errors import ConfigError, DataError


class ObservationLayout:
    """Where in an environment's observations picture and state are.

    A uint8 Box (H, W, 1, 3 or 4) is a picture, alone or as one entry of a Dict; the rest is flattened in the space's
    own order.

    Attributes:
        state_size: S, or 0 where the picture is all.
        state_names: name and width of each part of a state that a Dict or Tuple makes up, in order; else empty.
        frame_shape: (H, W, C), or None where there is no picture.

    Raises:
        ConfigError: several pictures, boxes of three dimensions or more that are none, or observations that are not a
            fixed set of numbers.
    """

    def __init__(self, name: str, space: spaces.Space[Any]) -> None:
        self.name = name
        self._key, self._rest = _parts(name, space)
        picture = space[self._key] if self._key and isinstance(space, spaces.Dict) else space
        self.frame_shape: tuple[int, int, int] | None = None
        if isinstance(picture, spaces.Box) and _is_picture(picture):
            self.frame_shape = (picture.shape[0], picture.shape[1], picture.shape[2])
        self.state_size = 0 if self._rest is None else spaces.flatdim(self._rest)
        self.state_names: tuple[tuple[str, int], ...] = ()
        if isinstance(self._rest, spaces.Dict | spaces.Tuple):
            self.state_names = tuple((part, spaces.flatdim(leaf)) for part, leaf in _leaves(self._rest))

    def split(self, observation: Any, step: int) -> tuple[NDArray[np.floating] | None, NDArray[np.uint8] | None]:
        """Copies of the state (S,) and of the picture (H, W, C), each None where there is none.

        Raises:
            DataError: what does not fit the space, NaN or Inf; names environment and step.
        """
        where = f"environment {self.name} at step {step}"
        picture = observation
        if self._key and isinstance(observation, Mapping):
            picture = observation.get(self._key)
        return self._state(observation, where), self._picture(picture, where)

    def _state(self, observation: Any, where: str) -> NDArray[np.floating] | None:
        if self._rest is None:
            return None
        try:
            flat = np.asarray(spaces.flatten(self._rest, observation))
            state: NDArray[np.floating] = flat.astype(np.float32) if flat.dtype != np.float64 else flat.copy()
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            kind = type(error).__name__
            raise DataError(f"{where}: the observation does not fit its space ({kind}): {self._rest}") from error
        if state.shape != (self.state_size,):
            raise DataError(f"{where}: state of shape {state.shape}, its space says ({self.state_size},)")
        if not np.isfinite(state).all():
            raise DataError(f"{where}: NaN or Inf in the observation, number {int(np.argmin(np.isfinite(state)))}")
        return state

    def _picture(self, picture: Any, where: str) -> NDArray[np.uint8] | None:
        if self.frame_shape is None:
            return None
        frame = np.array(picture)
        if frame.shape != self.frame_shape or frame.dtype != np.uint8:
            raise DataError(f"{where}: frame {frame.dtype}{frame.shape}, its space says uint8{self.frame_shape}")
        return frame


def _is_picture(space: spaces.Space[Any]) -> bool:
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8:
        return False
    return len(space.shape) == 3 and space.shape[-1] in (1, 3, 4)


def _parts(name: str, space: spaces.Space[Any]) -> tuple[str | None, spaces.Space[Any] | None]:
    """The picture's key in a Dict (or None), and the space of the rest (None where there is no rest)."""
    if _is_picture(space):
        return None, None
    pictures = [key for key, part in space.items() if _is_picture(part)] if isinstance(space, spaces.Dict) else []
    if len(pictures) > 1:
        raise ConfigError(f"environment.id={name}: several cameras ({', '.join(pictures)}); one at most is understood")
    rest = space
    if pictures and isinstance(space, spaces.Dict):
        # Ordered: a Dict made from a plain mapping would sort its keys.
        rest = spaces.Dict(OrderedDict((key, part) for key, part in space.items() if key not in pictures))
        if not rest.spaces:
            return pictures[0], None
    for part, leaf in _leaves(rest):
        if isinstance(leaf, spaces.Box) and len(leaf.shape) > 2:
            raise ConfigError(
                f"environment.id={name}: observation {part or 'space'} is {leaf.dtype}{leaf.shape}, no "
                "vector and no picture (uint8, height, width, 1, 3 or 4 channels); wrap the environment "
                "so that it shows either"
            )
    try:
        spaces.flatdim(rest)
    except (NotImplementedError, ValueError) as error:
        raise ConfigError(f"environment.id={name}: observations {space} are not a fixed set of numbers") from error
    return (pictures[0] if pictures else None), rest


def _leaves(space: spaces.Space[Any], path: str = "") -> Iterator[tuple[str, spaces.Space[Any]]]:
    """The parts of nested Dicts and Tuples by their path, in the order in which Gymnasium flattens them."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts = space.items() if isinstance(space, spaces.Dict) else enumerate(space)
        for key, part in parts:
            yield from _leaves(part, f"{path}/{key}" if path else str(key))
    else:
        yield path, space
