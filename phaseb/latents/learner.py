"""Training of the encoder of frames: segments of episodes, temporal InfoNCE, AdamW. Plain torch, a step at a time."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from phaseb.config.encoder import LatentsConfig
from phaseb.errors import DataError, DivergenceError
from phaseb.latents.encoder import Encoder, EncoderSpec, stack_index
from phaseb.latents.info_nce import Predictor, Segments, contrast
from phaseb.latents.observations import clock_columns
from phaseb.latents.padding import Arrays
from phaseb.nn.data_parallel import WorkerContext
from phaseb.runtime.seeding import derive_seed, numpy_generator

LOG_EVERY = 10
"""Steps between two rows of metrics."""

FRAME_CHANNELS = 16
"""Channels of the frame network."""
FRAME_FEATURES = 16
"""Points of interest that are located in a frame."""
HORIZONS = (1, 2, 4, 8)
"""Steps ahead that the encoder must tell apart."""
WEIGHT_DECAY = 1e-2
"""AdamW weight decay."""
MAX_GRAD_NORM = 10.0
"""Largest norm of the gradient of a step."""

PICTURES = 1024
"""Frames, at least, that the mean picture is of: it needs no more, and memory is finite."""
WARMUP_STEPS = 20
CONDITION_AT, CONDITION_ROWS = (0.0, 0.1, 0.25, 0.5), 512  # when to whiten what is seen, and on how many rows
FREE = ("predictor.log_precision", "encoder.frames.sharpness")  # scales: not decayed, and learned faster


class EncoderLearner:
    """Trains an `Encoder` on padded episodes (see `arrays.episode_arrays`); follows the learner protocol.

    The global batch of a step is drawn by name and falls into groups of segments that are contrasted apart, so
    that the update does not depend on the number of workers. Without frames there is nothing to learn: no steps.
    """

    def __init__(self, config: LatentsConfig, data: Arrays, context: WorkerContext) -> None:
        self.config, self.context = config, context
        self._arrays = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in data.items()}
        held_out = self._arrays["validation"].numpy()
        self._train = np.flatnonzero(~held_out) if not held_out.all() else np.arange(len(held_out))
        self._validation = np.flatnonzero(held_out)
        if len(self._train) == 0:
            raise DataError("no episodes to train the encoder on; the train split is empty")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(context.seed, "encoder", "init"))
            self.encoder = untrained_encoder(config, data)
            num_actions = self._arrays["actions"].shape[-1]
            self.predictor = Predictor(config.num_dims, num_actions, len(HORIZONS))
        self.spec = self.encoder.spec
        self.num_steps = 0 if self.spec.frame_shape is None else config.num_steps
        self._condition_steps = {int(share * self.num_steps) for share in CONDITION_AT}
        self.modules = nn.ModuleDict({"encoder": self.encoder, "predictor": self.predictor}).to(context.device)
        slow = [p for name, p in self.modules.named_parameters() if name not in FREE]
        fast = [p for name, p in self.modules.named_parameters() if name in FREE]
        self._rates = [config.learning_rate, 10 * config.learning_rate]
        self.optimizer = torch.optim.AdamW(
            [{"params": slow, "weight_decay": WEIGHT_DECAY}, {"params": fast, "weight_decay": 0.0}]
        )

    def step(self, step: int) -> dict[str, float]:
        """One update; metrics only every `LOG_EVERY` steps."""
        if step in self._condition_steps:
            self._condition(keep=step > 0)
        losses, accuracy = self._losses(self._draw(self._train, "batch", step))
        total = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(total):
            raise DivergenceError(f"encoder: loss is not finite at step {step}; lower latents.learning_rate")
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * _schedule(step, self.num_steps)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(total)
        self.context.average_gradients(self.modules.parameters())
        nn.utils.clip_grad_norm_(self.modules.parameters(), MAX_GRAD_NORM)
        self.optimizer.step()
        if step % LOG_EVERY and step != self.num_steps - 1:
            return {}
        metrics = {
            f"latents/loss/{name}": float(self.context.all_reduce_mean(loss.detach())) for name, loss in losses.items()
        }
        return {**metrics, "latents/accuracy": float(self.context.all_reduce_mean(accuracy))}

    @torch.no_grad()
    def validate(self, step: int) -> dict[str, float]:
        """The same losses on one fixed batch of the dev split; empty where there is none."""
        if len(self._validation) == 0:
            return {}
        losses, accuracy = self._losses(self._draw(self._validation, "validation", 0))
        metrics = {f"latents/validation/{k}": float(self.context.all_reduce_mean(v)) for k, v in losses.items()}
        return {**metrics, "latents/validation/accuracy": float(self.context.all_reduce_mean(accuracy))}

    def compile_targets(self) -> list[tuple[Any, str]]:
        """The encoder; a convolution is one call already."""
        return [(self.encoder, "fuse")]

    def state_dict(self) -> dict[str, Any]:
        return {"modules": self.modules.state_dict(), "optimizer": _optimizer_tensors(self.optimizer)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.modules.load_state_dict(state["modules"])
        current = self.optimizer.state_dict()
        current["state"] = {int(i): dict(slots) for i, slots in state["optimizer"].items()}
        self.optimizer.load_state_dict(current)

    def _draw(self, episodes: NDArray[np.int64], *stream: int | str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """This worker's groups of segments: episode numbers and first steps, both (G, B)."""
        config, lengths = self.config, self._arrays["lengths"].numpy()
        rng = numpy_generator(self.context.seed, "encoder", *stream)
        size = min(config.num_segments, len(episodes)) if config.num_segments > len(episodes) else config.num_segments
        chosen = np.stack([rng.permutation(episodes)[:size] for _ in range(config.num_groups)])
        if size < config.num_segments:  # few episodes: fill with more segments of the same ones
            extra = rng.choice(episodes, (config.num_groups, config.num_segments - size))
            chosen = np.concatenate([chosen, extra], axis=1)
        half, last = config.segment_steps // 2, lengths[chosen] + 1 - config.segment_steps
        first = np.floor(rng.random(chosen.shape) * (lengths[chosen] + 1)).astype(np.int64) - half
        first = np.clip(first, 0, np.maximum(last, 0))  # an episode's ends are drawn about as often as its middle
        groups = self.context.shard(np.arange(config.num_groups))
        return chosen[groups], first[groups]

    def _losses(self, drawn: tuple[NDArray[np.int64], NDArray[np.int64]]) -> tuple[dict[str, Tensor], Tensor]:
        episode, first = (torch.from_numpy(x) for x in drawn)
        L = self.config.segment_steps
        steps = first[..., None] + torch.arange(L)
        lengths = self._arrays["lengths"][episode][..., None]
        episodes = episode[..., None].expand_as(steps)
        valid = steps <= lengths
        z = self._encode(episodes.flatten(0, 1), torch.minimum(steps, lengths).flatten(0, 1))
        actions = self._arrays["actions"]
        acted = actions[episodes, steps.clamp(max=actions.shape[1] - 1)] * (steps < lengths)[..., None]
        device = self.context.device
        segments = Segments(episodes.to(device), steps.to(device), valid.to(device))
        latents = z.view(*steps.shape, -1)
        return contrast(latents, acted.float().to(device), segments, self.predictor, HORIZONS)

    def _encode(self, episode: Tensor, steps: Tensor) -> Tensor:
        """Raw latents of rows of consecutive steps, both (R, L), to (R * L, D); a frame goes through the CNN once."""
        R, L, before = *steps.shape, self.spec.stack - 1
        window = torch.cat([steps[:, :1] - torch.arange(before, 0, -1), steps], dim=1).clamp_min(0)
        frames = self._arrays["frames"][episode[:, :1].expand_as(window), window].flatten(0, 1)
        features = self.encoder.features(frames.to(self.context.device)).view(R, L + before, -1)
        index = stack_index(torch.arange(before, L + before), self.spec.stack).to(self.context.device)
        return self.encoder.fuse(features[:, index].flatten(0, 1))

    @torch.no_grad()
    def _condition(self, keep: bool) -> None:
        """Whiten what is seen by a fixed sample of training observations: the same on every worker."""
        rng = numpy_generator(self.context.seed, "encoder", "condition")
        lengths = self._arrays["lengths"].numpy()
        episode = rng.choice(self._train, CONDITION_ROWS)
        step = torch.from_numpy(np.floor(rng.random(CONDITION_ROWS) * (lengths[episode] + 1)).astype(np.int64))
        steps = stack_index(step, self.spec.stack)
        frames = self._arrays["frames"][torch.from_numpy(episode)[:, None], steps]
        parts = torch.split(frames.flatten(0, 1), 64)
        features = torch.cat([self.encoder.features(part.to(self.context.device)) for part in parts])
        self.encoder.condition(features.view(*steps.shape, -1), keep)
        for layer in (self.encoder.linear, self.encoder.mlp[0]):
            for parameter in layer.parameters():
                self.optimizer.state.pop(parameter, None)  # its moments were of other inputs


