"""Trains the world model: one optimiser step draws windows and rollouts, sums the four losses, updates K members.

Legend: K members, B rows, T steps, D latent.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from phaseb.config.dynamics import GRUConfig
from phaseb.dynamics.gru_ensemble import objective
from phaseb.dynamics.gru_ensemble.gp_correction import EventGPFitter, Transitions
from phaseb.dynamics.gru_ensemble.model import EnsembleDynamics
from phaseb.dynamics.gru_ensemble.network import LatentDynamics, Unrolled
from phaseb.dynamics.gru_ensemble.objective import DiscriminatorTerm
from phaseb.dynamics.gru_ensemble.optimizer import MemberOptimizer
from phaseb.dynamics.gru_ensemble.teacher_forcing import forcing_probability, training_horizon
from phaseb.dynamics.gru_ensemble.unroll import open_loop, teacher_forced
from phaseb.dynamics.gru_ensemble.windows import Windows, WindowSampler
from phaseb.dynamics.statistics import open_loop_rmse, std_ratio
from phaseb.dynamics.structure import find_structure
from phaseb.episodes.trajectories import Trajectories
from phaseb.errors import DataError, DivergenceError
from phaseb.nn.cuda_graphs import GraphedFunction
from phaseb.nn.data_parallel import WorkerContext
from phaseb.runtime.seeding import torch_generator

LANDING_STEPS = 2**15
"""Most training transitions that the correction is fitted to."""
MIN_RESIDUALS = 200
"""Dev steps from which one-step errors are those of dev episodes; those of training episodes below."""
EXPLOSION = 1e4
"""A loss above this counts as divergence."""


class TrainingBatch(NamedTuple):
    """What one optimiser step learns from: windows with their (noised) inputs, and rollouts where a loss reads any."""

    windows: Windows
    inputs: Tensor
    rollouts: Windows | None
    forced: Tensor | None

    def tensors(self) -> tuple[Tensor | None, ...]:
        of_rollouts = self.rollouts.tensors() if self.rollouts is not None else ()
        return (*self.windows.tensors(), self.inputs, self.forced, *of_rollouts)

    @classmethod
    def of(cls, *tensors: Tensor | None) -> "TrainingBatch":
        """Undoes `tensors`."""
        windows, (inputs, forced), rest = tensors[:5], tensors[5:7], tensors[7:]
        assert inputs is not None
        return cls(Windows(*windows), inputs, Windows(*rest) if rest else None, forced)  # type: ignore[arg-type]


class Losses(NamedTuple):
    """Of one step: the four terms, the parts of the reconstruction, their weighted sum, and its gradients."""

    terms: dict[str, Tensor]
    recon: dict[str, Tensor]
    total: Tensor
    gradients: tuple[Tensor | None, ...] = ()


class EnsembleLearner:
    """Implements the training protocol (`num_steps`, `step`, `validate`, `state_dict`, `load_state_dict`)."""

    def __init__(
        self,
        config: GRUConfig,
        data: Trajectories,
        context: WorkerContext,
        discriminator: DiscriminatorTerm | None = None,
    ) -> None:
        train = data.split("train", "")
        check_data(config, train, discriminator)
        self.config, self.context, self.discriminator = config, context, discriminator
        self.num_steps = config.num_steps
        self.train, self.held_out = train, data.split("dev")
        structure = find_structure(train.z, train.rewards, train.mask, config)
        sizes = (train.z.shape[-1], train.actions.shape[-1])
        self.model = LatentDynamics(config, *sizes, structure, context.seed).to(context.device)
        self.sampler = WindowSampler(train, config, context, structure.mean, structure.whiten)
        self.optimizer = MemberOptimizer(self.model, config, context)
        self._fitter: EventGPFitter | None = None
        self._replayed = GraphedFunction(self._with_gradients, on=True)

    def step(self, step: int) -> dict[str, float]:
        """One update of all members.

        Raises:
            DivergenceError: where the loss is NaN, Inf or has exploded.
        """
        progress = step / self.num_steps
        horizon = training_horizon(self.config.horizon, progress)
        drawn, logs = self._draw(step, progress, horizon), {"horizon": float(horizon)}
        losses = self._replayed(*drawn.tensors()) if self._captures() else self._losses(drawn, step, progress, logs)
        value = float(self.context.all_reduce_mean(losses.total.detach()))
        if not value <= EXPLOSION:
            raise DivergenceError(
                f"world model diverged at step {step}: loss {value:.4g}; lower dynamics.gru.learning_rate or "
                "the weights under dynamics.gru.weights, or set dynamics.gru.clamp_quantile"
            )
        if losses.gradients:
            self.optimizer.set_gradients(losses.gradients)
        else:
            self.optimizer.backward(losses.total * self.config.num_members)
        norms = self.optimizer.step(progress)
        logs |= {f"recon/{name}": float(term.detach()) for name, term in losses.recon.items()}
        logs |= {f"loss/{name}": float(term.detach()) for name, term in losses.terms.items()}
        logs |= {"loss/total": value, "gradient_norm": float(norms.max())}
        return {f"dynamics/gru/{name}": number for name, number in logs.items()}

    def _losses(self, drawn: TrainingBatch, step: int, progress: float, logs: dict[str, float]) -> Losses:
        windows = drawn.windows
        forced_run = teacher_forced(self.model, drawn.inputs, windows.actions, windows.z[:, :, 1:])
        recon = {"one_step": self._latent_error(forced_run, windows)}
        pairs = [(forced_run, windows)]
        zero = windows.z.new_zeros(())
        extra = {"trust": zero, "feat": zero, "var": zero}
        recon["rollout"] = zero
        if drawn.rollouts is not None:
            rollouts = drawn.rollouts
            y, target = rollouts.z[:, :, :-1], rollouts.z[:, :, 1:]
            run = open_loop(self.model, y, rollouts.actions, target, drawn.forced)
            recon["rollout"] = self._latent_error(run, rollouts)
            pairs.append((run, rollouts))
            extra |= self._distribution_terms(step, progress, rollouts, run, logs)
        recon |= self._head_errors(pairs)
        parts = objective.weighted_sum(recon, self.config.recon.model_dump() | objective.RECON_WEIGHTS)
        terms = {"recon": parts, **extra}
        return Losses(terms, recon, objective.weighted_sum(terms, {"recon": 1.0} | self.config.weights.model_dump()))

    def _captures(self) -> bool:
        """Whether losses and gradients run as a CUDA graph: on a GPU, without a discriminator."""
        weights = self.config.weights
        return self.context.captures and (self.discriminator is None or not (weights.trust or weights.feat))

    def _with_gradients(self, *tensors: Tensor | None) -> Losses:
        """`_losses` and their gradients, of `TrainingBatch.tensors`."""
        losses, parameters = self._losses(TrainingBatch.of(*tensors), 0, 0.0, {}), list(self.model.parameters())
        found = torch.autograd.grad(losses.total * self.config.num_members, parameters, allow_unused=True)
        gradients = tuple(None if g is None else g.contiguous() for g in found)
        terms, recon = ({name: x.detach() for name, x in part.items()} for part in (losses.terms, losses.recon))
        return Losses(terms, recon, losses.total.detach(), gradients)

    def _needs_rollout(self) -> bool:
        w = self.config.weights
        return self.config.recon.rollout > 0 or w.trust > 0 or w.feat > 0 or w.var > 0

    def _draw(self, step: int, progress: float, horizon: int) -> TrainingBatch:
        c = self.config
        windows = self.sampler.draw("one_step", step, c.batch_size, c.one_step_window)
        inputs = windows.z[:, :, :-1]
        if c.input_noise:
            noise = self._noise("input", step, c.batch_size, inputs)
            inputs = inputs + c.input_noise * self.model.spread * self.model.varying * noise
        if not self._needs_rollout():
            return TrainingBatch(windows, inputs, None, None)
        rollouts, forced = self.sampler.draw("rollout", step, c.rollout_batch_size, horizon), None
        probability = forcing_probability(c.teacher_forcing, progress)
        if probability > 0:
            draws = self._noise("forcing", step, c.rollout_batch_size, rollouts.mask)
            forced = torch.special.ndtr(draws) < probability
        return TrainingBatch(windows, inputs, rollouts, forced)

    def _noise(self, name: str, step: int, batch_size: int, like: Tensor) -> Tensor:
        """Standard normal noise (K, B, …) for the global batch, cut to this worker's share."""
        generator = torch_generator(self.context.seed, name, step)
        shape = (batch_size, like.shape[0], *like.shape[2:])
        rows = torch.from_numpy(self.context.shard(np.arange(batch_size)))
        return torch.randn(shape, generator=generator)[rows].transpose(0, 1).to(like.device)

    def _latent_error(self, run: Unrolled, windows: Windows) -> Tensor:
        return objective.latent_error(self.model, run, windows.z[:, :, 1:], windows.mask, self.config)

    def _head_errors(self, pairs: list[tuple[Unrolled, Windows]]) -> dict[str, Tensor]:
        parts: dict[str, list[Tensor]] = {name: [] for name in ("reward", "terminal", "noise")}
        for run, w in pairs:
            reward, terminal = objective.outcome_errors(self.model, run, w.rewards, w.terminals, w.mask)
            parts["reward"].append(reward)
            parts["terminal"].append(terminal)
        run, w = pairs[0]
        parts["noise"].append(objective.noise_error(self.model, run, w.z[:, :, 1:], w.mask))
        return {name: torch.stack(terms).mean() for name, terms in parts.items()}

    def _distribution_terms(
        self, step: int, progress: float, rollouts: Windows, run: Unrolled, logs: dict[str, float]
    ) -> dict[str, Tensor]:
        """L_trust, L_feat and L_var of the rollout; rows that end early are left out."""
        weights, terms = self.config.weights, {}
        z_real, z_syn = self.model.from_model_space(rollouts.z[:, :, 1:]), self.model.from_model_space(run.y)
        if weights.var > 0:
            terms["var"] = objective.variance_error(z_real, z_syn)
        if (
            self.discriminator is None
            or progress < self.config.discriminator_from
            or not (weights.trust or weights.feat)
        ):
            return terms
        whole = (rollouts.mask.amin(dim=-1) > 0).flatten()
        real, syn = z_real.flatten(0, 1)[whole], z_syn.flatten(0, 1)[whole]
        logs |= {
            f"discriminator/{name}": value for name, value in self.discriminator.update(real, syn.detach()).items()
        }
        with frozen(self.discriminator.module()):
            if weights.trust > 0:
                terms["trust"] = self.discriminator.loss(syn)
            if weights.feat > 0:
                terms["feat"] = objective.feature_error(self.discriminator, real, syn)
        return terms

    def validate(self, step: int) -> dict[str, float]:
        """Open-loop error and std ratio on the dev episodes at the training horizon; empty without such episodes."""
        data = self.held_out.at_least(self.config.horizon.steps)
        if not len(data):
            return {}
        z = self._networks().mean_rollout(torch.from_numpy(data.z[:, 0]), torch.from_numpy(data.actions)).cpu().numpy()
        rmse = open_loop_rmse(data.z[:, 1:], z[:, 1:])
        return {
            "dynamics/gru/validation/rmse_end": float(rmse[-1]),
            "dynamics/gru/validation/std_ratio": std_ratio(data.z[:, 1:], z[:, 1:]),
        }

    def bundle(self) -> EnsembleDynamics:
        """The model as it would be used now: averaged weights, correction and noise as configured."""
        made = self._networks()
        if uses_gp_correction(self.config):
            y, _, seen, mask = self.sampler.whole(LANDING_STEPS)
            said = made.nearest(y, seen)[:, mask].cpu()
            made = made.with_gp_correction(self.event_gp_fitter(), said)
        if self.config.noise == "bootstrap":
            made = made.with_residuals(self.held_out if self.held_out.mask.sum() >= MIN_RESIDUALS else self.train)
        return made

    def event_gp_fitter(self) -> EventGPFitter:
        """Where steps land, as far as it follows from the data alone: the same before training and after."""
        if self._fitter is None:
            y, actions, _, mask = self.sampler.whole(LANDING_STEPS)
            known = Transitions(*(x.cpu() for x in (y[:, :-1][mask], actions[mask], y[:, 1:][mask])))
            self._fitter = EventGPFitter(self.config.gp_correction, self.model, known, self.context.seed)
        return self._fitter

    def take_event_gp_fitter(self, processes: EventGPFitter) -> None:
        """Those that `event_gp_fitter` of another learner of the same data and seed gave: it saves the time."""
        self._fitter = processes

    def _networks(self) -> EnsembleDynamics:
        model = LatentDynamics.like(self.model, self.config)
        state = self.model.state_dict()
        if self.config.ema_decay:
            state |= self.optimizer.average
        model.load_state_dict(state)
        return EnsembleDynamics.fitted(self.config, model)

    def compile_targets(self) -> list[tuple[Any, str]]:
        """What every step of a rollout repeats."""
        return [(self.model, name) for name in ("step", "recur", "alternatives", "outcome")]

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        if self.discriminator is not None:
            state["discriminator"] = discriminator_state(self.discriminator)
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if (
            self.discriminator is not None and "discriminator" in state
        ):  # none where it joins at a change of the settings
            load_discriminator_state(self.discriminator, state["discriminator"])


