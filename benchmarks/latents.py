"""What do latents know, how fast are they learnt and made, and are bricks worth what their operators are?

    OMP_NUM_THREADS=1 python benchmarks/latents.py [--seeds 0 1 2] [--observations state both frames] [--steps N]

Fifty episodes of the built-in cell train an encoder; linear probes are fitted on their latents and scored on sixty
held-out episodes against the truth that no sensor noise hides (R²; accuracy for `loaded`). `noise` is how far a latent
moves when only the sensor noise is drawn again, `step` how far it moves in a control step, both in standard deviations.
Seconds are of this process (CPU time). Hidden actions: every action is taken away and recovered from latents; R² of a
linear map from (z, code) to the real one, beside that of z alone. Bricks: $ an hour of the bricks with most skilled
and with most hasty operators.
"""

import argparse
import json
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from phaseb.bricks.manifest import fit_bricks
from phaseb.config.data import EnvironmentConfig, ValuationConfig
from phaseb.config.encoder import BricksConfig, LatentsConfig
from phaseb.episodes.episode import Episode
from phaseb.episodes.trajectories import Trajectories
from phaseb.latents.fit import fit_encoder_model
from phaseb.latents.learner import make_learner
from phaseb.latents.model import EncoderModel
from phaseb.latents.padding import episode_arrays
from phaseb.latents.probe import linear_probe
from phaseb.nn.data_parallel import WorkerContext
from phaseb.workcell.batch import BatchedCell
from phaseb.workcell.collect import collect_episodes, replay_episodes

NUM_TRAIN, NUM_TEST = 50, 60
TARGETS = ("cart_position", "hook_position", "swing", "loaded", "cart_speed", "swing_rate", "part_mass")


def truth(episodes: list[Episode]) -> dict[str, np.ndarray]:
    """The cell's true state along recorded episodes, each (N * (T+1),), from playing their actions again."""
    cell = BatchedCell(len(episodes), "state", len(episodes[0]))
    cell.reset([int(e.tags["seed"]) for e in episodes])
    states = [cell.true_state()]
    for t in range(len(episodes[0])):
        cell.step(np.stack([e.actions[t] for e in episodes]))
        states.append(cell.true_state())
    return {name: np.stack([s[name] for s in states], axis=1).ravel() for name in TARGETS}


def train(config: LatentsConfig, episodes: list[Episode], seed: int) -> tuple[EncoderModel, dict[str, float]]:
    start = time.process_time()
    learner = make_learner(config, episode_arrays(episodes, None, config.observation), WorkerContext(seed))
    for step in range(learner.num_steps):
        learner.step(step)
    trained = time.process_time()
    bundle = fit_encoder_model(config, learner.encoder, episodes, None, seed)
    return bundle, {"train_s": trained - start, "fit_s": time.process_time() - trained}


def hidden_actions(
    bundle: EncoderModel, config: LatentsConfig, train_set: list[Episode], test_set: list[Episode], seed: int
) -> dict[str, float]:
    """How well recovered codes tell the actions that were hidden."""
    mute = [replace(e, actions=None) for e in train_set]
    with_codes = fit_encoder_model(config, bundle.encoder, mute, None, seed)

    def rows(episodes: list[Episode]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        out = with_codes.encode([replace(e, actions=None) for e in episodes])
        z = out.z[:, :-1].reshape(-1, out.z.shape[-1])
        return z, out.actions.reshape(len(z), -1), np.concatenate([e.actions for e in episodes])[:, :1]

    (z, code, action), (z_test, code_test, action_test) = rows(train_set), rows(test_set)
    alone = LinearRegression().fit(z, action)
    both = LinearRegression().fit(np.hstack([z, code]), action)
    return {
        "drive_from_z": r2_score(action_test, alone.predict(z_test)),
        "drive_from_z_and_code": r2_score(action_test, both.predict(np.hstack([z_test, code_test]))),
    }


def brick_values(latents: Trajectories, seed: int) -> dict[str, float]:
    bricks = fit_bricks(BricksConfig(), ValuationConfig(), latents, seed)
    kind = np.array(latents.lineage["tag/operator"])
    share = {
        k: [float((kind[bricks.labels == i] == k).mean()) for i in range(len(bricks.bricks))]
        for k in ("skilled", "hasty")
    }
    value = [b.economics["value_per_hour"].value for b in bricks.bricks]
    return {
        "bricks": len(bricks.bricks),
        "silhouette": bricks.clusters.silhouette,
        "value_most_skilled": value[int(np.argmax(share["skilled"]))],
        "most_skilled": max(share["skilled"]),
        "value_most_hasty": value[int(np.argmax(share["hasty"]))],
        "most_hasty": max(share["hasty"]),
    }


def measure(observation: str, seed: int, num_steps: int | None) -> dict[str, Any]:
    config = LatentsConfig.model_validate(
        {"observation": observation} | ({} if num_steps is None else {"num_steps": num_steps})
    )
    episodes = collect_episodes(EnvironmentConfig(), seed, range(NUM_TRAIN + NUM_TEST))
    train_set, test_set = episodes[:NUM_TRAIN], episodes[NUM_TRAIN:]
    bundle, row = train(config, train_set, seed)
    start = time.process_time()
    known, held_out = bundle.encode(train_set), bundle.encode(test_set)
    row["observations_per_s"] = sum(len(e) + 1 for e in episodes) / (time.process_time() - start)
    flat = [x.z.reshape(-1, bundle.num_dims) for x in (known, held_out)]
    row |= linear_probe(flat[0], truth(train_set), flat[1], truth(test_set))
    again = bundle.encode(replay_episodes(EnvironmentConfig(), test_set, seed + 1))
    row["noise"] = float((again.z - held_out.z).std() / np.sqrt(2))
    row["step"] = float(np.diff(held_out.z, axis=1).std())
    if bundle.decoder is not None:
        state = np.concatenate([e.state for e in test_set])
        row["decode_r2_worst"] = float(np.min(r2_score(state, bundle.decode(flat[1]), multioutput="raw_values")))
    row |= hidden_actions(bundle, config, train_set, test_set, seed)
    row |= brick_values(known, seed)
    return {"observation": observation, "seed": seed} | {k: round(float(v), 4) for k, v in row.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--observations", nargs="+", default=["state", "both", "frames"])
    parser.add_argument("--steps", type=int, help="optimiser steps of the encoder (default: the config's)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for observation in arguments.observations:
        for seed in arguments.seeds:
            rows.append(measure(observation, seed, arguments.steps))
            print("\n".join(f"{name:24}{value:>12}" for name, value in rows[-1].items()), flush=True)
            print()
    print(json.dumps({"benchmark": "latents", "rows": rows}))


if __name__ == "__main__":
    main()
