"""The split of training episodes between the discriminator and the gate: they never share one.

A discriminator that also gated would certify its own mistakes: the founding report's was fooled to trust 0.9999 by
rollouts that a network apart gave 0.0000.
"""

from collections.abc import Sequence

from phaseb.runtime.seeding import derive_seed


def split_episodes(ids: Sequence[str], discriminator_share: float, seed: int) -> tuple[frozenset[str], frozenset[str]]:
    """Split training episodes into the discriminator's and the gate's, by a hash of each id.

    The same episode goes to the same side whatever the order. Both get at least one where there are two or more.
    """
    order = sorted(ids, key=lambda name: derive_seed(seed, "roles", name))
    count = min(max(round(discriminator_share * len(order)), 1), max(len(order) - 1, 0))
    return frozenset(order[:count]), frozenset(order[count:])
