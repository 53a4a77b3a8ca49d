"""phaseb: synthetic data that is safe, and worth having, for offline robot learning.

Beside the command line there is a small library. Its names are loaded when they are first used, so that
`import phaseb` costs nothing:

- `run`: the whole pipeline, or one stage of it.
- `load_episodes`: recordings of any format that is read, one at a time.
- `load_latents`: the episodes of a run in latent space.
- `WorldModel`, `TrustGate`: what a run trained, to imagine with and to weigh with.
- `ReplayClient`: a replay buffer over the actors of a Ray cluster.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phaseb.api import TrustGate, WorldModel, load_episodes, load_latents, run
    from phaseb.replay.client import ReplayClient

__version__ = "0.1.0"
__all__ = ["ReplayClient", "TrustGate", "WorldModel", "__version__", "load_episodes", "load_latents", "run"]

_HOMES = {"ReplayClient": "phaseb.replay.client"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'phaseb' has no attribute {name!r}")
    found = getattr(importlib.import_module(_HOMES.get(name, "phaseb.api")), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