def uses_gp_correction(config: GRUConfig) -> bool:
    """Whether a model is corrected. Not with a learned variance, which is of the networks' own errors."""
    return config.gp_correction.enabled and config.noise != "heteroscedastic"


def discriminator_state(discriminator: DiscriminatorTerm) -> dict[str, Any]:
    """What a discriminator resumes from: its own state, optimiser included, or else its parameters."""
    own = getattr(discriminator, "state_dict", None)
    return dict(own()) if callable(own) else dict(discriminator.module().state_dict())


def load_discriminator_state(discriminator: DiscriminatorTerm, state: dict[str, Any]) -> None:
    own = getattr(discriminator, "load_state_dict", None)
    if callable(own):
        own(state)
    else:
        discriminator.module().load_state_dict(state)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Within it, gradients pass through a module but not into its parameters."""
    before = [p.requires_grad for p in module.parameters()]
    module.requires_grad_(False)
    try:
        yield
    finally:
        for p, wanted in zip(module.parameters(), before, strict=True):
            p.requires_grad_(wanted)


def check_data(config: GRUConfig, train: Trajectories, discriminator: DiscriminatorTerm | None) -> None:
    """Refuse what cannot be trained on, each with what to do about it."""
    if not len(train):
        raise DataError("no training episodes for the world model; check the splits under episodes")
    longest, horizon = int(train.lengths.max()), config.horizon.steps
    if longest < horizon:
        raise DataError(
            f"the longest of {len(train)} training episodes has {longest} steps, fewer than "
            f"dynamics.gru.horizon.steps={horizon}; set it and synthesis.horizon to {longest} or less"
        )
    for name, array in (("z", train.z), ("actions", train.actions), ("rewards", train.rewards)):
        if array.size and not np.isfinite([array.min(), array.max()]).all():  # no mask as long as the data
            raise DataError(f"training {name} hold NaN or Inf; encode the episodes again")
    if (config.weights.trust > 0 or config.weights.feat > 0) and discriminator is None:
        raise ValueError("weights.trust or weights.feat is above zero, but no discriminator was given")


def make_learner(
    config: GRUConfig, data: Trajectories, context: WorkerContext, discriminator: DiscriminatorTerm | None = None
) -> EnsembleLearner:
    """The learner of the world model, for in-process training or for one worker of many."""
    return EnsembleLearner(config, data, context, discriminator)
