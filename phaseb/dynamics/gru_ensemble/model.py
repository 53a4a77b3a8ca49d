"""A trained world model with all it needs to roll out: members, structure, noise, specification.

Legend: K members, N rollouts, T steps, D latent, A action, M residuals.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from phaseb.config.dynamics import GRUConfig
from phaseb.dynamics.gru_ensemble.action_lookahead import append_future_actions, pad_future_actions
from phaseb.dynamics.gru_ensemble.gp_correction import EventGPFitter, GPCorrection
from phaseb.dynamics.gru_ensemble.network import LatentDynamics
from phaseb.dynamics.gru_ensemble.rollout import Noise, RolloutEngine, RolloutState, StepOutput, rows_of_members
from phaseb.dynamics.gru_ensemble.unroll import teacher_forced
from phaseb.dynamics.rollout import Policy, Rollout, as_policy
from phaseb.dynamics.structure import empty_structure
from phaseb.episodes.trajectories import Trajectories
from phaseb.episodes.windows import window_index
from phaseb.runtime.checkpoint import save_checkpoint
from phaseb.runtime.storage import Store

NUM_RESIDUALS = 4096
"""Most residuals that are kept, over all members."""


@dataclass
class EnsembleDynamics:
    """The generator `gru`: a frozen ensemble of recurrent networks.

    Attributes:
        residuals: (M, D) one-step errors of all members on recorded steps, in inner coordinates, for noise.
        gp_correction: corrects the next latents; None where there is none.
        uncertainty_scale: see `DynamicsModel`.

    Uncertainty is the disagreement of the ensemble: the RMS over latent dimensions of the spread of its members' own
    rollouts under the same actions, with the correction and without, and that of the end-of-episode probability. The
    reward is left out: its spread is large wherever a reward is, and says nothing of where the state goes wrong.
    """

    config: GRUConfig
    model: LatentDynamics
    residuals: Tensor
    gp_correction: GPCorrection | None = None
    uncertainty_scale: float = 0.0
    lineage: dict[str, Any] = field(default_factory=dict)
    name = "gru"

    @classmethod
    def fitted(cls, config: GRUConfig, model: LatentDynamics) -> "EnsembleDynamics":
        """A bundle of a trained model, without correction and residuals."""
        return cls(config, model.eval(), model.step_scale.new_zeros(0, model.latent_size))

    def with_gp_correction(self, processes: EventGPFitter, said: Tensor) -> "EnsembleDynamics":
        """The same with a correction, of fitted processes and the networks' predictions (K, N, D) of their
        transitions."""
        found = processes.correction(said)
        return replace(self, gp_correction=found.to(self.model.step_scale.device) if found.kinds else None)

    @torch.no_grad()
    def with_residuals(self, recorded: Trajectories) -> "EnsembleDynamics":
        """The same with its one-step errors on recorded episodes, best those that it was not trained on.

        Windows begin with an empty memory, as branches do, and no action is read ahead. Of a step's alternatives the
        nearest counts: which one is taken, is drawn by itself.
        """
        steps = self.config.one_step_window
        rows, turns = np.nonzero(np.arange(0, int(recorded.lengths.max()), steps) < recorded.lengths[:, None])
        every = -(-len(rows) * steps // NUM_RESIDUALS)
        rows, starts = rows[::every], turns[::every] * steps
        states, span = window_index(recorded, rows, starts, steps)
        inside = starts[:, None] + np.arange(steps) < recorded.lengths[rows][:, None]
        device = self.model.step_scale.device
        z, actions = (torch.from_numpy(x).to(device) for x in (recorded.z[states], recorded.actions[span]))
        y = self.model.to_model_space(z)
        seen = pad_future_actions(actions, self.model.num_ahead)
        error = y[:, 1:] - self._corrected(self._for_all(y[:, :-1]), self._for_all(seen), self.nearest(y, seen))
        error = error[:, torch.from_numpy(inside).to(device)]
        apart = -(-error.shape[1] * self.num_members // NUM_RESIDUALS)
        error = (error - error.mean(dim=1, keepdim=True))[:, ::apart]
        return replace(self, residuals=error.flatten(0, 1).contiguous())

    @property
    def num_members(self) -> int:
        return self.model.num_members

    @property
    def latent_size(self) -> int:
        return self.model.latent_size

    @property
    def action_size(self) -> int:
        return self.model.action_size

    @torch.no_grad()
    def rollout(
        self,
        z0: Tensor,
        actions: Tensor | Policy,
        horizon: int,
        generator: torch.Generator,
        lookahead: Tensor | None = None,
        *,
        member: int | None = None,
        split: bool = False,
    ) -> Rollout:
        """Roll out `horizon` steps from z0 (N, D); each rollout keeps one member from its first step to its last.

        Args:
            z0, actions, horizon, generator, lookahead: see `DynamicsModel.rollout`.
            member: the member of all rollouts; drawn evenly where None.
            split: let each rollout's own member alone make it: K times less work, and no uncertainty is known (zeros).

        Raises:
            ValueError: where recorded actions are shorter than the horizon.
        """
        n, device = len(z0), self.model.step_scale.device
        policy = as_policy(actions, horizon)
        if member is None:
            chosen = torch.randperm(n, generator=generator) % self.num_members
        else:
            chosen = torch.full((n,), member)
        chosen = chosen.to(device)
        seen = blind = None
        if isinstance(actions, Tensor):
            seen = self._seen(actions[:, :horizon], lookahead)
            if self.model.num_ahead:
                blind = torch.zeros(n, dtype=torch.bool) if lookahead is None else ~lookahead.cpu()
        alone = split and member is None and n >= self.num_members
        table = rows_of_members(chosen, self.num_members) if alone else None
        draws = functools.partial(self.noise, n, generator, blind)
        return self._unroll(z0.to(device), policy, seen, horizon, draws, chosen, table)

    def _seen(self, actions: Tensor, lookahead: Tensor | None = None) -> Tensor:
        """Recorded actions (N, T, A) with those ahead: (N, T, A + L·(A + 1))."""
        actions = actions.to(self.model.step_scale.device)
        known = None if lookahead is None else lookahead.to(actions.device)[:, None].expand(actions.shape[:2])
        return append_future_actions(actions, self.model.num_ahead, known)

    def _unroll(
        self,
        z0: Tensor,
        policy: Policy,
        seen: Tensor | None,
        horizon: int,
        draws: Callable[[], Noise],
        chosen: Tensor,
        table: Tensor | None,
    ) -> Rollout:
        """From z0 under the actions of the chosen members: all members on all rows, or by a table (K, ·) of rows."""
        model, n, k = self.model, len(z0), self.num_members
        everyone = table is None
        table = torch.arange(n, device=z0.device).expand(k, n) if table is None else table
        starts = model.to_model_space(z0)[table]
        walk = RolloutState(RolloutEngine(model, self.gp_correction), starts)
        others = RolloutState(RolloutEngine(model), starts) if everyone and self.gp_correction is not None else None
        out, actions = _empty(z0, horizon, chosen), []
        out.z[:, 0] = model.from_model_space(model.to_model_space(z0))
        for t in range(horizon):
            actions.append(policy(z0 if t == 0 else out.z[:, t], t).to(out.z))
            known = pad_future_actions(actions[-1], model.num_ahead) if seen is None else seen[:, t]
            noise = draws().of(table)
            made = walk.step(known[table], noise)
            ends = torch.sigmoid(made.logit)
            if everyone:
                own = chosen, torch.arange(n, device=z0.device)
                out.z[:, t + 1], out.rewards[:, t], out.terminals[:, t] = made.z[own], made.reward[own], ends[own]
                out.uncertainty[:, t] = self.spread(*self.opinions(made, ends, others, known[table], noise))
            else:
                out.z[table, t + 1], out.rewards[table, t], out.terminals[table, t] = made.z, made.reward, ends
        out.terminals.copy_(out.terminals > 0.5)
        out.rewards.mul_(model.reward_scale).add_(model.reward_mean)
        return replace(out, actions=torch.stack(actions, dim=1))

    @staticmethod
    def opinions(
        made: StepOutput, ends: Tensor, others: RolloutState | None, seen: Tensor, noise: Noise
    ) -> tuple[Tensor, Tensor]:
        """Latents (K or 2K, N, D) and ends (K or 2K, N) that the spread is of.

        The correction is the same for all members, so members that have it agree too well. Where the networks alone
        would have gone is a second opinion of each.
        """
        if others is None:
            return made.z, ends
        alone = others.step(seen, noise)
        return torch.cat([made.z, alone.z]), torch.cat([ends, torch.sigmoid(alone.logit)])

    def spread(self, z: Tensor, ends: Tensor) -> Tensor:
        """(N,) disagreement of opinions: latents (K, N, D) and ends (K, N)."""
        if self.num_members == 1:
            return torch.zeros_like(ends[0])
        return (_variance(z).mean(dim=-1) + _variance(ends)).sqrt()

    def noise(self, n: int, generator: torch.Generator, blind: Tensor | None = None) -> Noise:
        """The random numbers of a step of n rows, drawn on the CPU. Members get the same: they differ only in what they
        believe.

        Args:
            n: rows.
            generator: of the draws.
            blind: (n,) rows that get residuals, those that read no action ahead; all where None.
        """
        device, k, d = self.model.step_scale.device, self.num_members, self.model.latent_size
        uniform = torch.rand(n, generator=generator).to(device)[None] if self.model.num_modes > 1 else None
        if self.config.noise == "heteroscedastic":
            return Noise(uniform, torch.randn((k, n, d), generator=generator).to(device))
        if self.config.noise == "none" or not len(self.residuals) or (blind is not None and not blind.any()):
            return Noise(uniform)
        drawn = self.residuals[torch.randint(len(self.residuals), (n,), generator=generator).to(device)]
        added = drawn if blind is None else drawn * blind.to(drawn)[:, None]
        return Noise(uniform, added.expand(k, n, d))

    @torch.no_grad()
    def members_rollout(self, z0: Tensor, actions: Tensor) -> Tensor:
        """Every member's own likeliest rollout without noise from z0 (N, D), actions (N, T, A): (K, N, T+1, D)."""
        model = self.model
        seen, y = self._seen(actions), self._for_all(model.to_model_space(z0.to(model.step_scale.device)))
        walk, z = RolloutState(RolloutEngine(model, self.gp_correction), y), [model.from_model_space(y)]
        for t in range(actions.shape[1]):
            z.append(walk.step(self._for_all(seen[:, t]), Noise()).z.clone())  # a graph writes over it
        return torch.stack(z, 2)

    def _for_all(self, x: Tensor) -> Tensor:
        return x.to(self.model.step_scale.device).expand(self.num_members, *x.shape)

    def mean_rollout(self, z0: Tensor, actions: Tensor) -> Tensor:
        """The ensemble's mean rollout, (N, T+1, D): what `rmse_t` is measured on."""
        return self.members_rollout(z0, actions).mean(dim=0)

    @torch.no_grad()
    def teacher_forced(self, z: Tensor, actions: Tensor, member: int | None = None) -> Tensor:
        """One-step predictions (N, T, D) of z[:, 1:] along real z (N, T+1, D); the ensemble's mean where no member."""
        y, seen = self.model.to_model_space(self._for_all(z[:, :-1])), self._for_all(self._seen(actions))
        after = self._corrected(y, seen, teacher_forced(self.model, y, seen).y)
        return self.model.from_model_space(after.mean(dim=0) if member is None else after[member])

    def _corrected(self, y: Tensor, seen: Tensor, after: Tensor) -> Tensor:
        """The networks' next latents (K, N, T, D) of y under what is seen of actions, with the correction."""
        if self.gp_correction is None:
            return after
        flat = (x.flatten(1, 2) for x in (y, seen[..., : self.action_size], after))
        return self.gp_correction.apply(*flat).view(after.shape)

    @torch.no_grad()
    def nearest(self, y: Tensor, seen: Tensor) -> Tensor:
        """(K, N, T, D) of each network's alternatives for the steps along inner coordinates y (N, T+1, D), under what
        is seen of actions (N, T, ·), the one nearest to what followed."""
        along = self._for_all(y)
        return teacher_forced(self.model, along[:, :, :-1], self._for_all(seen), along[:, :, 1:]).y

    def to(self, device: torch.device | str) -> "EnsembleDynamics":
        """The same on a device; the model itself is moved, as modules are."""
        correction = None if self.gp_correction is None else self.gp_correction.to(device)
        residuals = self.residuals.to(device)
        return replace(self, model=self.model.to(device), residuals=residuals, gp_correction=correction)

    def save(self, store: Store) -> str:
        """Write tensors and the whole specification; returns the digest."""
        meta = {
            "kind": "gru",
            "uncertainty_scale": self.uncertainty_scale,
            "config": self.config.model_dump(mode="json"),
            "latent_size": self.model.latent_size,
            "action_size": self.model.action_size,
            "num_events": self.model.num_events,
            "lineage": self.lineage,
            "gp_correction": [] if self.gp_correction is None else [event.kind for event in self.gp_correction.kinds],
        }
        gp_correction = {} if self.gp_correction is None else self.gp_correction.tensors()
        return save_checkpoint(store, {**self.model.state_dict(), "residuals": self.residuals, **gp_correction}, meta)

    @classmethod
    def restore(
        cls, tensors: Mapping[str, Tensor], meta: Mapping[str, Any], device: torch.device | str = "cpu"
    ) -> "EnsembleDynamics":
        """The ensemble that `save` wrote, of a checkpoint's content."""
        config, kinds = GRUConfig.model_validate(meta["config"]), meta["gp_correction"]
        structure = empty_structure(meta["latent_size"], meta["num_events"])
        model = LatentDynamics(config, meta["latent_size"], meta["action_size"], structure, seed=0)
        correction = {name: tensor for name, tensor in tensors.items() if name.startswith("gp_correction/")}
        model.load_state_dict({n: t for n, t in tensors.items() if n not in correction and n != "residuals"})
        gp_correction = GPCorrection.of(model, kinds, correction) if kinds else None
        scale, lineage = float(meta["uncertainty_scale"]), dict(meta["lineage"])
        return cls(config, model.eval(), tensors["residuals"], gp_correction, scale, lineage).to(device)


def _empty(z0: Tensor, horizon: int, chosen: Tensor) -> Rollout:
    """Room for rollouts from z0 (N, D), without disagreement and without actions."""
    n, d = z0.shape
    rewards, terminals, uncertainty = (z0.new_zeros(n, horizon) for _ in range(3))
    return Rollout(z0.new_empty(n, horizon + 1, d), z0.new_empty(0), rewards, terminals, uncertainty, member=chosen)


def _variance(x: Tensor) -> Tensor:
    """Over members (K, …), unbiased. torch.var over a few far apart values is several times slower."""
    return (x - x.mean(dim=0)).square_().sum(dim=0).div_(len(x) - 1)
