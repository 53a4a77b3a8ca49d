"""The graph of a run: every stage with what it reads and writes. Torch and Ray are imported when a stage starts."""

from collections.abc import Callable
from typing import Any

from phaseb.config.root import Config
from phaseb.episodes.sources import fingerprints
from phaseb.errors import DataError
from phaseb.pipeline.stage import LazyFunction, Stage
from phaseb.runtime.storage import Store


def _imported_files(config: Config) -> str | None:
    """The state of the imported files, so that other files at the same path are imported again."""
    return fingerprints(config.episodes) or None


def _reused(part: str) -> Callable[[Config], Any]:
    """The digest of a part that is taken over from another run."""

    def digest(config: Config) -> str | None:
        path = getattr(config.reuse, part)
        return _reused_digest(path, part) if path else None

    return digest


def _reused_digest(path: str, part: str) -> str:
    """The digest of a trained part of another run.

    Raises:
        DataError: where that run has no such part.
    """
    store = Store.at(path).folder(*part.split("/"))
    if not store.exists("meta.json"):
        raise DataError(f"{path} has no {part} to take over: it has no {part}/meta.json")
    return str(store.read_json("meta.json")["digest"])


def _generator(name: str) -> Stage:
    """The stage that fits one generator."""

    def external_inputs(config: Config) -> dict[str, Any]:
        """Its own settings, at what horizon it is used, and its digest where it is taken over."""
        own = {"gru": config.dynamics.gru, "gp": config.dynamics.gp, **config.dynamics.plugins}[name]
        path = config.reuse.dynamics
        return {
            "settings": own.model_dump(mode="json"),
            "stored": name in config.stored_generators,
            "branched_horizon": config.policy.augmentation.horizon,
            "taken": _reused_digest(path, f"dynamics/{name}") if path else None,
        }

    sections = ("trust", "synthesis", "memory") if name == "gru" else ("synthesis", "memory")
    return Stage(
        f"dynamics/{name}",
        sections,
        ("encode",),
        (f"dynamics/{name}",),
        LazyFunction("phaseb.stages.dynamics"),
        job="dynamics",
        computes=True,
        trains=name == "gru",
        external_inputs=external_inputs,
    )


def _choice(config: Config) -> Stage:
    """The stage that chooses the generator in which policies branch."""
    return Stage(
        "choice",
        ("judge", "memory"),
        ("encode", *(f"dynamics/{name}" for name in config.candidates)),
        ("dynamics/chosen.json",),
        LazyFunction("phaseb.stages.choice"),
        job="dynamics",
        computes=True,
        external_inputs=lambda config: config.policy.augmentation.model_dump(mode="json"),
    )


def _uses(config: Config) -> dict[str, Any]:
    """The use of each generator, which follows from the arms."""
    uses = {"stored": config.stored_generators, "branched": config.branched_generators}
    return uses | {"branched_horizon": config.policy.augmentation.horizon}


def build_graph(config: Config, attribution: bool = False) -> tuple[Stage, ...]:
    """The stages of a run under a config, each after its inputs. Of those that may start, the first ones start first.

    Args:
        config: of the run; it names the generators.
        attribution: whether to add `worth`, which is no part of `phaseb run`.
    """
    stored, used, judged, fitted = (
        tuple(f"dynamics/{name}" for name in dict.fromkeys(names))
        for names in (
            config.stored_generators,
            (*config.stored_generators, *config.branched_generators),
            config.judged_generators,
            config.generators,
        )
    )
    choice = ("choice",) if config.candidates else ()
    stages = (*_model_stages(config, stored), *_policy_stages(used, judged, choice))
    worth = Stage(
        "worth",
        ("worth", "environment", "evaluation", "valuation", "memory"),
        ("collect", "encode", "bricks", *fitted, *choice, "trust", "policy", "evaluate"),
        ("worth",),
        LazyFunction("phaseb.stages.attribution"),
    )
    return (*stages, worth) if attribution else stages


def _model_stages(config: Config, stored: tuple[str, ...]) -> tuple[Stage, ...]:
    """From the episodes to the rollouts and their weights."""
    return (
        Stage(
            "collect",
            ("episodes", "environment"),
            (),
            ("episodes",),
            LazyFunction("phaseb.stages.collect"),
            external_inputs=_imported_files,
        ),
        Stage(
            "encode",
            ("latents", "memory"),
            ("collect",),
            ("encoder", "latents"),
            LazyFunction("phaseb.stages.encode"),
            trains=True,
            external_inputs=_reused("encoder"),
        ),
        *(_generator(name) for name in config.generators),
        *([_choice(config)] if config.candidates else []),
        Stage(
            "negatives",
            ("dynamics", "negatives", "synthesis", "memory"),
            ("encode",),
            ("negatives",),
            LazyFunction("phaseb.stages.negatives"),
            job="trust",
            computes=True,
            external_inputs=_reused("trust"),
        ),
        Stage(
            "bricks",
            ("bricks", "valuation", "memory"),
            ("encode",),
            ("bricks",),
            LazyFunction("phaseb.stages.bricks"),
            computes=True,
        ),
        Stage(
            "synthesize",
            ("synthesis", "memory"),
            ("encode", *stored),
            ("rollouts/plan", "rollouts/made"),
            LazyFunction("phaseb.stages.synthesize"),
        ),
        Stage(
            "trust",
            ("trust", "negatives", "synthesis", "memory"),
            ("encode", "negatives", *stored, "synthesize"),
            ("trust", "synthetic"),
            LazyFunction("phaseb.stages.gate"),
            trains=True,
            external_inputs=_reused("trust"),
        ),
    )


def _policy_stages(used: tuple[str, ...], judged: tuple[str, ...], choice: tuple[str, ...]) -> tuple[Stage, ...]:
    """From the weighted transitions to the decision. Baselines need no generator: they start beside those."""
    return (
        Stage(
            "baselines",
            ("arms", "policy", "replay", "memory"),
            ("encode",),
            ("baselines",),
            LazyFunction("phaseb.stages.policy", "execute_baselines"),
            job="policy",
            trains=True,
        ),
        Stage(
            "policy",
            ("arms", "policy", "replay", "memory"),
            ("encode", "baselines", *used, *choice, "trust"),
            ("policy",),
            LazyFunction("phaseb.stages.policy"),
            trains=True,
        ),
        Stage(
            "judge",
            ("judge", "synthesis", "memory"),
            ("collect", "encode", *judged),
            ("judges.json",),
            LazyFunction("phaseb.stages.judge"),
            external_inputs=_uses,
        ),
        Stage(
            "closed_loop/baselines",
            ("arms", "closed_loop", "environment", "judge", "synthesis", "memory"),
            ("collect", "encode", *judged, "baselines"),
            ("closed_loop/baselines.json",),
            LazyFunction("phaseb.stages.closed_loop", "execute_baselines"),
            job="evaluate",
            external_inputs=_uses,
        ),
        Stage(
            "closed_loop",
            ("arms", "closed_loop", "environment", "judge", "synthesis", "memory"),
            ("collect", "encode", *judged, *choice, "policy", "closed_loop/baselines"),
            ("closed_loop.json",),
            LazyFunction("phaseb.stages.closed_loop"),
            job="evaluate",
            external_inputs=_uses,
        ),
        Stage(
            "evaluate",
            ("arms", "environment", "evaluation", "promotion", "valuation", "memory"),
            ("collect", "encode", *choice, "policy"),
            ("evaluation", "promotion.json"),
            LazyFunction("phaseb.stages.evaluate"),
        ),
    )
