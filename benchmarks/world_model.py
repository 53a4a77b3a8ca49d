"""What each remedy is worth: world models trained with one remedy at a time, judged on 60 open-loop steps.

    python benchmarks/world_model.py --out world-model.jsonl                  # every row, three seeds (hours)
    python benchmarks/world_model.py --quick                                  # every row, small and short (minutes)
    python benchmarks/world_model.py --rows report defaults --seeds 0 1 2
    python benchmarks/world_model.py --source half_cheetah --rows report defaults      # also reacher, npz:FILE.npz
    python benchmarks/world_model.py --source ur3:ur3-cobotops.parquet --horizon 20 --rows report defaults

Every seed redraws episodes, encoder and world model. Rows are written as they are done, one JSON object a line;
what `--out` already holds is not run again. The last line printed is one JSON object with every row's means.
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from json_rows import add_row
from world_model_material import SOURCES, Inputs, prepare
from world_model_rows import Settings, merge, rows

from phaseb.config.dynamics import GRUConfig
from phaseb.config.trust import DiscriminatorConfig, JudgeConfig
from phaseb.dynamics.gru_ensemble.learner import make_learner
from phaseb.dynamics.gru_ensemble.model import EnsembleDynamics
from phaseb.dynamics.rollout import Rollout
from phaseb.dynamics.statistics import (
    break_even_horizon,
    latent_statistics,
    nearest_distance,
    open_loop_rmse,
    survival,
    uncertainty_correlation,
)
from phaseb.episodes.trajectories import Trajectories
from phaseb.nn.data_parallel import WorkerContext
from phaseb.runtime.seeding import torch_generator
from phaseb.trust.discriminator import Discriminator
from phaseb.trust.gate import pass_rate
from phaseb.trust.model import TrustModel
from phaseb.trust.two_sample import judge

COLUMNS = (
    "std_ratio",
    "std_ratio_pooled",
    "range_ratio",
    "variance_growth",
    "lag_match",
    "bounds_pass",
    "rmse_end",
    "judge_0.0",
    "judge_0.2",
    "judge_10_steps",
    "uncertainty_correlation",
    "nearest_ratio",
    "pass_rate",
    "seconds",
)


def configure(settings: Settings, options: argparse.Namespace) -> GRUConfig:
    """A row's config at this run's size."""
    sizes: Settings = {"horizon": {"steps": min(options.horizon, settings.get("horizon", {}).get("steps", 10**6))}}
    if options.steps:
        sizes["num_steps"] = options.steps
    return GRUConfig.model_validate(merge(settings, sizes))


def train_model(config: GRUConfig, critic: DiscriminatorConfig, data: Trajectories, seed: int) -> EnsembleDynamics:
    """A world model trained in this process."""
    context = WorkerContext(seed)
    wanted = config.weights.trust > 0 or config.weights.feat > 0
    learner = make_learner(config, data, context, Discriminator(critic, data.z.shape[-1], context) if wanted else None)
    for step in range(learner.num_steps):
        learner.step(step)
    return learner.bundle()


def roll(bundle: EnsembleDynamics, material: Inputs, test: Trajectories, horizon: int, seed: int) -> Rollout:
    """Rollouts of the held-out starts, under recorded actions, or borrowed codes where actions are latent."""
    start, actions = torch.from_numpy(test.z[:, 0]), torch.from_numpy(test.actions)
    policy = actions if material.recorded else material.prior(seed)
    return bundle.rollout(start, policy, horizon, torch_generator(seed, "benchmark"))


def measure(bundle: EnsembleDynamics, material: Inputs, horizon: int, seed: int, quick: bool) -> dict[str, float]:
    """All statistics on held-out episodes: rollouts from their start states under their actions."""
    data = material.latents
    test, train = data.split("test").at_least(horizon), data.split("train").at_least(horizon)
    made = roll(bundle, material, test, horizon, seed)
    real, synthetic = test.z[:, 1:], made.z[:, 1:].numpy()
    # Recovered codes have seen the future: judges are shown no actions where these are latent.
    shown = test.actions if material.recorded else np.zeros_like(test.actions)
    config = JudgeConfig(sigmas=(0.0, 0.2), num_permutations=19 if quick else 200)
    verdict = judge(test.z, made.z.numpy(), shown, config, seed)
    short = judge(
        test.z[:, :11], made.z[:, :11].numpy(), shown[:, :10], config.model_copy(update={"sigmas": (0.0,)}), seed
    )
    mean = bundle.mean_rollout(torch.from_numpy(test.z[:, 0]), torch.from_numpy(test.actions))[:, 1:].numpy()
    nearest = [nearest_distance(z, train.z[:, 1:]).mean() for z in (synthetic, real)]
    return {
        **latent_statistics(real, synthetic),
        "rmse_end": float(open_loop_rmse(real, mean)[-1]),
        "break_even": break_even_horizon(test.z[:, 0], real, mean),
        "survival_end": float(survival(real, mean)[-1]),
        **{f"judge_{s}": verdict.worst(s).auc for s in config.sigmas},
        "judge_10_steps": short.worst(0.0).auc,
        **{f"null_95_{s}": verdict.null_95[s] for s in config.sigmas},
        **{f"{score.family}_{score.sigma}": score.auc for score in verdict.scores},
        "uncertainty_correlation": uncertainty_correlation(made.uncertainty.numpy(), real, synthetic)
        if bundle.num_members > 1
        else float("nan"),
        "nearest_ratio": float(nearest[0] / nearest[1]),
        "pass_rate": passing(material.gate, test, made),
    }


def passing(gate: TrustModel | None, test: Trajectories, made: Rollout) -> float:
    """Share of rollouts that the gate passes; NaN without a gate."""
    if gate is None:
        return float("nan")
    rolled = replace(
        test,
        z=made.z.numpy(),
        rewards=made.rewards.numpy(),
        actions=made.actions.numpy(),
        lengths=made.lengths,
        terminals=made.terminals.numpy(),
    )
    return pass_rate(gate.levels(rolled).fused, gate.thresholds.passing)


def run_row(name: str, settings: Settings, material: Inputs, seed: int, options: argparse.Namespace) -> Settings:
    """Train and measure one row on one seed; times are of this process's processor alone."""
    critic = DiscriminatorConfig(form="report") if name == "report + critic" else DiscriminatorConfig()
    started = time.process_time()
    bundle = train_model(configure(settings, options), critic, material.latents, seed)
    seconds = time.process_time() - started
    numbers = measure(bundle, material, options.horizon, seed, options.quick)
    return {
        "row": name,
        "seed": seed,
        "source": options.source.partition(":")[0],
        "train": options.train,
        "quick": options.quick,
        "seconds": seconds,
        **numbers,
    }


