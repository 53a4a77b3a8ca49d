"""Search a policy in a generator of a run, with Gymnasium's API and an optimiser that knows nothing of phaseb (Optuna).

phaseb run --config configs/dev.yaml
python train_in_generator.py runs/dev gp
"""

import sys

import gymnasium
import numpy as np
import optuna

import phaseb.stages.generator_environment  # registers the id; an installed phaseb does it by itself


def episode_return(env: gymnasium.Env, weights: np.ndarray, seed: int) -> float:
    """The return of one episode under actions tanh(W z)."""
    z, _ = env.reset(seed=seed)
    total, over = 0.0, False
    while not over:
        z, reward, terminated, truncated, _ = env.step(np.tanh(weights @ z).astype(np.float32))
        total, over = total + reward, terminated or truncated
    return total


def main(run: str, generator: str = "chosen", num_trials: int = 60, num_episodes: int = 4) -> list[float]:
    """The mean return of each trial; episodes end where the generator knows too little."""
    id_, limits = phaseb.stages.generator_environment.GENERATOR_ID, {"max_steps": 20, "max_uncertainty": 3.0}
    env = gymnasium.make(id_, run=run, generator=generator, trust=False, **limits)
    shape = env.action_space.shape[0], env.observation_space.shape[0]

    def objective(trial: optuna.Trial) -> float:
        weights = np.array([trial.suggest_float(f"w{i}", -1, 1) for i in range(int(np.prod(shape)))]).reshape(shape)
        return float(np.mean([episode_return(env, weights, seed) for seed in range(num_episodes)]))

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    study.enqueue_trial({f"w{i}": 0.0 for i in range(int(np.prod(shape)))})
    study.optimize(objective, n_trials=num_trials)
    env.close()
    values = [float(trial.value) for trial in study.trials if trial.value is not None]
    print(f"return without an action {values[0]:.3f}, best of {len(values)} policies {max(values):.3f}")
    return values


if __name__ == "__main__":
    main(*sys.argv[1:])
