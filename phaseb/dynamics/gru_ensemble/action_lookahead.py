"""What a rollout knows of the actions still to come, where they were recorded beforehand.

Recorded actions are answers: whoever acted saw what had happened. So what follows a step tells what the step did (a
grip that caught is followed by the way to the out-feed), and z_{1:T} given z_0 and *all* recorded actions has another
distribution than a model makes that reads them one by one: there every error, however small, soon has actions answer
to what never happened. Actions that a policy chooses on the way, or that were altered afterwards, answer to nothing
ahead; the model then sees that they are unknown, as it does in a share of its training.

Legend: T steps, A action dimensions, L steps ahead.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad


def lookahead_size(action_size: int, num_ahead: int) -> int:
    """Numbers seen at a step: the action, and for every step ahead an action and whether it is known."""
    return action_size + num_ahead * (action_size + 1)


def append_future_actions(actions: Tensor, num_ahead: int, known: Tensor | None = None) -> Tensor:
    """Actions (…, T, A) with those of the next L steps and flags: (…, T, A + L·(A + 1)).

    Args:
        actions: what was done, or will be.
        num_ahead: L.
        known: (…, T) true where an action may be read ahead of its step; all where None. Beyond T nothing is known.
    """
    if not num_ahead:
        return actions
    flags = torch.ones_like(actions[..., :1]) if known is None else known[..., None].to(actions)
    padded = pad(torch.cat([actions * flags, flags], dim=-1), (0, 0, 0, num_ahead))
    later = [padded.narrow(-2, k, actions.shape[-2]) for k in range(1, num_ahead + 1)]
    return torch.cat([actions, *later], dim=-1)


def pad_future_actions(action: Tensor, num_ahead: int) -> Tensor:
    """One step's actions (…, A) where nothing is known of the next ones: (…, A + L·(A + 1))."""
    return pad(action, (0, num_ahead * (action.shape[-1] + 1)))


def future_known(seen: Tensor, action_size: int, num_ahead: int) -> Tensor:
    """(…,) bool: whether the next action is known, of what is seen at a step (…, A + L·(A + 1))."""
    if not num_ahead:
        return torch.zeros(seen.shape[:-1], dtype=torch.bool, device=seen.device)
    return seen[..., 2 * action_size] > 0
