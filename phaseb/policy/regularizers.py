"""What keeps values honest where no action can be tried: pessimism, behaviour, conservatism, diversity.

Shapes: R runs, C critics, B rows, A action dimensions. Every function is per run; nothing mixes runs.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as nnf
from torch import Tensor

from phaseb.config.policy import OfflineConfig
from phaseb.policy.networks import ActorStack, CriticStack


class RunScalars(NamedTuple):
    """The settings in which runs that train together may differ, each (R,)."""

    bc_weight: Tensor
    spread_weight: Tensor
    truncation_pessimism: Tensor
    diversity_weight: Tensor
    cql_weight: Tensor
    iql_expectile: Tensor
    iql_beta: Tensor


def run_scalars(config: OfflineConfig, overrides: Sequence[Mapping[str, float]], device: torch.device) -> RunScalars:
    """The scalars of every run: the configuration's, but for what a run overrides.

    Raises:
        ValueError: where an override is none of the names of `RunScalars`.
    """
    for override in overrides:
        if unknown := set(override) - set(RunScalars._fields):
            raise ValueError(f"runs cannot differ in {sorted(unknown)}; only in {list(RunScalars._fields)}")
    columns = [[override.get(name, getattr(config, name)) for override in overrides] for name in RunScalars._fields]
    return RunScalars(*(torch.tensor(column, dtype=torch.float32, device=device) for column in columns))


def pessimistic_value(
    values_RCB: Tensor, how: Literal["min", "spread", "pair"], spread_weight_R: Tensor, pair_R2: Tensor
) -> Tensor:
    """One value (R, B) of an ensemble.

    `min` is SAC-N (An et al. 2021, eq. 5); `spread` is mean - weight x standard deviation (population), which for
    normal values and weight about Phi^-1((C - pi/8) / (C - pi/4 + 1)) is its expectation; `pair` is REDQ's subset.
    """
    if how == "min":
        return values_RCB.amin(1)
    if how == "spread":
        return values_RCB.mean(1) - spread_weight_R[:, None] * values_RCB.std(1, correction=0)
    index = pair_R2[:, :, None].expand(-1, -1, values_RCB.shape[2])
    return values_RCB.gather(1, index).amin(1)


def conservative_gap(
    critics: CriticStack, actor: ActorStack, z_RBD: Tensor, data_values_RCB: Tensor, other_R2KBA: Tensor
) -> Tensor:
    """CQL's gap (Kumar et al. 2020, eq. 4, importance-sampled as in its appendix F), (R, C, B).

    log mean exp of the values of uniform and of policy actions, each less its log density, minus the data's values.
    """
    runs, _, count, rows, size = other_R2KBA.shape
    wide = z_RBD[:, None].expand(-1, count, -1, -1).reshape(runs, count * rows, -1)
    uniform = other_R2KBA[:, 0].reshape(runs, count * rows, size)
    with torch.no_grad():
        policy, _, _ = actor.sample(wide, other_R2KBA[:, 1].reshape(runs, count * rows, size))
        log_density = actor.log_density(wide, policy)
    log_uniform = -size * math.log(2.0)

    def split(values: Tensor) -> Tensor:
        return values.view(runs, -1, count, rows)

    of_uniform = split(critics(wide, uniform)) - log_uniform
    of_policy = split(critics(wide, policy)) - log_density.view(runs, 1, count, rows)
    gathered = torch.cat([of_uniform, of_policy], 2)
    return torch.logsumexp(gathered, 2) - math.log(2.0 * count) - data_values_RCB


def diversity_penalty(critics: CriticStack, z_RBD: Tensor, action_RBA: Tensor) -> Tensor:
    """EDAC's penalty (An et al. 2021, eq. 7): mean cosine of the critics' action gradients over their pairs, (R, B)."""
    runs, rows, size = action_RBA.shape
    count = critics.num_critics
    actions = action_RBA[:, None].expand(-1, count, -1, -1).reshape(-1, rows, size).detach().requires_grad_(True)
    states = z_RBD[:, None].expand(-1, count, -1, -1).reshape(-1, rows, z_RBD.shape[-1])
    values = critics.stack(torch.cat([states, actions], -1))
    (gradients,) = torch.autograd.grad(values.sum(), actions, create_graph=True)
    unit = nnf.normalize(gradients.view(runs, count, rows, size), dim=-1, eps=1e-10)
    total = unit.sum(1).square().sum(-1) - unit.square().sum(-1).sum(1)
    return total / (count * (count - 1))
