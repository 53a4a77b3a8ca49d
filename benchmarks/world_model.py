"""What each remedy is worth: world models trained with one remedy at a time, judged on 60 open-loop steps.

    python benchmarks/world_model.py --out world-model.jsonl                  # every row, three seeds (hours)
    python benchmarks/world_model.py --quick                                  # every row, small and short (minutes)
    python benchmarks/world_model.py --rows report defaults --seeds 0 1 2
    python benchmarks/world_model.py --source npz:FILE.npz --rows report defaults

Every seed redraws episodes, encoder and world model. Rows are written as they are done, one JSON object a line;
what `--out` already holds is not run again. The last line printed is one JSON object with every row's means.
"""

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from phaseb.config.environment import EnvironmentConfig
from phaseb.config.judge import JudgeConfig
from phaseb.config.latents import LatentsConfig
from phaseb.config.trust import CriticConfig
from phaseb.config.world_model import WorldModelConfig
from phaseb.data_parallel import LearnerContext
from phaseb.episodes.actions import ActionScale
from phaseb.episodes.episode import Episode
from phaseb.episodes.formats.npz import read_npz
from phaseb.episodes.trajectories import Trajectories
from phaseb.latents.arrays import episode_arrays
from phaseb.latents.fit import fit_bundle
from phaseb.latents.learner import make_learner as make_encoder
from phaseb.metrics import mean_interval
from phaseb.seeding import torch_generator
from phaseb.trust.critic import Critic
from phaseb.trust.two_sample import judge
from phaseb.workcell.collect import collect_episodes
from phaseb.world_model.bundle import WorldModelBundle
from phaseb.world_model.learner import make_learner
from phaseb.world_model.statistics import (
    latent_statistics,
    nearest_distance,
    open_loop_rmse,
    uncertainty_correlation,
)

Settings = dict[str, Any]
CONFIGS = Path(__file__).parent.parent / "configs"
COLUMNS = (
    "std_ratio", "std_ratio_pooled", "range_ratio", "variance_growth", "lag_match", "bounds_pass", "rmse_end",
    "judge_0.0", "judge_0.2", "judge_10_steps", "uncertainty_correlation", "nearest_ratio", "seconds",
)  # fmt: skip


def report(name: str = "report-2025") -> Settings:
    """The world model of one of the founding report's configs."""
    return dict(yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["world_model"])


def merge(*parts: Mapping[str, Any]) -> Settings:
    """Nested settings, later ones over earlier ones."""
    merged: Settings = {}
    for part in parts:
        for key, value in part.items():
            old = merged.get(key)
            merged[key] = merge(old, value) if isinstance(value, Mapping) and isinstance(old, Mapping) else value
    return merged


