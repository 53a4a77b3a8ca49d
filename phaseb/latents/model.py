"""The frozen encoder as the rest of the system uses it: episodes or live observations to z_V, and back to a state.

Legend: N episodes or environments, T steps, D latent dimensions, S state size, A action size, K frames stacked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from phaseb.episodes.actions import ActionScale
from phaseb.episodes.episode import Episode
from phaseb.episodes.resolution import compact
from phaseb.episodes.trajectories import Trajectories
from phaseb.errors import DataError
from phaseb.latents.decoder import StateDecoder
from phaseb.latents.encoder import Encoder, EncoderSpec, stack_index
from phaseb.latents.latent_actions import LatentActions
from phaseb.latents.padding import pad_actions, to_trajectories
from phaseb.latents.projection import Projection
from phaseb.latents.standardise import Standardizer
from phaseb.runtime.checkpoint import load_checkpoint, save_checkpoint
from phaseb.runtime.storage import Store

FRAMES_AT_ONCE = 32  # small enough for the cache: larger batches are slower
ROWS_AT_ONCE = 4096

Observations = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class EncoderModel:
    """Encoder, frozen standardisation, and what was fitted on top of them.

    Attributes:
        encoder: states to standardised sensors, frames to learned latents.
        readout: sensors and learned latents to the directions that z_V has.
        standardizer: those to z_V, with the training split's statistics.
        decoder: z_V to the state; None where training episodes had no state.
        latent_actions: codes for episodes without actions; None where not fitted.
        decoder_hidden: width of the decoder (to build it again).
    """

    encoder: Encoder
    readout: Projection
    standardizer: Standardizer
    decoder: StateDecoder | None = None
    latent_actions: LatentActions | None = None
    decoder_hidden: int = 0

    @property
    def spec(self) -> EncoderSpec:
        return self.encoder.spec

    @property
    def num_dims(self) -> int:
        return self.readout.num_dims

    @property
    def device(self) -> torch.device:
        return self.standardizer.mean.device

    def to(self, device: torch.device | str) -> "EncoderModel":
        """The same bundle with its modules moved."""
        for module in self._modules().values():
            module.to(device)
        return self

    def encode(
        self, episodes: Sequence[Episode], action_scale: ActionScale | None = None, seed: int = 0
    ) -> Trajectories:
        """Episodes as standardised latents, with actions scaled to [-1, 1].

        An episode without actions gets actions decoded from sampled latent codes where others carry real ones, else
        the codes themselves; the noise of the codes is drawn from `seed` and the episode's id.

        Raises:
            DataError: where there is none, one lacks what the encoder sees, or actions are missing and unrecoverable.
        """
        if not episodes:
            raise DataError("no episodes to encode")
        steps = max(len(e) for e in episodes)
        actions = pad_actions(episodes, action_scale, steps)
        z = np.empty((len(episodes), steps + 1, self.num_dims), dtype=np.float32)
        for i, episode in enumerate(episodes):
            length = len(episode)
            z[i, : length + 1] = self.encode_episode(episode)
            z[i, length + 1 :] = z[i, length]
        recovered = self._recover(episodes, z, actions, seed)
        return to_trajectories(episodes, z, recovered)

    @torch.no_grad()
    def encode_episode(self, episode: Episode) -> NDArray[np.float32]:
        """(T+1, D) standardised latents of one episode."""
        return cast(NDArray[np.float32], self.standardizer(self.readout(self.candidates(episode))).cpu().numpy())

    @torch.no_grad()
    def candidates(self, episode: Episode) -> Tensor:
        """(T+1, F) of one episode: normalised sensors, then learned latents, of which the readout takes its pick."""
        state = self._wanted(episode.id, "state", episode.state) if self.spec.state_size else None
        features = None
        if self.spec.frame_shape is not None:
            features = self._features(self._wanted(episode.id, "frames", episode.frames))
        rows = torch.arange(len(episode) + 1, device=self.device)
        return self._candidates(state, None if features is None else features[stack_index(rows, self.spec.stack)])

    def online(self, num_envs: int) -> "OnlineEncoder":
        """An encoder for `num_envs` environments stepped together; the same numbers as `encode`."""
        return OnlineEncoder(self, num_envs)

    def decode(self, z: NDArray[np.float32] | Tensor) -> NDArray[np.float32] | NDArray[np.float64]:
        """States (..., S) of latents (..., D), in double precision where single cannot hold them.

        Raises:
            DataError: where the training episodes had no state to decode to.
        """
        if self.decoder is None:
            raise DataError("this encoder has no state decoder: its training episodes carry no state")
        latents = torch.as_tensor(z, dtype=torch.float32, device=self.device)
        with torch.no_grad():
            return compact(self.decoder(latents).cpu().numpy())

    def save(self, store: Store) -> str:
        """Write the bundle as a checkpoint; returns its digest."""
        tensors = {f"{name}.{k}": v for name, m in self._modules().items() for k, v in m.state_dict().items()}
        meta: dict[str, Any] = {"spec": asdict(self.spec), "decoder": None, "latent_actions": None}
        if self.decoder is not None:
            meta["decoder"] = {"state_size": self.decoder.linear.out_features, "hidden": self.decoder_hidden}
        if self.latent_actions is not None:
            meta["latent_actions"] = self.latent_actions.sizes
        meta["readout"] = list(self.readout.weight.shape)
        return save_checkpoint(store, tensors, meta)

    @classmethod
    def load(cls, store: Store, device: torch.device | str = "cpu") -> "EncoderModel":
        """Read a bundle that `save` wrote.

        Raises:
            DataError: where it is absent, altered, or of another version.
        """
        tensors, meta = load_checkpoint(store)
        try:
            return cls._build(tensors, meta).to(device)
        except (KeyError, TypeError, RuntimeError) as error:
            raise DataError(f"encoder in {store.root} is of another version: {error}; train it again") from error

    @classmethod
    def _build(cls, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> "EncoderModel":
        shape = meta["spec"]["frame_shape"]
        spec = EncoderSpec(**{**meta["spec"], "frame_shape": None if shape is None else tuple(shape)})
        decoder, actions, hidden = None, None, 0
        if meta["decoder"] is not None:
            hidden = meta["decoder"]["hidden"]
            decoder = StateDecoder(meta["readout"][1], meta["decoder"]["state_size"], hidden)
        if meta["latent_actions"] is not None:
            actions = LatentActions(**meta["latent_actions"])
        readout = Projection(*meta["readout"])
        bundle = cls(Encoder(spec), readout, Standardizer(readout.num_dims), decoder, actions, hidden)
        for name, module in bundle._modules().items():
            own = {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}
            module.load_state_dict(own)
            module.eval().requires_grad_(False)
        return bundle

    def _modules(self) -> dict[str, nn.Module]:
        modules = {
            "encoder": self.encoder,
            "readout": self.readout,
            "standardizer": self.standardizer,
            "decoder": self.decoder,
            "latent_actions": self.latent_actions,
        }
        return {name: module for name, module in modules.items() if module is not None}

    def _wanted(self, episode: str, name: str, array: NDArray[Any] | None) -> NDArray[Any]:
        wanted: Any = (self.spec.state_size,) if name == "state" else self.spec.frame_shape
        if array is None or array.shape[1:] != tuple(wanted):
            has = "none" if array is None else str(array.shape[1:])
            raise DataError(f"episode {episode}: the encoder sees {name} of shape {tuple(wanted)} a step, it has {has}")
        return array

    @torch.no_grad()
    def _features(self, frames: NDArray[np.uint8]) -> Tensor:
        """(M, H, W, C) uint8 to (M, F).

        Parts are copies: frames out of the object store cannot be written, and renderers give rows from the last up.
        """
        firsts = range(0, max(1, len(frames)), FRAMES_AT_ONCE)
        parts = (np.array(frames[first : first + FRAMES_AT_ONCE], order="C") for first in firsts)
        return torch.cat([self.encoder.features(torch.from_numpy(part).to(self.device)) for part in parts])

    @torch.no_grad()
    def _candidates(self, state: NDArray[np.floating] | None, stacked: Tensor | None) -> Tensor:
        """States (M, S) and stacked features (M, K, F') to normalised sensors and learned latents, (M, S + E)."""
        sensors = [] if state is None else [self.encoder.normalise(torch.tensor(state, device=self.device))]
        learned = [] if stacked is None else [self.encoder.fuse(stacked)]
        return torch.cat([*sensors, *learned], dim=-1)

    def _recover(
        self, episodes: Sequence[Episode], z: NDArray[np.float32], actions: NDArray[np.float32], seed: int
    ) -> NDArray[np.float32]:
        missing = [i for i, e in enumerate(episodes) if e.actions is None]
        if not missing:
            return actions
        if self.latent_actions is None:
            raise DataError(f"episode {episodes[missing[0]].id} has no actions; set latents.latent_actions.mode=auto")
        if actions.shape[-1] == 0:
            size = self.latent_actions.action_size or self.latent_actions.num_dims
            actions = np.zeros((*actions.shape[:2], size), dtype=np.float32)
        for i in missing:
            length = len(episodes[i])
            actions[i, :length] = self.latent_actions.recover(z[i, : length + 1], seed, episodes[i].id)
        return actions


class OnlineEncoder:
    """Live observations of N environments to z (N, D), keeping the features of the last frames."""

    def __init__(self, bundle: EncoderModel, num_envs: int) -> None:
        self._bundle, self._num_envs = bundle, num_envs
        self._stacked: Tensor | None = None

    def reset(self, observations: Observations) -> NDArray[np.float32]:
        """The first observations of new episodes: `state` (N, S), `frames` (N, H, W, C)."""
        features = self._look(observations)
        if features is not None:
            self._stacked = features[:, None].repeat(1, self._bundle.spec.stack, 1)
        return self._encode(observations)

    def step(self, observations: Observations) -> NDArray[np.float32]:
        """The next observations.

        Raises:
            ValueError: where `reset` was not called first.
        """
        features = self._look(observations)
        if features is not None:
            if self._stacked is None:
                raise ValueError("call reset with the first observations before step")
            self._stacked = torch.cat([features[:, None], self._stacked[:, :-1]], dim=1)
        return self._encode(observations)

    def _look(self, observations: Observations) -> Tensor | None:
        if self._bundle.spec.frame_shape is None:
            return None
        frames = cast(NDArray[np.uint8], observations["frames"])
        if len(frames) != self._num_envs:
            raise ValueError(f"{len(frames)} frames for {self._num_envs} environments")
        return self._bundle._features(frames)

    def _encode(self, observations: Observations) -> NDArray[np.float32]:
        state = cast(NDArray[np.floating], observations["state"]) if self._bundle.spec.state_size else None
        found = self._bundle.readout(self._bundle._candidates(state, self._stacked))
        return cast(NDArray[np.float32], self._bundle.standardizer(found).cpu().numpy())
