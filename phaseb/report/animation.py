"""Frames of an evaluation episode as one PNG strip that the page plays."""

import base64
import io
import os

import numpy as np
from numpy.typing import NDArray

from phaseb.report.html import Film
from phaseb.runtime.storage import Store


def films(store: Store) -> list[Film]:
    """One film an arm, of the first seed that kept its frames, in the order of the arms."""
    found = []
    for arm in store.read_json("evaluation", "summary.json")["arms"]:
        for seed in store.folders("evaluation", arm):
            if store.exists("evaluation", arm, seed, "frames.npz"):
                data = np.load(io.BytesIO(store.read_bytes("evaluation", arm, seed, "frames.npz")), allow_pickle=False)
                frames = data["frames"]
                found.append(Film(f"{arm}, seed {seed}", png_strip(frames), len(frames), float(data["seconds"])))
                break
    return found


def png_strip(frames: NDArray[np.uint8]) -> str:
    """Frames (F, H, W, 3) side by side as the data URI of a PNG."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # it would greet on stdout, where results go
    import pygame

    wide = np.concatenate(list(frames), axis=1)
    surface = pygame.surfarray.make_surface(wide.swapaxes(0, 1))
    buffer = io.BytesIO()
    pygame.image.save(surface, buffer, "strip.png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
