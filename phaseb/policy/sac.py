"""One update of soft actor-critic, offline, in the order of the paper (Haarnoja et al. 2018b, algorithm 1).

Shapes: R runs, C critics, B rows. Losses are summed over runs, so the gradient of a run's parameters is that of the
run alone; clipping and temperatures are a run's own.
"""

import copy
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from phaseb.nn.cuda_graphs import GraphedFunction
from phaseb.policy.actor import Actor
from phaseb.policy.batches import Batch, Noise, NoiseStream
from phaseb.policy.networks import NUM_LAYERS, ActorStack, CriticStack, HybridActions, clip_per_run, make_mlp
from phaseb.policy.optimiser_state import moments_of, set_moments
from phaseb.policy.regularizers import (
    conservative_gap,
    diversity_penalty,
    pessimistic_value,
    run_scalars,
)
from phaseb.policy.run_group import Metrics, RunGroup

CQL_ACTIONS = 4
"""Actions drawn a row for the conservative penalty, of either kind."""
MAX_GRAD_NORM = 10.0
"""Largest norm of the gradient of a run's networks."""
TEMPERATURE_LR = 3e-4
"""Learning rate of the entropy temperature."""
INITIAL_TEMPERATURE = 0.003
"""Entropy temperature at the start."""
NUM_CLONES = 5
"""Members of a policy that only clones: networks with other starts, fitted to the same rows (deep ensembles,
Lakshminarayanan et al. 2017). The mean of a few follows people where each of them is led astray."""
CLONE_LR = 1e-3
"""The policy's learning rate while it clones."""

Phase = Literal["imitate", "value", "act"]
"""What an update learns: to clone, values alone, or values and the policy."""
PHASES: tuple[Phase, ...] = get_args(Phase)


