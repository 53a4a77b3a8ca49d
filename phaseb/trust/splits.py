"""Keep the episodes of the critic inside training and of the gate apart.

A critic that also gated would certify its own mistakes: the founding report's critic was fooled to trust 0.9999 by
rollouts that an independent network gave 0.0000.
"""

from collections.abc import Sequence
from typing import Literal

from phaseb.runtime.seeding import derive_seed

Role = Literal["critic", "gate"]

CRITIC_SHARE = 0.5
"""Share of the training episodes that are the critic's own; the gate has the rest."""


def deal_episodes(ids: Sequence[str], critic_share: float, seed: int) -> dict[Role, tuple[str, ...]]:
    """Deal training episodes to the critic and the gate, by a hash of each id: the same whatever else is there.

    Both get at least one episode where there are two or more.
    """
    order = sorted(ids, key=lambda name: derive_seed(seed, "roles", name))
    count = min(max(round(critic_share * len(order)), 1), max(len(order) - 1, 0))
    return {"critic": tuple(order[:count]), "gate": tuple(order[count:])}
