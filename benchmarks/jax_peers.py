"""SAC and IQL in JAX, in an environment of their own: `jax_learners.py --peers PYTHON` starts this.

    python -m venv PEERS
    PEERS/bin/pip install "jax[cpu]==0.10.2"

An update of one run is a pure function; runs are a `vmap` of it, and an epoch is one `lax.scan` that draws its batches
by index from data on the device. States and moments are donated. Losses, clipping and averages are phaseb's.

Reads `epoch LEARNER RUNS UPDATES` or `check LEARNER RUNS` a line on standard input. Answers the seconds of the
processor and of the clock that an epoch took; a check writes the networks after given batches to a file.

Shapes: C critics, B rows, D latent dimensions, A action dimensions.
"""

import functools
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

BETAS, EPSILON = (0.9, 0.999), 1e-8
MAX_GRAD_NORM = 10.0
NETWORKS = ("actor", "average", "critics", "targets", "value")
Tree = Any


def mlp(layers: Tree, x: jax.Array, norm: bool) -> jax.Array:
    """(B, inputs) -> (B, outputs), ReLU between layers, LayerNorm without an affine part before it."""
    *hidden, (last, shift) = layers
    for weight, bias in hidden:
        x = x @ weight + bias
        if norm:
            x = x - x.mean(-1, keepdims=True)
            x = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-5)
        x = jax.nn.relu(x)
    return x @ last + shift


def policy(actor: Tree, z: jax.Array) -> tuple[jax.Array, jax.Array]:
    mean, raw = jnp.split(mlp(actor, z, False), 2, -1)
    return mean, -5.0 + 3.5 * (jnp.tanh(raw) + 1)


