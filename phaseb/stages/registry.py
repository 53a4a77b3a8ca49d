"""The graph of a run: every stage with what it reads and writes. Torch and Ray are imported when a stage starts."""

from collections.abc import Callable
from typing import Any

from phaseb.config.root import Config
from phaseb.episodes.sources import fingerprints
from phaseb.pipeline.fingerprint import reused_digest
from phaseb.pipeline.stage import LazyFunction, Stage


def _imported_files(config: Config) -> str | None:
    """The state of the imported files, so that other files at the same path are imported again."""
    return fingerprints(config.episodes) or None


def _reused(part: str) -> Callable[[Config], Any]:
    """The digest of a part that is taken over from another run."""

    def digest(config: Config) -> str | None:
        path = getattr(config.reuse, part)
        return reused_digest(path, part) if path else None

    return digest


def _uses(config: Config) -> dict[str, Any]:
    """Which generators are used, and how: other sections name them."""
    return {
        "stored": config.stored_generators, "branched": config.branched_generators,
        "branched_horizon": config.policy.augmentation.horizon,
    }  # fmt: skip


def _generators(config: Config) -> dict[str, Any]:
    """Which generators are fitted and for what use, and the digests of those that are taken over."""
    path = config.reuse.dynamics
    taken = {name: reused_digest(path, f"dynamics/{name}") for name in config.generators} if path else None
    return {**_uses(config), "all": config.generators, "taken": taken}


STAGES: tuple[Stage, ...] = (
    Stage(
        "collect", ("episodes", "environment"), (), ("episodes",), LazyFunction("phaseb.stages.collect"),
        external_inputs=_imported_files,
    ),
    Stage(
        "encode", ("latents", "memory"), ("collect",), ("encoder", "latents"), LazyFunction("phaseb.stages.encode"),
        trains=True, external_inputs=_reused("encoder"),
    ),
    Stage(
        "dynamics", ("dynamics", "trust", "synthesis", "memory"), ("encode",), ("dynamics",),
        LazyFunction("phaseb.stages.dynamics"), computes=True, trains=True, external_inputs=_generators,
    ),
    Stage(
        "negatives", ("dynamics", "negatives", "synthesis", "memory"), ("encode",), ("negatives",),
        LazyFunction("phaseb.stages.negatives"), job="trust", computes=True, external_inputs=_reused("trust"),
    ),
    Stage(
        "bricks", ("bricks", "valuation", "memory"), ("encode",), ("bricks",), LazyFunction("phaseb.stages.bricks"),
        computes=True,
    ),
    Stage(
        "synthesize", ("synthesis", "memory"), ("encode", "dynamics"), ("rollouts/plan", "rollouts/made"),
        LazyFunction("phaseb.stages.synthesize"),
    ),
    Stage(
        "trust", ("trust", "negatives", "synthesis", "memory"), ("encode", "negatives", "dynamics", "synthesize"),
        ("trust", "synthetic"), LazyFunction("phaseb.stages.gate"), trains=True, external_inputs=_reused("trust"),
    ),
    Stage(
        "policy", ("arms", "policy", "replay", "memory"), ("encode", "dynamics", "trust"), ("policy",),
        LazyFunction("phaseb.stages.policy"), trains=True,
    ),
    Stage(
        "judge", ("judge", "synthesis", "memory"), ("collect", "encode", "dynamics"), ("judges.json",),
        LazyFunction("phaseb.stages.judge"), external_inputs=_uses,
    ),
    Stage(
        "evaluate", ("environment", "evaluation", "promotion", "valuation", "memory"), ("collect", "encode", "policy"),
        ("evaluation", "promotion.json"), LazyFunction("phaseb.stages.evaluate"),
    ),
)  # fmt: skip
"""The stages of `phaseb run`, each after its inputs. Of those that may start, the first ones start first."""

ATTRIBUTION = Stage(
    "worth", ("worth", "environment", "evaluation", "valuation", "memory"),
    ("collect", "encode", "bricks", "dynamics", "trust", "policy", "evaluate"), ("worth",),
    LazyFunction("phaseb.stages.attribution"),
)  # fmt: skip
"""Runs on its own (`phaseb worth`), after a run."""
