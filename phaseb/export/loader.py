"""Act with an exported policy: its card and digests are checked first, and nothing in it is ever unpickled."""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phaseb.collection.environments import make_environment
from phaseb.config.root import Config
from phaseb.episodes.control import Control
from phaseb.episodes.environment import Observation, VectorEnvironment
from phaseb.errors import ConfigError, DataError
from phaseb.export.module import FrameStack
from phaseb.pipeline.run_directory import digest_of
from phaseb.policy.chunk_policy import acting_of
from phaseb.policy.evaluation import aggregate, evaluate
from phaseb.runtime.storage import Store

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class InferenceSession:
    """An exported network in memory: arrays by input name to actions (N, A)."""

    act: Callable[[Arrays], NDArray[np.float32]]

    @classmethod
    def of(cls, name: str, blob: bytes, inputs: Sequence[str]) -> "InferenceSession":
        """The network in the bytes of `policy.onnx` or `policy.pt2`."""
        return _onnx(blob, inputs) if name.endswith(".onnx") else _torch_export(name, blob, inputs)


@dataclass(frozen=True)
class ExportedPolicy:
    """A policy that was exported, with its card.

    Attributes:
        card: see `phaseb.export.model_card`.
        file: which of its files acts.
    """

    card: dict[str, Any]
    file: str
    runner: InferenceSession

    @classmethod
    def load(cls, path: str) -> "ExportedPolicy":
        """Read a policy: its folder (then `policy.pt2` acts), or one of the two files in it.

        Raises:
            DataError: where card or file are absent or altered.
            ConfigError: where ONNX is asked for and onnxruntime is not installed.
        """
        folder, _, name = path.rpartition("/") if path.endswith((".onnx", ".pt2")) else (path, "", "policy.pt2")
        store = Store.at(folder or ".")
        if not store.exists("model_card.json"):
            raise DataError(f"{path} is no exported policy: there is no model_card.json in {store.root}")
        card = store.read_json("model_card.json")
        said = {k: v for k, v in card.items() if k != "digest"} if isinstance(card, dict) else {}
        if not said or digest_of(said) != card.get("digest"):
            raise DataError(f"{store.path('model_card.json')} was altered: its digest does not match; export it again")
        blob = store.read_bytes(name)
        if card["files"].get(name) != hashlib.sha256(blob).hexdigest():
            raise DataError(f"{store.path(name)} was altered: its digest does not match its card; export it again")
        return cls(card, name, InferenceSession.of(name, blob, list(card["interface"]["inputs"])))

    def check_fit(self, environment: VectorEnvironment) -> None:
        """See that the policy can act in an environment.

        Raises:
            ConfigError: naming what differs.
        """
        interface = self.card["interface"]
        offered: dict[str, Any] = {
            "state": [environment.state_size] if environment.state_size else None,
            "frames": None if environment.frame_shape is None else list(environment.frame_shape),
        }
        for name, shape in interface["inputs"].items():
            if name == "noise":
                continue
            wanted = shape[2:] if name == "frames" else shape[1:]
            if offered[name] != wanted:
                there = f"{name} of shape {offered[name]}" if offered[name] else f"no {name}"
                raise ConfigError(f"the policy sees {name} of shape {wanted}, {environment.name} has {there}")
        ((_, shape),) = interface["outputs"].items()
        size = shape[-1]
        if size != len(environment.action_low):
            wanted = len(environment.action_low)
            raise ConfigError(f"the policy acts in {size} dimensions, {environment.name} takes {wanted}")