def rows(horizon: int) -> dict[str, Settings]:
    """Every ablation by name: settings that differ from the schema's defaults."""
    plain = report()
    full = merge(plain, {"recon": {"one_step": 0.0, "rollout": 1.0}, "horizon": {"steps": horizon, "start": horizon}})

    def schedule(name: str) -> Settings:
        return merge(full, {"teacher_forcing": {"schedule": name, "start": 1.0, "end": 0.0}})

    clamp = {"clamp_quantile": 0.995}
    trust, feature, variance = ({"weights": w} for w in ({"trust": 0.02}, {"feat": 0.1}, {"var": 0.02}))
    return {
        "report": plain,
        "report + critic": report("report-2025-trust"),
        "full horizon": full,
        "+ constant forcing": merge(full, {"teacher_forcing": {"start": 0.5}}),
        "+ linear forcing": schedule("linear"),
        "+ exponential forcing": schedule("exponential"),
        "+ inverse sigmoid forcing": schedule("inverse_sigmoid"),
        "+ residual clamp": merge(full, clamp),
        "+ trust loss": merge(full, trust),
        "+ feature loss": merge(full, feature),
        "+ variance loss": merge(full, variance),
        "+ shorter segments": merge(full, {"horizon": {"steps": max(2, horizon // 3), "start": max(2, horizon // 3)}}),
        "everything of the report": merge(schedule("linear"), clamp, trust, feature, variance),
        "both losses at once": merge(plain, {
            "loss": "smooth_l1", "layer_norm": True, "recon": {"one_step": 2.0, "rollout": 0.3},
            "horizon": {"steps": horizon, "start": min(10, horizon)},
        }),
        "defaults": {},
        "defaults, nothing read ahead": {"look_ahead": 0},
        "defaults, dimensions as they are": {"decorrelate": False},
        "defaults, no blocks": {"num_blocks": 0},
        "defaults, one outcome": {"num_modes": 1},
        "defaults, one member": {"num_members": 1},
        "defaults, one step only": {"recon": {"rollout": 0.0}},
        "defaults + residual clamp": clamp,
        "defaults + trust loss": trust,
        "defaults + feature loss": feature,
        "defaults + variance loss": variance,
        "defaults + bootstrapped noise": {"noise": "bootstrap"},
        "defaults + learned noise": {"noise": "heteroscedastic"},
    }  # fmt: skip


def configure(settings: Settings, options: argparse.Namespace) -> WorldModelConfig:
    """A row's config at this run's size."""
    sizes: Settings = {"horizon": {"steps": min(options.horizon, settings.get("horizon", {}).get("steps", 10**6))}}
    if options.steps:
        sizes["num_steps"] = options.steps
    return WorldModelConfig.model_validate(merge(settings, sizes))


def episodes_of(options: argparse.Namespace, seed: int) -> list[Episode]:
    """Training and test episodes of a seed, marked by split."""
    count = options.train + options.test
    if options.source == "cell":
        found = collect_episodes(EnvironmentConfig(observation=options.observation), seed, range(count))
    else:
        found = [e for e in read_npz(options.source.removeprefix("npz:")) if len(e) >= options.horizon]
        found = [found[i] for i in np.random.default_rng(seed).permutation(len(found))[:count]]
    return [replace(e, split="train" if i < options.train else "test") for i, e in enumerate(found)]


def latents_of(options: argparse.Namespace, seed: int) -> Trajectories:
    """Episodes encoded as a run encodes them: the encoder learns from the training split alone."""
    episodes = episodes_of(options, seed)
    train = [e for e in episodes if e.split == "train"]
    unit = np.ones(2, dtype=np.float32)
    scale = ActionScale(-unit, unit) if options.source == "cell" else ActionScale.fit(train)
    config = LatentsConfig() if not options.quick else LatentsConfig(num_steps=100, decoder_steps=0)
    learner = make_encoder(config, episode_arrays(train, scale, config.observation), LearnerContext(seed))
    for step in range(learner.num_steps):
        learner.step(step)
    return fit_bundle(config, learner.encoder, train, scale, seed).encode(episodes, scale, seed)


def train_model(config: WorldModelConfig, critic: CriticConfig, data: Trajectories, seed: int) -> WorldModelBundle:
    """A world model trained in this process."""
    context = LearnerContext(seed)
    wanted = config.weights.trust > 0 or config.weights.feat > 0
    learner = make_learner(config, data, context, Critic(critic, data.z.shape[-1], context) if wanted else None)
    for step in range(learner.num_steps):
        learner.step(step)
    return learner.bundle()


def measure(bundle: WorldModelBundle, data: Trajectories, horizon: int, seed: int, quick: bool) -> dict[str, float]:
    """All statistics on held-out episodes: rollouts from their start states under their actions."""
    test, train = data.split("test").at_least(horizon), data.split("train").at_least(horizon)
    start, actions = torch.from_numpy(test.z[:, 0]), torch.from_numpy(test.actions)
    made = bundle.rollout(start, actions, horizon, torch_generator(seed, "benchmark"))
    real, synthetic = test.z[:, 1:], made.z[:, 1:].numpy()
    config = JudgeConfig(num_permutations=19 if quick else 200)
    verdict = judge(test.z, made.z.numpy(), test.actions, config, seed)
    short = judge(test.z[:, :11], made.z[:, :11].numpy(), test.actions[:, :10],
                  config.model_copy(update={"sigmas": (0.0,)}), seed)  # fmt: skip
    mean = bundle.mean_rollout(start, actions)[:, 1:].numpy()
    nearest = [nearest_distance(z, train.z[:, 1:]).mean() for z in (synthetic, real)]
    return {
        **latent_statistics(real, synthetic), "rmse_end": float(open_loop_rmse(real, mean)[-1]),
        **{f"judge_{s}": verdict.worst(s).auc for s in config.sigmas}, "judge_10_steps": short.worst(0.0).auc,
        **{f"{score.family}_{score.sigma}": score.auc for score in verdict.scores},
        "uncertainty_correlation": uncertainty_correlation(made.uncertainty.numpy(), real, synthetic)
        if bundle.num_members > 1 else float("nan"),
        "nearest_ratio": float(nearest[0] / nearest[1]),
    }  # fmt: skip


def run_row(name: str, settings: Settings, data: Trajectories, seed: int, options: argparse.Namespace) -> Settings:
    """Train and measure one row on one seed."""
    critic = CriticConfig(form="report") if name == "report + critic" else CriticConfig()
    started = time.perf_counter()
    bundle = train_model(configure(settings, options), critic, data, seed)
    seconds = time.perf_counter() - started
    numbers = measure(bundle, data, options.horizon, seed, options.quick)
    return {"row": name, "seed": seed, "source": options.source, "quick": options.quick, "seconds": seconds, **numbers}


def table(results: list[Settings], names: list[str]) -> dict[str, dict[str, float]]:
    """Print means over seeds; returns them."""
    means = {}
    print(f"{'':34s}" + "".join(f"{c[:11]:>12s}" for c in COLUMNS) + "  seeds")
    for name in names:
        found = [r for r in results if r["row"] == name]
        if found:
            means[name] = {c: mean_interval([r[c] for r in found])[0] for c in COLUMNS}
            print(f"{name:34s}" + "".join(f"{means[name][c]:12.3f}" for c in COLUMNS) + f"{len(found):7d}")
    return means


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="cell", help="cell, or npz:FILE")
    parser.add_argument("--observation", default="both", choices=["both", "state", "frames"])
    parser.add_argument("--rows", nargs="*", help="names of rows; all where absent")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--horizon", type=int, default=60)
    parser.add_argument("--train", type=int, default=50, help="training episodes")
    parser.add_argument("--test", type=int, default=200, help="held-out episodes")
    parser.add_argument("--steps", type=int, default=0, help="optimiser steps; 0: each row's own")
    parser.add_argument("--out", type=Path, help="JSON lines, added to")
    parser.add_argument("--quick", action="store_true", help="small and short, one seed: does everything run?")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.train, options.test = options.seeds[:1], 16, 40
        options.observation, options.steps = "state", options.steps or 40
    return options


def main() -> None:
    options = parse()
    torch.set_num_threads(1)
    chosen = {n: s for n, s in rows(options.horizon).items() if not options.rows or n in options.rows}
    results: list[Settings] = []
    if options.out and options.out.exists():
        results = [json.loads(line) for line in options.out.read_text().splitlines()]
        results = [r for r in results if r["source"] == options.source and r["quick"] == options.quick]
    done = {(r["row"], r["seed"]) for r in results}
    for seed in options.seeds:
        waiting = [name for name in chosen if (name, seed) not in done]
        data = latents_of(options, seed) if waiting else None
        for name in waiting:
            assert data is not None
            results.append(run_row(name, chosen[name], data, seed, options))
            last = results[-1]
            print(f"seed {seed}, {name}: judge {last['judge_0.0']:.2f}, {last['seconds']:.0f} s", flush=True)
            if options.out:
                with options.out.open("a") as file:
                    file.write(json.dumps(results[-1]) + "\n")
    print(json.dumps(table(results, list(chosen))))


if __name__ == "__main__":
    main()
