"""Training of the gate's networks: K cross-fitted pairs of an episode MLP and a temporal GRU, trained as one stack.

K folds, B entries a batch, T steps.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from phaseb.config.trust import TrustConfig
from phaseb.episodes.trajectories import Trajectories
from phaseb.errors import DivergenceError
from phaseb.nn.data_parallel import WorkerContext
from phaseb.runtime.seeding import numpy_generator, torch_generator
from phaseb.trust.calibrate import fit_trust_model
from phaseb.trust.dataset import CORRUPTED, REAL, ROLLOUT, GateDataset, build_dataset
from phaseb.trust.metrics import roc_auc
from phaseb.trust.model import TrustModel
from phaseb.trust.networks import TrustNetworks, TrustSpec

LOG_EVERY = 25
"""Steps between two rows of metrics."""

WEIGHT_DECAY = 0.02
"""Weight decay of AdamW."""
INPUT_NOISE = 0.1
"""Standard deviation σ of the noise on the standardised inputs while training."""
MLP_UNITS = 64
"""Hidden units of the episode network."""
GRU_UNITS = 32
"""Hidden units of the temporal network, half for each way in time."""
CONTEXT_STEPS = 2
"""Steps to both sides that the temporal network sees around a transition."""
ONSET_WEIGHT = 8.0
"""Weight in training of the steps around the onset of a fault."""
ROLLOUT_SHARE = 0.5
"""Share of the negatives that are model rollouts."""

WARMUP_STEPS = 20
AT_ONCE = 128


class TrustLearner:
    """Trains the trust networks on real episodes against corrupted ones and rollouts of other generators.

    Network k never sees an episode of fold k, in any shape, so all real episodes can be scored unseen: that is what
    calibration and thresholds are fitted on.
    """

    def __init__(
        self, config: TrustConfig, real: Trajectories, negatives: Trajectories, context: WorkerContext
    ) -> None:
        self.config, self.context = config, context
        self.num_steps = config.num_steps
        self.material, self.predictor = build_dataset(config, real, negatives, context.seed)
        m = self.material
        spec = TrustSpec(
            config.num_folds,
            m.episodes.shape[1],
            m.transitions.shape[2],
            MLP_UNITS,
            GRU_UNITS,
            CONTEXT_STEPS,
        )
        networks = TrustNetworks(spec, torch_generator(context.seed, "trust", "init"))
        self._fit_inputs(networks)
        self.networks = networks.to(context.device)
        self._episodes = networks.standardise("episode", torch.from_numpy(m.episodes).to(context.device))
        self._transitions = networks.standardise("transition", torch.from_numpy(m.transitions).to(context.device))
        self._mask = torch.from_numpy(m.mask).to(context.device)
        self._labels = torch.from_numpy(m.labels).to(context.device)
        self._real = torch.from_numpy(m.group == REAL).to(context.device, torch.float32)
        self._groups = [self._rows_by_fold(group) for group in (REAL, CORRUPTED, ROLLOUT)]
        self._step_weights = torch.from_numpy(step_weights(config, m)).to(context.device)
        self.optimizer = torch.optim.AdamW(self.networks.parameters(), config.learning_rate, weight_decay=WEIGHT_DECAY)

    def step(self, step: int) -> dict[str, float]:
        """One update; metrics only every `log_every` steps."""
        losses = self._losses(torch.from_numpy(self._draw(step)).to(self.context.device), step)
        total = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(total):
            raise DivergenceError(f"trust: loss is not finite at step {step}; lower trust.learning_rate")
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * _schedule(step, self.num_steps)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(total)
        self.context.average_gradients(self.networks.parameters())
        nn.utils.clip_grad_norm_(self.networks.parameters(), 5.0)
        self.optimizer.step()
        if step % LOG_EVERY and step != self.num_steps - 1:
            return {}
        means = {
            name: self.context.all_reduce_mean(loss.detach()) / self.config.num_folds for name, loss in losses.items()
        }
        return {f"trust/loss/{name}": float(mean) for name, mean in means.items()}

    def validate(self, step: int) -> dict[str, float]:
        """ROC-AUC of each network, real entries against all others, each scored by the networks that never saw it."""
        episode, temporal, _ = self.unseen_scores()
        real = self.material.group == REAL
        return {
            "trust/validation/episode_roc_auc": roc_auc(episode[real], episode[~real]),
            "trust/validation/temporal_roc_auc": roc_auc(temporal[real], temporal[~real]),
        }

    @torch.no_grad()
    def unseen_scores(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Log-odds of every entry by the network that never saw its episode: two of it (P,), of its steps (P, T)."""
        folds = torch.from_numpy(self.material.folds)
        found = []
        for rows in torch.split(torch.arange(len(folds)), AT_ONCE):
            own = folds[rows], torch.arange(len(rows))
            many = rows.expand(self.config.num_folds, -1)
            scores = self.networks(self._episodes[many], self._transitions[many], self._mask[many])
            found.append([score[own].double().cpu().numpy() for score in scores])
        episode, temporal, steps = (np.concatenate(part) for part in zip(*found, strict=True))
        return episode, temporal, steps

    def bundle(self) -> TrustModel:
        """The networks as they are now, calibrated on what each of them never saw."""
        return fit_trust_model(self.config, self.networks, self.predictor, self.material, self.unseen_scores())

    def compile_targets(self) -> list[tuple[Any, str]]:
        """The network of features; the recurrent one has its backward pass by hand."""
        return [(self.networks.episode, "forward")]

    def state_dict(self) -> dict[str, Any]:
        slots = self.optimizer.state_dict()["state"]
        moments = {str(i): dict(slot) for i, slot in slots.items()}
        return {"networks": self.networks.state_dict(), "optimizer": moments}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.networks.load_state_dict(state["networks"])
        current = self.optimizer.state_dict()
        current["state"] = {int(i): dict(slot) for i, slot in (state["optimizer"] or {}).items()}
        self.optimizer.load_state_dict(current)

    def _draw(self, step: int) -> NDArray[np.int64]:
        """This worker's entries (K, B) of the global batch: half real, the rest rollouts and corruptions."""
        rng = numpy_generator(self.context.seed, "trust", "batch", step)
        size = self.config.batch_size
        drawn = []
        for real, corrupted, rollouts in zip(*self._groups, strict=True):
            wanted = size // 2
            num_rollouts = round(ROLLOUT_SHARE * wanted) if len(rollouts) else 0
            rows = [rng.choice(real, size - wanted), rng.choice(corrupted, wanted - num_rollouts)]
            rows += [rng.choice(rollouts, num_rollouts)] if num_rollouts else []
            drawn.append(rng.permutation(np.concatenate(rows)))
        return np.stack(drawn)[:, self.context.shard(np.arange(size))]

    def _losses(self, rows: Tensor, step: int) -> dict[str, Tensor]:
        """Sums over folds of the mean cross-entropies of the three outputs."""
        mask, labels = self._mask[rows], self._labels[rows]
        transitions = self._transitions[rows] + self._noise("transition", step, self._transitions.shape[1:])
        episodes = self._episodes[rows] + self._noise("episode", step, self._episodes.shape[1:])
        episode, temporal, steps = self.networks(episodes, transitions, mask)
        real = self._real[rows]
        good, weight = torch.nan_to_num(labels), self._step_weights[rows]
        step_loss = binary_cross_entropy_with_logits(steps, good, weight=weight, reduction="none")
        return {
            "episode": binary_cross_entropy_with_logits(episode, real, reduction="none").mean(1).sum(),
            "temporal": binary_cross_entropy_with_logits(temporal, real, reduction="none").mean(1).sum(),
            "transition": step_loss.mean((1, 2)).sum(),
        }

    def _noise(self, name: str, step: int, shape: torch.Size) -> Tensor:
        """This worker's rows (B, …) of the noise on the global batch's inputs; the folds share it."""
        size = self.config.batch_size
        generator = torch_generator(self.context.seed, "trust", name, step)
        rows = torch.from_numpy(self.context.shard(np.arange(size)))
        noise = torch.randn((size, *shape), generator=generator)[rows]
        return (INPUT_NOISE * noise).to(self.context.device)

    def _fit_inputs(self, networks: TrustNetworks) -> None:
        """Standardise by the real entries alone."""
        m, real = self.material, self.material.group == REAL
        steps = m.transitions[real][m.mask[real]]
        for name, values, floor in (("episode", m.episodes[real], 0.05), ("transition", steps, 0.05)):
            networks.get_buffer(f"{name}_mean").copy_(torch.from_numpy(values.mean(0)))
            networks.get_buffer(f"{name}_scale").copy_(torch.from_numpy(values.std(0)).clamp(min=floor))

    def _rows_by_fold(self, group: int) -> list[NDArray[np.int64]]:
        """For each of the K networks, the entries of a group that it may see."""
        m = self.material
        return [np.flatnonzero((m.group == group) & (m.folds != fold)) for fold in range(self.config.num_folds)]