class ExportedAgent:
    """An exported policy in the place of an online encoder: what it says of an observation is the action itself."""

    def __init__(self, policy: ExportedPolicy) -> None:
        interface, run = policy.card["interface"], policy.runner.act
        inputs, plans = interface["inputs"], interface.get("plans", "")
        observed = [name for name in inputs if name != "noise"]
        self._memory, self._step = FrameStack(observed, inputs["frames"][1] if "frames" in inputs else 1), 0
        self._act: Callable[[Arrays, int], NDArray[np.float32]] = lambda seen, step: run(seen)
        if plans:
            (_, *shape) = interface["outputs"]["plan"]
            binary_actions = interface["binary_actions"]
            self._act = acting_of(
                plans, lambda seen, noise: run({**seen, "noise": noise}), tuple(shape), binary_actions
            )

    def reset(self, observation: Observation) -> NDArray[np.float32]:
        self._memory.reset()
        self._step = 0
        return self.step(observation)

    def step(self, observation: Observation) -> NDArray[np.float32]:
        self._step += 1
        return self._act(self._memory.add(observation), self._step - 1)


def evaluate_exported(path: str, config: Config, policy: ExportedPolicy | None = None) -> dict[str, Any]:
    """What an exported policy earns in the config's environment, beside what its card says.

    Raises:
        ConfigError, DataError: where policy and environment do not fit, or the environment misbehaves.
    """
    policy = policy or ExportedPolicy.load(path)
    seeds = range(config.evaluation.first_seed, config.evaluation.first_seed + config.evaluation.num_episodes)
    made = policy.card["interface"].get("control")
    control = None if made is None else Control.from_json(made)
    size, tasks = min(config.evaluation.num_envs, len(seeds)), tuple(policy.card["interface"].get("tasks", ()))
    environment = make_environment(config.environment, size, control, tasks)
    if environment is None:
        raise ConfigError("environment.id=none has no physics to measure a policy in")
    torch.set_num_threads(1)
    try:
        policy.check_fit(environment)
        rows = evaluate(
            lambda actions, step: np.asarray(actions, np.float32),
            ExportedAgent(policy),
            environment,
            list(seeds),
            step_limit_s=config.evaluation.step_limit_s,
        )
    finally:
        environment.close()
    measured = aggregate(rows, config.valuation)
    return {
        "policy": path,
        "file": policy.file,
        "arm": policy.card["arm"],
        "seed": policy.card["seed"],
        "environment": environment.name,
        "measured": measured,
        "card": policy.card["metrics"]["this_policy"],
    }


def _onnx(blob: bytes, inputs: Sequence[str]) -> InferenceSession:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        fix = 'pip install "phaseb[export]", or give policy.pt2'
        raise ConfigError(f"an .onnx file needs onnxruntime: {fix}") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(blob, options, providers=["CPUExecutionProvider"])
    return InferenceSession(lambda seen: np.asarray(session.run(None, {n: seen[n] for n in inputs})[0], np.float32))


def _torch_export(name: str, blob: bytes, inputs: Sequence[str]) -> InferenceSession:
    _refuse_pickles(name, blob)
    module = torch.export.load(io.BytesIO(blob)).module()

    def act(seen: Arrays) -> NDArray[np.float32]:
        with torch.no_grad():
            return np.asarray(module(*(torch.from_numpy(seen[n]) for n in inputs)).numpy(), np.float32)

    return InferenceSession(act)


def _refuse_pickles(name: str, blob: bytes) -> None:
    """torch.export's archive may hold pickled objects, which `torch.export.load` would run. Ours holds none.

    Raises:
        DataError: where the archive is broken or has any.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(blob)) as archive:
            for entry in archive.namelist():
                part = entry.partition("/")[2]
                if part.startswith("data/aotinductor") or (part.endswith(".pt") and "sample_inputs" not in part):
                    raise DataError(f"{name} holds {entry}, which could run code; export it again")
                if part.endswith("_config.json"):
                    items = json.loads(archive.read(entry))["config"].values()
                    if any(i.get("use_pickle") or not i["path_name"].startswith(("weight_", "tensor_")) for i in items):
                        raise DataError(f"{name} holds pickled objects, which could run code; export it again")
                if "sample_inputs" in part:
                    torch.load(io.BytesIO(archive.read(entry)), weights_only=True)  # refuses what is no tensor
    except (zipfile.BadZipFile, KeyError, ValueError, RuntimeError, UnpicklingError) as error:
        raise DataError(f"{name} is no archive of tensors alone: {error}".splitlines()[0]) from error
