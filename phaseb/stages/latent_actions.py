"""Whose actions drive rollouts where no episode has any: codes of training episodes that were near."""

import torch

from phaseb.dynamics.rollout import Policy
from phaseb.latents.latent_actions import LatentActions
from phaseb.latents.model import EncoderModel
from phaseb.runtime.storage import Store


def latent_actions(store: Store, device: torch.device | str = "cpu") -> LatentActions | None:
    """Those of a run's encoder; None where some episode has actions."""
    actions = EncoderModel.load(store.folder("encoder"), device).latent_actions
    return None if actions is None or actions.action_size else actions


def latent_action_policy(store: Store, generator: torch.Generator) -> Policy | None:
    """The latent actions of new rollouts, by the encoder of a run; None where actions were recorded.

    Recovered codes have seen what came next: a rollout under those of its own episode would imitate that episode.
    """
    actions = latent_actions(store)
    return None if actions is None else actions.follow(generator)