def untrained_encoder(config: LatentsConfig, data: Arrays) -> Encoder:
    """An encoder for padded episodes, with the statistics of the training split's observations.

    Without frames it is whole: states are standardised, and nothing is learned.
    """
    encoder = Encoder(encoder_spec(config, data))
    held_out = data["validation"].astype(bool)
    train = held_out if held_out.all() else ~held_out
    lengths = data["lengths"][train].astype(np.int64) + 1
    states = hidden = pictures = None
    if "state" in data:
        parts = [s[:n] for s, n in zip(data["state"][train], lengths, strict=True)]
        states = torch.from_numpy(np.concatenate(parts))
        hidden = torch.from_numpy(clock_columns(parts))
    if "frames" in data:
        episode = np.repeat(np.flatnonzero(train), lengths)
        step = np.concatenate([np.arange(n) for n in lengths])
        rows = np.arange(0, len(step), max(1, len(step) // PICTURES))
        pictures = torch.from_numpy(data["frames"][episode[rows], step[rows]])
    encoder.fit_inputs(states, pictures, hidden)
    return encoder


def encoder_spec(config: LatentsConfig, data: Mapping[str, NDArray[np.generic]]) -> EncoderSpec:
    """The encoder for these arrays."""
    frames = data["frames"].shape[2:] if "frames" in data else None
    return EncoderSpec(
        state_size=data["state"].shape[-1] if "state" in data else 0,
        frame_shape=None if frames is None else (frames[0], frames[1], frames[2]),
        num_dims=0 if frames is None else config.num_dims,
        stack=config.stack if frames is not None else 1,
        hidden=config.hidden,
        frame_channels=FRAME_CHANNELS,
        frame_features=FRAME_FEATURES,
    )


def make_learner(config: LatentsConfig, data: Arrays, context: WorkerContext) -> EncoderLearner:
    """The learner that `training` runs; `data` from `arrays.episode_arrays`."""
    return EncoderLearner(config, data, context)


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Tensor]]:
    """The optimiser's moments by parameter number: tensors only, so that a checkpoint can hold them."""
    return {str(i): dict(slots) for i, slots in optimizer.state_dict()["state"].items()}


def _schedule(step: int, num_steps: int) -> float:
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    return warm * 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / max(num_steps, 1))))
