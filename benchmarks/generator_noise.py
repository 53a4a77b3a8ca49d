"""What the noise of the GRU's rollouts is worth on held-out episodes: coverage, forecast score, judges, by world.

    PHASEB_ARENA=FOLDER python benchmarks/arena.py --tasks dmsd-50 --seeds 0 --lean      # leaves runs/arena/dmsd-50-0
    python benchmarks/generator_noise.py runs/arena/*-0/run --out docs/data/generator-noise.jsonl

A row is a generator of a finished run: the Gaussian processes, the GRU as it is, and the GRU without noise. Forecasts
are of the sealed test episodes, as long as policies branch, under recorded actions that are not read ahead. The noise
itself was measured on the dev episodes. Coverage, at the first step and the last, is the share of latents within the
90 % interval of 19 draws.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from phaseb.config.load import load_config
from phaseb.config.root import Config
from phaseb.dynamics.branches import branch_numbers, draw
from phaseb.dynamics.evidence import forecast_score, recorded_branches
from phaseb.dynamics.gru_ensemble.model import EnsembleDynamics
from phaseb.dynamics.protocol import DynamicsModel, load_generator
from phaseb.episodes.trajectories import Trajectories
from phaseb.runtime.storage import Store
from phaseb.stages.choice import window_auc
from phaseb.stages.sample import fit_sample

COLUMNS = ("score", "state_skill", "reward_skill", "coverage_first", "coverage_last", "nrmse", "auc")


def quiet(model: EnsembleDynamics) -> EnsembleDynamics:
    """The same ensemble, which draws no noise."""
    return replace(model, config=model.config.model_copy(update={"noise": "none"}))


def measure(config: Config, model: DynamicsModel, test: Trajectories) -> dict[str, Any]:
    """Numbers of one generator on episodes that nothing was fitted to."""
    horizon, seed = config.policy.augmentation.horizon, config.run.seed
    recorded, episodes = recorded_branches(test, horizon, seed)
    drawn = draw(model.rollout, recorded, seed)
    score, numbers = forecast_score(recorded, episodes, drawn), branch_numbers(recorded, drawn)
    covered = numbers["coverage_90"]
    found = (score.value, score.state, score.reward, covered[0], covered[-1], numbers["nrmse"][-1])
    return dict(zip(COLUMNS, (*found, window_auc(config, model, test)), strict=True))


def rows_of(run: Path) -> list[dict[str, Any]]:
    """The rows of a finished run."""
    config, store = load_config(run / "config.yaml"), Store.at(str(run))
    test, world = fit_sample(config, store, "test"), run.parent.name if run.name == "run" else run.name
    models: dict[str, DynamicsModel] = {name: load_generator(store.folder("dynamics", name)) for name in ("gp", "gru")}
    gru = models["gru"]
    assert isinstance(gru, EnsembleDynamics)
    models["gru without noise"] = quiet(gru)
    return [{"world": world, "generator": name, **measure(config, m, test)} for name, m in models.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for run in options.runs for row in rows_of(run)]
    print(f"{'world':32s}{'generator':20s}" + "".join(f"{name:>16s}" for name in COLUMNS))
    for row in rows:
        values = ("–" if row[name] is None else f"{row[name]:.3f}" for name in COLUMNS)
        print(f"{row['world']:32s}{row['generator']:20s}" + "".join(f"{value:>16s}" for value in values))
    if options.out is not None:
        options.out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    print(json.dumps({"benchmark": "generator_noise", "rows": rows}))


if __name__ == "__main__":
    main()
