"""Policies from batches that carry weights: networks, one update, behaviour, evaluation with physics or without."""

from phaseb.policy.actor import Actor
from phaseb.policy.batches import BatchSource, RunSpec
from phaseb.policy.learner import AugmentationHook, SACLearner

__all__ = ["Actor", "AugmentationHook", "BatchSource", "RunSpec", "SACLearner"]
