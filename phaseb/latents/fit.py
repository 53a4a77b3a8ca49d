"""From a trained encoder to a frozen bundle: statistics, decoder and latent actions of the training episodes."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from phaseb.config.encoder import LatentsConfig
from phaseb.episodes.actions import ActionScale
from phaseb.episodes.episode import Episode
from phaseb.errors import DataError
from phaseb.latents.decoder import fit_decoder
from phaseb.latents.encoder import Encoder
from phaseb.latents.latent_actions import fit_latent_actions
from phaseb.latents.model import EncoderModel
from phaseb.latents.projection import Outcomes, Projection, fit_projection
from phaseb.latents.standardise import Standardizer

STD_FLOOR = 1e-3
"""Least standard deviation of a latent, relative to the mean of all."""
DECODER_HIDDEN = 128
"""Width of the state decoder."""


def fit_encoder_model(
    config: LatentsConfig,
    encoder: Encoder,
    episodes: Sequence[Episode],
    action_scale: ActionScale | None = None,
    seed: int = 0,
) -> EncoderModel:
    """Freeze a trained encoder and fit standardisation, decoder and latent actions.

    Args:
        episodes: training episodes only (the train split): nothing else may shape the statistics.

    Where the frames tell nothing of the future that the state does not, the model does not see them.
    """
    if not episodes:
        raise DataError("no training episodes to fit the latents' statistics on")
    encoder = encoder.eval().requires_grad_(False)
    sensors = encoder.spec.state_size
    every = Projection(sensors + encoder.spec.num_dims, sensors + encoder.spec.num_dims)
    raw = EncoderModel(encoder, every, Standardizer(every.num_dims).to(encoder.state_mean.device))
    candidates = [raw.candidates(e) for e in episodes]
    readout = fit_projection(candidates, sensors, config.num_dims, seed, [_outcomes(e, action_scale) for e in episodes])
    if sensors and not readout.weight[sensors:].any():
        encoder, readout = encoder.without_frames(), readout.first(sensors)
        candidates = [x[:, :sensors] for x in candidates]
    latents = [readout(x) for x in candidates]
    standardizer = Standardizer(readout.num_dims).to(raw.device).fit(torch.cat(latents), STD_FLOOR)
    z = [standardizer(x) for x in latents]
    decoder = None
    if all(e.state is not None for e in episodes):
        state = np.concatenate([e.state for e in episodes if e.state is not None])
        decoder = fit_decoder(
            torch.cat(z), torch.from_numpy(state).to(raw.device), DECODER_HIDDEN, config.decoder_steps, seed
        )
    wanted = config.latent_actions.mode
    actions = None
    if wanted == "always" or (wanted == "auto" and any(e.actions is None for e in episodes)):
        known = [None if e.actions is None else _scaled(e.actions, action_scale) for e in episodes]
        actions = fit_latent_actions(config.latent_actions, z, known, seed)
    return EncoderModel(encoder, readout, standardizer, decoder, actions, DECODER_HIDDEN)


def _outcomes(episode: Episode, scale: ActionScale | None) -> Outcomes:
    """What was done and what was earned at each step (T, ·), as far as it is recorded."""
    found = {}
    if episode.actions is not None:
        found["actions"] = _scaled(episode.actions, scale)
    if episode.rewards is not None:
        found["rewards"] = torch.from_numpy(episode.rewards.astype(np.float64))[:, None]
    return found


def _scaled(actions: NDArray[np.float32], scale: ActionScale | None) -> Tensor:
    return torch.from_numpy(scale.normalise(actions) if scale is not None else actions)
