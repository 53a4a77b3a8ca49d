"""Three networks apart: the critic, the gate and the judges never share an episode or a weight.

A critic that also gated, or a gate that also judged, would certify its own mistakes: the founding report's critic
was fooled to trust 0.9999 by rollouts that a network apart gave 0.0000.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from phaseb.errors import DataError
from phaseb.runtime.seeding import derive_seed

Role = Literal["critic", "gate", "judge"]
ROLES: tuple[Role, ...] = ("critic", "gate", "judge")


class EpisodeLedger:
    """Which real episode serves which role. An episode serves one role only."""

    def __init__(self, roles: Mapping[str, Role] | None = None) -> None:
        self._roles: dict[str, Role] = dict(roles or {})

    def claim(self, role: Role, ids: Iterable[str]) -> None:
        """Write down that episodes serve a role; claiming again for the same role changes nothing.

        Raises:
            DataError: where one of them already serves another role; then none is written down.
        """
        wanted = list(ids)
        taken = [(name, self._roles[name]) for name in wanted if self._roles.get(name, role) != role]
        if taken:
            name, other = taken[0]
            raise DataError(
                f"{len(taken)} episodes cannot serve the {role}: {name} already serves the {other}; "
                "critic, gate and judges need episodes of their own"
            )
        self._roles |= dict.fromkeys(wanted, role)

    def ids(self, role: Role) -> tuple[str, ...]:
        """The episodes that serve a role, sorted."""
        return tuple(sorted(name for name, held in self._roles.items() if held == role))

    def as_dict(self) -> dict[str, list[str]]:
        """Plain JSON: ids by role."""
        return {role: list(self.ids(role)) for role in ROLES}

    @classmethod
    def from_dict(cls, ids: Mapping[str, Sequence[str]]) -> "EpisodeLedger":
        ledger = cls()
        for role in ROLES:
            ledger.claim(role, ids.get(role, ()))
        return ledger


def deal_episodes(ids: Sequence[str], critic_share: float, seed: int) -> dict[Role, tuple[str, ...]]:
    """Deal training episodes to the critic and the gate, by a hash of each id: the same whatever else is there.

    Both get at least one episode where there are two or more.
    """
    order = sorted(ids, key=lambda name: derive_seed(seed, "roles", name))
    count = min(max(round(critic_share * len(order)), 1), max(len(order) - 1, 0))
    return {"critic": tuple(order[:count]), "gate": tuple(order[count:])}


def assert_apart(modules: Mapping[str, nn.Module]) -> None:
    """Assert that no two modules share a parameter, by memory or by value.

    Raises:
        ValueError: naming the modules and the parameter.
    """
    seen: dict[Any, str] = {}
    for role, module in modules.items():
        for name, parameter in module.named_parameters():
            for key in _marks(parameter):
                owner = seen.setdefault(key, f"{role}.{name}")
                if owner.partition(".")[0] != role:
                    raise ValueError(f"{owner} and {role}.{name} are one weight; critic, gate and judges stay apart")


def _marks(parameter: Tensor) -> list[Any]:
    """What gives away that a parameter is another one: its memory, and its values where they cannot be chance."""
    marks: list[Any] = [parameter.data_ptr()] if parameter.numel() else []
    if parameter.numel() > 1 and torch.unique(parameter.detach()).numel() > 1:
        marks.append((tuple(parameter.shape), parameter.detach().cpu().numpy().tobytes()))
    return marks
