"""Take trained parts over from another run: their digests stay, and nothing is trained."""

from typing import Literal

from phaseb.config.root import Config
from phaseb.dynamics.protocol import DynamicsModel, load_generator
from phaseb.episodes.actions import read_action_scale
from phaseb.episodes.shards import read_trajectories
from phaseb.episodes.trajectories import Trajectories
from phaseb.errors import ConfigError, DataError
from phaseb.latents.model import EncoderModel
from phaseb.runtime.checkpoint import checkpoint_digest, copy_checkpoint
from phaseb.runtime.storage import Store

Part = Literal["encoder", "dynamics", "trust"]


def take_encoder(config: Config, store: Store) -> EncoderModel:
    """The encoder of another run, copied into this one."""
    copy_checkpoint(_source(config.reuse.encoder, "encoder"), store.folder("encoder"))
    return EncoderModel.load(store.folder("encoder"))


def take_generator(config: Config, store: Store, name: str) -> DynamicsModel:
    """A generator of another run, copied into this one with the scale of its uncertainty."""
    _check_latents(config.reuse.dynamics, "dynamics", store)
    home = store.folder("dynamics", name)
    copy_checkpoint(_source(config.reuse.dynamics, "dynamics", name), home)
    return load_generator(home)


def take_trust(config: Config, store: Store) -> None:
    """The gate of another run, copied into this one."""
    _check_latents(config.reuse.trust, "trust", store)
    source, target = _source(config.reuse.trust, "trust"), store.folder("trust")
    copy_checkpoint(source, target)
    target.write_json(source.read_json("analysis.json"), "analysis.json")


def take_negatives(config: Config, store: Store) -> Trajectories:
    """The rollouts that the gate of another run learned from."""
    _check_latents(config.reuse.trust, "trust", store)
    return read_trajectories(Store.at(config.reuse.trust).folder("negatives"))


def _source(path: str, part: Part, name: str = "") -> Store:
    where = "/".join(filter(None, (part, name)))
    store = Store.at(path).folder(*filter(None, (part, name)))
    if not store.exists("meta.json"):
        raise DataError(f"{path} has no {where} to take over: it has no {where}/meta.json")
    return store


def _check_latents(path: str, part: Part, store: Store) -> None:
    """The part must have been trained on latents and scaled actions such as this run has.

    Raises:
        ConfigError: where encoder or action scale differ.
    """
    other = Store.at(path)
    if checkpoint_digest(other.folder("encoder")) != checkpoint_digest(store.folder("encoder")):
        raise ConfigError(f"reuse.{part}={path} was trained on another encoder's latents; set reuse.encoder={path} too")
    scales = [scale and scale.to_json() for scale in (read_action_scale(other), read_action_scale(store))]
    if scales[0] != scales[1]:
        raise ConfigError(f"reuse.{part}={path} was trained on actions of another range; train it again")
