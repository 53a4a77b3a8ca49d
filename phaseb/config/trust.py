"""Settings of the trust networks, the gate that turns trust into weights, and the critic inside training."""

from typing import Literal

from pydantic import Field

from phaseb.config.section import Section


class CriticConfig(Section):
    """The trust network that takes part in the ensemble's training; it never gates and never judges."""

    form: Literal["windows", "report"] = Field(
        "windows",
        description="windows: spectrally normalised, over windows at several lags; report: the founding report's "
        "episode network on its six features",
    )
    lags: tuple[int, ...] = Field((1, 2, 4, 8), min_length=1, description="steps between the observations of a window")
    window_steps: int = Field(4, ge=2, description="observations in a window")
    units: int = Field(64, ge=1, description="hidden units of a lag's network, or of the report's")
    steepness: float = Field(4.0, gt=0, description="largest slope of the windows' log-odds, by the spectral norm")
    instance_noise: float = Field(0.1, ge=0, description="σ of the noise added to both sides in the critic's training")
    episode_share: float = Field(
        0.5, gt=0, lt=1, description="share of the training episodes that are the critic's own; the gate has the rest"
    )
    learning_rate: float = Field(5e-4, gt=0, description="of Adam")
    label_smoothing: float = Field(0.05, ge=0, lt=0.5, description="how far real labels stay from one")


class GateConfig(Section):
    """From trust to the weight of each synthetic transition."""

    max_weight: float = Field(1.0, gt=0, description="no synthetic transition counts more than this; a real one is 1")
    min_weight: float = Field(0.02, ge=0, description="weights below this become zero")
    pass_quantile: float = Field(
        0.05, gt=0, lt=1, description="an episode passes at this quantile of held-out real trust or above"
    )
    cut_quantile: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="share of training episodes in which some step would be cut by the one network that never saw it; "
        "of new real episodes, trusted by all networks together, about as many",
    )
    min_steps: int = Field(5, ge=1, description="a rollout cut before this step is dropped whole")
    uncertainty_quantile: float = Field(
        0.95, gt=0, lt=1, description="uncertainty up to this quantile of the reference costs no weight"
    )


class TrustConfig(Section):
    """Trust of episodes, and of their transitions: networks, training, calibration, gate; and the critic apart."""

    num_folds: int = Field(5, ge=2, le=20, description="folds of the cross-fit: every real episode is scored unseen")
    num_steps: int = Field(400, ge=1, description="optimiser steps")
    batch_size: int = Field(48, ge=8, description="episodes a fold in each step, over all workers")
    learning_rate: float = Field(4e-3, gt=0, description="of AdamW, after warm-up, before the cosine decay")
    weight_decay: float = Field(0.02, ge=0, description="of AdamW")
    input_noise: float = Field(0.1, ge=0, description="σ of the noise on the standardised inputs while training")
    mlp_units: int = Field(64, ge=1, description="hidden units of the episode network")
    gru_units: int = Field(32, ge=1, description="hidden units of the temporal network, half for each way in time")
    reach: int = Field(2, ge=0, description="steps to both sides that the temporal network sees around a transition")
    onset_emphasis: float = Field(8.0, ge=1, description="weight in training of the steps around the onset of a fault")
    num_corruptions: int = Field(600, ge=2, description="corrupted and warped copies of real episodes to learn from")
    num_crops: int = Field(3, ge=0, description="random segments of each real episode to learn from, beside the whole")
    min_crop: int = Field(8, ge=1, description="fewest steps of a segment")
    rollout_share: float = Field(0.5, ge=0, le=1, description="share of the negatives that are model rollouts")
    predictor_features: int = Field(512, ge=0, description="random features of the local one-step predictor")
    calibration: Literal["temperature", "isotonic"] = Field("temperature", description="from scores to probabilities")
    log_every: int = Field(25, ge=1, description="steps between two rows of metrics")
    gate: GateConfig = Field(GateConfig(), description="from trust to weights")
    critic: CriticConfig = Field(CriticConfig(), description="the critic inside the ensemble's training")