def table(results: list[Settings], names: list[str]) -> dict[str, dict[str, float]]:
    """Print means over seeds; returns them."""
    means = {}
    print(f"{'':34s}" + "".join(f"{c[:11]:>12s}" for c in COLUMNS) + "  seeds")
    for name in names:
        found = [r for r in results if r["row"] == name]
        if found:
            means[name] = {c: float(np.mean([r.get(c, np.nan) for r in found])) for c in COLUMNS}
            print(f"{name:34s}" + "".join(f"{means[name][c]:12.3f}" for c in COLUMNS) + f"{len(found):7d}")
    return means


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="cell", help=f"{', '.join(SOURCES)}; npz:FILE, ur3:FILE")
    parser.add_argument("--observation", default="state", choices=["state", "both", "frames"])
    parser.add_argument("--rows", nargs="*", help="names of rows; all where absent")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--horizon", type=int, default=60)
    parser.add_argument("--train", type=int, default=50, help="training episodes")
    parser.add_argument("--test", type=int, default=200, help="held-out episodes")
    parser.add_argument("--steps", type=int, default=0, help="optimiser steps; 0: each row's own")
    parser.add_argument("--no-gate", dest="gate", action="store_false", help="no gate, so no pass_rate")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()), help="where collected files go")
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
        kind = options.source.partition(":")[0]
        same = {"source": kind, "quick": options.quick, "train": options.train}
        results = [r for r in results if {name: r[name] for name in same} == same]
    done = {(r["row"], r["seed"]) for r in results}
    for seed in options.seeds:
        waiting = [name for name in chosen if (name, seed) not in done]
        material = prepare(options, seed) if waiting else None
        for name in waiting:
            assert material is not None
            results.append(run_row(name, chosen[name], material, seed, options))
            last = results[-1]
            print(f"seed {seed}, {name}: judge {last['judge_0.0']:.2f}, {last['seconds']:.0f} s", flush=True)
            if options.out:
                add_row(options.out, last)
    print(json.dumps(table(results, list(chosen))))


if __name__ == "__main__":
    main()