def make_learner(
    config: TrustConfig, real: Trajectories, negatives: Trajectories, context: WorkerContext
) -> TrustLearner:
    """The learner that `training` runs.

    Args:
        config: the trust section.
        real: training episodes.
        negatives: rollouts of *other* generators than the one to be gated: the report's model, early checkpoints.
            May be empty. Their `lineage["start_episode"]` keeps them in the fold of the episode they started from.
        context: seed and place among the workers.
    """
    return TrustLearner(config, real, negatives, context)


def step_weights(config: TrustConfig, material: GateDataset) -> NDArray[np.float32]:
    """(P, T) weights of transitions in the loss: good and bad ones count alike, those around an onset several times.

    The steps where a fault begins are few of sixty, and the ones that the gate has to tell apart.
    """
    bad, good = material.labels == 0, material.labels == 1
    onset = bad[:, 1:] & good[:, :-1]
    near = np.zeros_like(bad)
    for row, step in zip(*np.nonzero(onset), strict=True):
        near[row, max(step - 2, 0) : step + 3] = True  # three good steps and two bad ones
    emphasis = np.where(near, ONSET_WEIGHT, 1.0)
    share = ROLLOUT_SHARE if (material.group == ROLLOUT).any() else 0.0
    parts = {REAL: 0.5, CORRUPTED: 0.5 * (1 - share), ROLLOUT: 0.5 * share}
    weights = np.zeros(material.labels.shape, dtype=np.float32)
    for side in (good, bad):
        mass = sum(p * float((side * emphasis)[material.group == g].mean()) for g, p in parts.items() if p)
        weights[side] = (0.5 * emphasis / max(mass, 1e-6))[side]
    return weights


def _schedule(step: int, num_steps: int) -> float:
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    return warm * 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / max(num_steps, 1))))