def draw(actor: Tree, z: jax.Array, noise: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """An action (B, A), its log density before squashing (B,), and the mean before squashing (B, A)."""
    mean, log_std = policy(actor, z)
    log_density = -0.5 * jnp.square(noise) - log_std - 0.5 * np.log(2 * np.pi)
    return jnp.tanh(mean + jnp.exp(log_std) * noise), log_density.sum(-1), mean


def action_values(critics: Tree, z: jax.Array, action: jax.Array) -> jax.Array:
    """(C, B)."""
    return jax.vmap(mlp, (0, None, None))(critics, jnp.concatenate([z, action], -1), True)[..., 0]


def adam(state: Tree, name: str, gradients: Tree, rate: float, step: jax.Array) -> jax.Array:
    """Clip and apply gradients in place of the dict's entries. Returns their norm."""
    norm = jnp.sqrt(sum(jnp.square(g).sum() for g in jax.tree.leaves(gradients)))
    scale = jnp.minimum(MAX_GRAD_NORM / (norm + 1e-6), 1.0)
    correction = [1 - beta**step for beta in BETAS]

    def moved(p: jax.Array, m: jax.Array, v: jax.Array) -> jax.Array:
        return p - rate / correction[0] * m / (jnp.sqrt(v / correction[1]) + EPSILON)

    first, second = state["moments"][name]
    first = jax.tree.map(lambda m, g: m + (1 - BETAS[0]) * (scale * g - m), first, gradients)
    second = jax.tree.map(lambda v, g: BETAS[1] * v + (1 - BETAS[1]) * jnp.square(scale * g), second, gradients)
    state["moments"] = state["moments"] | {name: (first, second)}
    state[name] = jax.tree.map(moved, state[name], first, second)
    return norm


def polyak(slow: Tree, online: Tree, rate: float) -> Tree:
    return jax.tree.map(lambda old, new: old + rate * (new - old), slow, online)


def distance(mean: jax.Array, action: jax.Array) -> jax.Array:
    return jnp.square(jnp.tanh(mean) - action).mean(-1)


def fit_critics(c: Tree, state: Tree, batch: Tree, target: jax.Array) -> Tree:
    def loss(critics: Tree) -> tuple[jax.Array, jax.Array]:
        values = action_values(critics, batch["z"], batch["action"])
        return (batch["weight"] * jnp.square(values - target).sum(0)).mean(), values

    (value, values), gradients = jax.value_and_grad(loss, has_aux=True)(state["critics"])
    norm = adam(state, "critics", gradients, c["critic_lr"], state["step"])
    spread = values.std(0).mean()
    return {"critic_loss": value, "critic_gradient": norm, "value": values.mean(), "value_spread": spread}


def fit_actor(c: Tree, state: Tree, loss: Any) -> tuple[Tree, Tree]:
    (value, found), gradients = jax.value_and_grad(loss, has_aux=True)(state["actor"])
    norm = adam(state, "actor", gradients, c["actor_lr"], state["step"])
    state["average"] = polyak(state["average"], state["actor"], c["actor_ema"])
    return {"actor_loss": value, "actor_gradient": norm}, found


def sac(c: Tree, state: Tree, batch: Tree, noise: jax.Array) -> tuple[Tree, Tree]:
    """Soft actor-critic with a behaviour term. `noise` (2, B, A) is standard normal."""
    temperature = jnp.exp(state["log_temperature"])
    action, log_density, _ = draw(state["actor"], batch["next_z"], noise[0])
    ahead = action_values(state["targets"], batch["next_z"], action)
    value = ahead.min(0) - temperature * log_density - c["truncation_pessimism"] * batch["cut"] * ahead.std(0)
    metrics = fit_critics(c, state, batch, batch["reward"] + batch["discount"] * value)

    def loss(actor: Tree) -> tuple[jax.Array, Tree]:
        action, log_density, mean = draw(actor, batch["z"], noise[1])
        value = action_values(state["critics"], batch["z"], action).min(0)
        deviation = jax.lax.stop_gradient(jnp.abs(value - value.mean()).mean()).clip(1e-3)
        behaviour = distance(mean, batch["action"]) * batch["real"]
        rows = (temperature * log_density - value) / deviation + c["bc_weight"] * behaviour
        return (batch["weight"] * rows).mean(), (-(batch["weight"] * log_density).mean(), behaviour.mean())

    actor, (entropy, behaviour) = fit_actor(c, state, loss)
    surplus = temperature * (entropy + batch["action"].shape[-1])
    adam(state, "log_temperature", surplus, c["temperature_lr"], state["step"])
    return state, metrics | actor | {"entropy": entropy, "temperature": temperature, "behaviour": behaviour}


def iql(c: Tree, state: Tree, batch: Tree, noise: jax.Array) -> tuple[Tree, Tree]:
    """Implicit Q-learning with squared distance for the likelihood; the noise is not read."""
    quality = action_values(state["targets"], batch["z"], batch["action"]).min(0)

    def value_loss(value: Tree) -> tuple[jax.Array, jax.Array]:
        advantage = quality - mlp(value, batch["z"], True)[:, 0]
        side = jnp.abs(c["iql_expectile"] - (advantage < 0))
        return (batch["weight"] * side * jnp.square(advantage)).mean(), advantage

    (value_loss_now, advantage), gradients = jax.value_and_grad(value_loss, has_aux=True)(state["value"])
    adam(state, "value", gradients, c["critic_lr"], state["step"])
    action = jnp.tanh(policy(state["actor"], batch["next_z"])[0])
    spread = action_values(state["targets"], batch["next_z"], action).std(0)
    value = mlp(state["value"], batch["next_z"], True)[:, 0] - c["truncation_pessimism"] * batch["cut"] * spread
    metrics = fit_critics(c, state, batch, batch["reward"] + batch["discount"] * value)
    factor = jnp.exp(c["iql_beta"] * advantage).clip(max=100.0)
    factor = factor / factor.mean().clip(1e-6)

    def loss(actor: Tree) -> tuple[jax.Array, None]:
        far = distance(policy(actor, batch["z"])[0], batch["action"])
        return (batch["weight"] * factor * far).mean(), None

    actor, _ = fit_actor(c, state, loss)
    return state, metrics | actor | {"value_loss": value_loss_now, "advantage_weight": factor.max()}


def update(learner: Any, c: Tree, state: Tree, batch: Tree, noise: jax.Array) -> tuple[Tree, Tree]:
    """One update of one run."""
    weight = batch["weight"] / batch["weight"].mean()
    state = state | {"step": state["step"] + 1}
    state, metrics = learner(c, state, batch | {"weight": weight}, noise)
    return state | {"targets": polyak(state["targets"], state["critics"], c["tau"])}, metrics


def epoch(step: Any, rows: int, length: int, data: Tree, state: Tree, keys: jax.Array) -> tuple[Tree, Tree]:
    """`length` updates of every run, on batches of `rows` that each run draws for itself."""

    def one(state: Tree, key: jax.Array) -> tuple[Tree, Tree]:
        for_index, for_noise = jax.random.split(key)
        index = jax.random.randint(for_index, (rows,), 0, len(data["reward"]))
        batch = jax.tree.map(lambda column: column[index], data)
        return step(state, batch, jax.random.normal(for_noise, (2, rows, data["action"].shape[-1])))

    def body(carry: tuple[Tree, jax.Array], _: None) -> tuple[tuple[Tree, jax.Array], Tree]:
        state, keys = carry
        pairs = jax.vmap(jax.random.split)(keys)
        state, metrics = jax.vmap(one)(state, pairs[:, 0])
        return (state, pairs[:, 1]), metrics

    (state, keys), metrics = jax.lax.scan(body, (state, keys), None, length)
    return state, keys, metrics


class Learner:
    """The runs of one learner, from the networks that phaseb starts with."""

    def __init__(self, folder: Path, name: str, runs: int, config: Tree, data: Tree) -> None:
        self.folder, self.name, self.runs, self.rows, self.data = folder, name, runs, config.pop("batch_size"), data
        self.start = read_state(folder / f"{name}{runs}.npz", runs)
        self.state = jax.tree.map(jnp.array, self.start)
        self.step = functools.partial(update, {"sac": sac, "iql": iql}[name], config)
        self.keys = jax.random.split(jax.random.key(0), runs)
        self.epoch = jax.jit(functools.partial(epoch, self.step, self.rows), static_argnums=0, donate_argnums=(2,))

    def run(self, length: int) -> tuple[float, float]:
        """Seconds of the processor and of the clock that an epoch takes."""
        if self.compiled != length:
            self.advance(length)
            self.compiled = length
        begin = time.process_time(), time.perf_counter()
        self.advance(length)
        return time.process_time() - begin[0], time.perf_counter() - begin[1]

    compiled = 0

    def advance(self, length: int) -> None:
        made = self.epoch(length, self.data, self.state, self.keys)
        self.state, self.keys, self.metrics = jax.block_until_ready(made)

    def check(self) -> tuple[float, float]:
        """Write the networks after the updates whose batches and noise are in a file."""
        given = {k: jnp.array(v) for k, v in np.load(self.folder / f"{self.name}{self.runs}_check.npz").items()}
        state, step = self.start, jax.jit(jax.vmap(self.step))
        for i in range(len(given["reward"])):
            batch = {name: column[i] for name, column in given.items()}
            state, _ = step(state, batch, batch.pop("noise"))
        named = {k: state[k] for k in NETWORKS if k in state}
        made = {
            f"{name}.{i}.{k}": x
            for name, net in named.items()
            for i, pair in enumerate(net)
            for k, x in enumerate(pair)
        }
        np.savez(self.folder / f"{self.name}{self.runs}_after.npz", **made)
        return 0.0, 0.0


def read_state(path: Path, runs: int) -> Tree:
    """Networks as lists of (weight, bias), each with the runs first, and Adam's moments of zero."""
    arrays = np.load(path)
    names = [name for name in NETWORKS if f"{name}.0.0" in arrays]
    state: Tree = {
        name: [tuple(jnp.array(arrays[f"{name}.{i}.{k}"]) for k in (0, 1)) for i in range(3)] for name in names
    }
    state["log_temperature"] = jnp.array(arrays["log_temperature"])
    learned = [name for name in (*names, "log_temperature") if name not in ("average", "targets")]
    state["moments"] = {name: tuple(jax.tree.map(jnp.zeros_like, state[name]) for _ in range(2)) for name in learned}
    return state | {"step": jnp.zeros(runs)}


def main() -> None:
    folder = Path(sys.argv[1])
    configs = json.loads((folder / "configs.json").read_text())
    data = {name: jnp.array(column) for name, column in np.load(folder / "data.npz").items()}
    learners: dict[tuple[str, str], Learner] = {}
    print("ready", flush=True)
    for line in sys.stdin:
        what, name, runs, *length = line.split()
        if (name, runs) not in learners:
            learners[name, runs] = Learner(folder, name, int(runs), dict(configs[name]), data)
        learner = learners[name, runs]
        print(*(learner.run(int(length[0])) if what == "epoch" else learner.check()), flush=True)


if __name__ == "__main__":
    main()