class SoftActorCritic(RunGroup[Noise]):
    """Networks, optimisers and one update of R runs that train as one batched product."""

    def build(self, z_size: int, action_size: int) -> None:
        config, specs, context = self.config, self.specs, self.context
        seeds = [spec.drawn(context.seed) for spec in specs]
        hidden = [config.width] * NUM_LAYERS
        members = NUM_CLONES if config.offline.algorithm == "bc" else 1
        actor = make_mlp([z_size, *hidden, 2 * action_size], seeds, "actor", members, norm=False)
        sizes = [z_size + action_size, *hidden, 1]
        self.actor = ActorStack(actor, self.levels, members).to(context.device)
        self.average = copy.deepcopy(self.actor).requires_grad_(False)
        self.critics, self.targets = (
            CriticStack(make_mlp(sizes, seeds, "critics", config.num_critics, norm=True), config.num_critics).to(
                context.device
            )
            for _ in range(2)
        )
        self.targets.requires_grad_(False)
        start = torch.full((len(specs),), math.log(INITIAL_TEMPERATURE), device=context.device)
        self.log_temperature = nn.Parameter(start)
        self.scalars = run_scalars(config.offline, [spec.scalars for spec in specs], context.device)
        self.target_entropy = -float(action_size - len(self.actor.binary_actions))
        self.bc_steps = config.bc_steps
        self.warmup_steps = self.bc_steps + round(config.offline.critic_warmup_fraction * config.num_steps)
        self.captures = context.captures and context.world_size == 1  # what workers say to each other is no part of one
        self._replayed = self._phases()
        self.optimisers = {
            "critics": self._adam(self.critics.parameters(), config.critic_lr),
            "actor": self._adam(self.actor.parameters(), config.actor_lr),
            "temperature": self._adam([self.log_temperature], TEMPERATURE_LR),
        }

    def update(self, batch: Batch, noise: Noise, step: int) -> Metrics:
        """One step on this worker's rows. Returns metrics by name, each (R,), to be read before the next step."""
        self._set_learning_rates(step)
        phase = self._phase(step)
        return self._replayed[phase](*batch, *noise) if self.captures else self._update(phase, batch, noise)

    def _phases(self) -> "dict[Phase, GraphedFunction[Metrics]]":
        return {phase: GraphedFunction(functools.partial(self._of_tensors, phase), self.captures) for phase in PHASES}

    def _of_tensors(self, phase: "Phase", *tensors: Tensor) -> Metrics:
        size = len(Batch._fields)
        return self._update(phase, Batch(*tensors[:size]), Noise(*tensors[size:]))

    def _phase(self, step: int) -> "Phase":
        if step < self.bc_steps:
            return "imitate"
        return "act" if self._acts(step) else "value"

    def _update(self, phase: "Phase", batch: Batch, noise: Noise) -> Metrics:
        if phase == "imitate":
            return self._behavior_clone(batch)
        target = self._target(batch, noise)
        metrics = self._update_critics(batch, target, noise)
        if phase == "act":
            metrics |= self._update_actor(batch, noise)
        self._move_targets()
        return metrics

    def _acts(self, step: int) -> bool:
        """Whether the policy learns in this step: not before there are values worth following."""
        return step >= self.warmup_steps

    def _behavior_clone(self, batch: Batch) -> Metrics:
        """The behaviour term alone, before there are values to follow. Each member learns by itself."""
        distance = self.actor.bc_distance(self.actor.members(batch.z)[0], batch.action[:, None])
        if self.config.offline.algorithm != "bc":  # rollouts under the policy's own actions teach a clone nothing
            distance = distance * batch.real[:, None]
        losses = (batch.weight[:, None] * distance).mean(-1)
        norms = self._optimise("actor", losses.sum(1), self.actor.parameters())
        loss, behaviour = losses.detach().mean(1), distance.detach().mean((1, 2))
        return {"actor_loss": loss, "actor_gradient": norms, "behaviour": behaviour}

    def _move_targets(self) -> None:
        polyak_update(self.targets, self.critics, self.config.tau)

    @torch.no_grad()
    def _target(self, batch: Batch, noise: Noise) -> Tensor:
        """r + discount * (pessimistic Q(s', a') - temperature * log pi(a' | s')), (R, B)."""
        choices, _ = self.actor.choices(batch.next_z, noise.target)
        values = self._values(self.targets, batch.next_z, choices)
        pessimistic = self._pessimistic(values.flatten(2), noise).view_as(choices.share)
        pessimistic = pessimistic - self.log_temperature.exp()[:, None, None] * choices.log_density
        if self._any("truncation_pessimism"):
            cut = batch.cut * self.scalars.truncation_pessimism[:, None]
            pessimistic = pessimistic - cut[:, None] * values.std(1, correction=0)
        value = (choices.share * pessimistic).sum(1)
        return batch.reward + batch.discount * value

    def _update_critics(self, batch: Batch, target: Tensor, noise: Noise) -> Metrics:
        values = self.critics(batch.z, batch.action)
        bellman = (values - target[:, None]).square().sum(1)
        loss = (batch.weight * bellman).mean(-1)
        if self._any("cql_weight"):
            gap = conservative_gap(self.critics, self.actor, batch.z, values, noise.other).sum(1)
            loss = loss + self.scalars.cql_weight * (batch.weight * gap).mean(-1)
        if self._any("diversity_weight"):
            aligned = diversity_penalty(self.critics, batch.z, batch.action)
            loss = loss + self.scalars.diversity_weight * (batch.weight * aligned).mean(-1)
        norms = self._optimise("critics", loss, self.critics.parameters())
        values = values.detach()
        return {
            "critic_loss": loss.detach(),
            "critic_gradient": norms,
            "value": values.mean((1, 2)),
            "value_spread": values.std(1, correction=0).mean(-1),
        }

    def _update_actor(self, batch: Batch, noise: Noise) -> Metrics:
        temperature = self.log_temperature.detach().exp()[:, None]
        choices, mean = self.actor.choices(batch.z, noise.policy)
        values = self._pessimistic(self._values(self.critics, batch.z, choices).flatten(2), noise)
        values = values.view_as(choices.share)
        soft = (choices.share * (temperature[..., None] * choices.log_density - values)).sum(1)
        log_density = (choices.share * choices.log_density).sum(1)
        if self.config.offline.normalise_value:
            soft = soft / self._value_deviation(values.detach(), choices.share.detach())[:, None]
        distance = self.actor.bc_distance(mean, batch.action) * batch.real
        rows = soft + self.scalars.bc_weight[:, None] * distance
        loss = (batch.weight * rows).mean(-1)
        norms = self._optimise("actor", loss, self.actor.parameters())
        entropy = -(batch.weight * log_density.detach()).mean(-1)
        # the gradient of exp(log temperature) (entropy - target) is itself
        self._step("temperature", [self.log_temperature], [temperature[:, 0] * (entropy - self.target_entropy)])
        return {
            "actor_loss": loss.detach(),
            "actor_gradient": norms,
            "entropy": entropy,
            "temperature": temperature[:, 0],
            "behaviour": distance.detach().mean(-1),
        }

    def _value_deviation(self, values: Tensor, share: Tensor) -> Tensor:
        """(R,) mean absolute deviation of values (R, G, B) from their mean over the batch: where zero lies is no
        matter."""
        mean = self.context.all_reduce_mean((share * values).sum(1).mean(-1))
        deviation = (share * (values - mean[:, None, None]).abs()).sum(1).mean(-1)
        return self.context.all_reduce_mean(deviation).clamp(min=1e-3)

    def _values(self, critics: CriticStack, z_RBD: Tensor, choices: HybridActions) -> Tensor:
        """Values (R, C, G, B) of every choice."""
        runs, count, rows, _ = choices.actions.shape
        wide = z_RBD[:, None].expand(-1, count, -1, -1).reshape(runs, count * rows, -1)
        return critics(wide, choices.actions.flatten(1, 2)).view(runs, -1, count, rows)

    def _pessimistic(self, values: Tensor, noise: Noise) -> Tensor:
        return pessimistic_value(values, self.config.offline.pessimism, self.scalars.spread_weight, noise.pair)

    def _any(self, name: str) -> bool:
        """Whether any run has a weight: decided by the configuration, so that no step waits for the device."""
        default = getattr(self.config.offline, name)
        return any(spec.scalars.get(name, default) > 0 for spec in self.specs)

    def _optimise(self, name: str, loss_R: Tensor, parameters: Iterator[nn.Parameter]) -> Tensor:
        """One optimiser step on the sum over runs, gradients averaged over workers and clipped a run."""
        chosen = list(parameters)
        return self._step(name, chosen, torch.autograd.grad(loss_R.sum(), chosen))

    def _step(self, name: str, chosen: list[nn.Parameter], gradients: Sequence[Tensor]) -> Tensor:
        """One optimiser step along these gradients; returns their norms (R,) before they were clipped."""
        for parameter, gradient in zip(chosen, gradients, strict=True):
            parameter.grad = gradient.contiguous()  # fused Adam reads memory in order, whatever the strides
        self.context.average_gradients(chosen)
        averaged = [p.grad for p in chosen if p.grad is not None]
        norms = clip_per_run(averaged, len(self.specs), MAX_GRAD_NORM)
        self.optimisers[name].step()
        if name == "actor":
            polyak_update(self.average, self.actor, self.config.actor_ema)
        return norms

    def _adam(self, parameters: Iterator[nn.Parameter] | list[nn.Parameter], rate: float) -> torch.optim.Optimizer:
        """Adam as one fused kernel a tensor: the tensors are few and hold every run."""
        if not self.captures:
            return torch.optim.Adam(parameters, lr=rate, fused=True)
        return torch.optim.Adam(
            parameters, lr=torch.tensor(rate, device=self.context.device), fused=True, capturable=True
        )

    def _set_learning_rates(self, step: int) -> None:
        config = self.config
        rates = {"critics": config.critic_lr, "value": config.critic_lr, "temperature": TEMPERATURE_LR}
        rates["actor"] = CLONE_LR if step < self.bc_steps else config.actor_lr
        for name, optimiser in self.optimisers.items():
            (group,) = optimiser.param_groups
            if isinstance(group["lr"], Tensor):  # a graph reads it where it lies
                group["lr"].fill_(rates[name])
            else:
                group["lr"] = rates[name]

    def policy(self, place: int) -> Actor:
        """A copy of one run's policy, averaged over its last steps."""
        return Actor.of_run(self.average, place)

    def noise_stream(self) -> NoiseStream:
        """The noise of the updates."""
        config = self.config
        weights = [spec.scalars.get("cql_weight", config.offline.cql_weight) for spec in self.specs]
        others = CQL_ACTIONS if max(weights) > 0 else 0
        seeds = [spec.drawn(self.context.seed) for spec in self.specs]
        size = self.actor.stack.biases[-1].shape[2] // 2
        return NoiseStream(seeds, config.batch_size, size, config.num_critics, others)

    def networks(self) -> list[nn.Module]:
        """Those that every update calls."""
        return [self.actor, self.critics, self.targets]

    def state_dict(self) -> dict[str, Any]:
        """Networks, targets, temperatures and optimiser moments."""
        return {
            "actor": self.actor.state_dict(),
            "average": self.average.state_dict(),
            "critics": self.critics.state_dict(),
            "targets": self.targets.state_dict(),
            "log_temperature": self.log_temperature.detach(),
            "optimisers": {name: moments_of(optimiser) for name, optimiser in self.optimisers.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name in ("actor", "average", "critics", "targets"):
            getattr(self, name).load_state_dict(state[name])
        self.log_temperature.data.copy_(state["log_temperature"])
        self._replayed = self._phases()  # graphs know the moments by where they lie
        for name, optimiser in self.optimisers.items():
            set_moments(optimiser, state["optimisers"].get(name, {}))


@torch.no_grad()
def polyak_update(slow: nn.Module, online: nn.Module, rate: float) -> None:
    """Move every parameter of a slow copy by a share of the way (Polyak averaging)."""
    torch._foreach_lerp_(list(slow.parameters()), list(online.parameters()), rate)
