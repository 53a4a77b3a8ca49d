"""Write the shipped policy for machines that know nothing of phaseb: ONNX, torch.export, and a card that says what it
is, what it was made from, and where it must not be trusted."""

import contextlib
import hashlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phaseb import __version__
from phaseb.episodes.actions import read_action_scale
from phaseb.episodes.control import read_control
from phaseb.episodes.shards import read_episodes
from phaseb.episodes.tasks import read_tasks
from phaseb.errors import ConfigError, DataError, PhasebError
from phaseb.export.model_card import card_of, card_text
from phaseb.export.module import DeployedPolicy, FrameStack
from phaseb.latents.model import EncoderModel
from phaseb.pipeline.run_directory import RunDirectory, digest_of, read_decision
from phaseb.policy.actor import Actor
from phaseb.policy.chunk_policy import ChunkPolicy
from phaseb.policy.trained_policy import load_policy
from phaseb.runtime.seeding import numpy_generator
from phaseb.runtime.storage import Store

FILES = {"onnx": "policy.onnx", "torch.export": "policy.pt2"}
CARD = "model_card.json"
TOLERANCE = 1e-5  # of an action in [-1, 1]: what the two formats may differ by
CHECKED_EPISODES, CHECKED_ROWS = 8, 512
INSTALL = 'pip install "phaseb[export]"'


def export_policy(run: str, target: str, seed: int = 0) -> dict[str, Any]:
    """Write the policy that a run ships as `policy.onnx` and `policy.pt2`, with `model_card.json` and a readable copy.

    Both files are read back and must act as phaseb does, within 1e-5 of the actions' range, on observations of held-out
    (dev) episodes; otherwise nothing is left behind.

    Args:
        run: a run directory whose `evaluate` stage is done.
        target: a folder that is empty or absent.
        seed: which of the shipped arm's policies.

    Raises:
        ConfigError: where the extra is not installed, the target holds something, or there is no such seed.
        DataError: where the run has not decided yet.
    """
    _require_packages()
    store, out = RunDirectory.existing(run).store, Store.at(target)
    if not store.exists("promotion.json"):
        raise DataError(f"{run} has not decided what is shipped: run `phaseb evaluate` first")
    if out.names() or out.folders():
        raise ConfigError(f"{target} is not empty; name another folder")
    arm = str(read_decision(store)["shipped"])
    if not store.exists("policy", arm, str(seed)):
        raise ConfigError(f"{run} has no policy of seed {seed} for {arm}; arms.num_seeds says how many there are")
    scale = read_action_scale(store)
    if scale is None:
        raise DataError(f"{run} has no actions, so a policy of it has no units")
    bundle = EncoderModel.load(store.folder("encoder"))
    actor = load_policy(store.folder("policy", arm, str(seed)))
    assert isinstance(actor, (Actor, ChunkPolicy))
    policy = DeployedPolicy(bundle, actor, scale).eval()
    examples = _examples(store, policy, bundle)
    blobs = _written(policy, examples)
    checks = _check(policy, examples, blobs)
    try:
        return _save(out, store, policy, bundle, blobs, checks, arm, seed)
    except PhasebError:
        for name in out.names():
            out.delete(name)
        raise


def _save(
    out: Store,
    store: Store,
    policy: DeployedPolicy,
    bundle: EncoderModel,
    blobs: Mapping[str, bytes],
    checks: Mapping[str, Any],
    arm: str,
    seed: int,
) -> dict[str, Any]:
    shapes: dict[str, list[Any]] = {}
    if "state" in policy.inputs:
        shapes["state"] = ["batch", bundle.spec.state_size]
    if bundle.spec.frame_shape is not None:
        shapes["frames"] = ["batch", bundle.spec.stack, *bundle.spec.frame_shape]
    size = [policy.actor.chunk_steps] if isinstance(policy.actor, ChunkPolicy) else []
    size.append(policy.actor.action_size)
    if "noise" in policy.inputs:
        shapes["noise"] = ["batch", *size]
    interface = {
        "inputs": shapes,
        "outputs": {policy.output: ["batch", *size]},
        "plans": policy.plans,
        "binary_actions": policy.actor.binary_actions if isinstance(policy.actor, ChunkPolicy) else [],
        "action_low": policy.low.tolist(),
        "action_high": (policy.low + policy.span).tolist(),
    }
    control = read_control(store)
    if control is not None:
        interface["control"] = control.to_json() | {"hz": control.hz}
    if tasks := read_tasks(store):
        interface["tasks"] = list(tasks)
    card = card_of(store, arm, seed, interface, dict(checks))
    text = card_text(card)
    for name, blob in blobs.items():
        out.write_bytes(blob, name)
    out.write_text(text, "MODEL_CARD.md")
    card["files"] = {name: hashlib.sha256(blob).hexdigest() for name, blob in blobs.items()}
    card["files"]["MODEL_CARD.md"] = hashlib.sha256(text.encode()).hexdigest()
    card["digest"] = digest_of(card)
    out.write_json(card, CARD)  # last: it is what makes the export exist
    return {"path": out.root, "arm": arm, "seed": seed, "files": sorted([*blobs, CARD, "MODEL_CARD.md"]), **checks}


def _require_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigError(f"--format policy needs the package {error.name}: {INSTALL}") from error


def _examples(store: Store, policy: DeployedPolicy, bundle: EncoderModel) -> tuple[torch.Tensor, ...]:
    """Observations of held-out episodes as the policy would meet them, stacked frames and all."""
    rows: dict[str, list[NDArray[Any]]] = {name: [] for name in policy.observed}
    memory = FrameStack(policy.observed, bundle.spec.stack)
    for episode in read_episodes(store.folder("episodes"), ("dev",), "frames" in policy.inputs)[:CHECKED_EPISODES]:
        memory.reset()
        for t in range(len(episode) + 1):
            seen = {n: getattr(episode, n)[t : t + 1] for n in ("state", "frames") if getattr(episode, n) is not None}
            for name, value in memory.add(seen).items():
                rows[name].append(value)
    joined = {name: np.concatenate(values) for name, values in rows.items()}
    every = max(1, -(-len(next(iter(joined.values()))) // CHECKED_ROWS))
    arrays = [np.ascontiguousarray(joined[name][::every]) for name in policy.observed]
    if isinstance(policy.actor, ChunkPolicy) and "noise" in policy.inputs:
        shape = len(arrays[0]), policy.actor.chunk_steps, policy.actor.action_size
        arrays.append(numpy_generator(0, "export", "noise").standard_normal(shape, np.float32))
    return tuple(torch.from_numpy(array) for array in arrays)


def _written(policy: DeployedPolicy, examples: tuple[torch.Tensor, ...]) -> dict[str, bytes]:
    """The two files, with any number of rows."""
    batch = torch.export.Dim("batch", min=1)
    traced = tuple(torch.zeros_like(e[:2]) for e in examples)  # they travel in the file: no data of anybody's
    saved, converted = io.BytesIO(), io.BytesIO()
    with _quiet():
        program = torch.export.export(policy, traced, dynamic_shapes={"observation": tuple({0: batch} for _ in traced)})
        torch.export.save(program, saved)
        made = torch.onnx.export(
            program, input_names=list(policy.inputs), output_names=[policy.output], external_data=False, verbose=False
        )
        assert made is not None
        converted.write(made.model_proto.SerializeToString())
    return {FILES["onnx"]: converted.getvalue(), FILES["torch.export"]: saved.getvalue()}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporters talk of packages that are not needed here, on stdout too, which belongs to results."""
    level, fast = logging.getLogger("torch.onnx").level, torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its fused attention is no operator of ONNX
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
        torch.backends.mha.set_fastpath_enabled(fast)


def _check(policy: DeployedPolicy, examples: tuple[torch.Tensor, ...], blobs: Mapping[str, bytes]) -> dict[str, Any]:
    """How far the files' actions are from phaseb's own, in shares of half the range.

    Raises:
        PhasebError: where one of them acts differently.
    """
    from phaseb.export.loader import InferenceSession

    with torch.no_grad():
        wanted, near_decision_boundary = policy(*examples).numpy(), policy.near_decision_boundary(*examples).numpy()
    half = np.maximum(policy.span.numpy() / 2, 1e-12)
    given = {name: value.numpy() for name, value in zip(policy.inputs, examples, strict=True)}
    told: dict[str, float] = {}
    for kind, name in FILES.items():
        acted = InferenceSession.of(name, blobs[name], policy.inputs).act(given)
        told[kind] = float(np.abs((acted - wanted) / half)[~near_decision_boundary].max(initial=0.0))
        if told[kind] > TOLERANCE:
            raise PhasebError(f"{name} acts differently from phaseb by {told[kind]:.2g}; nothing was written")
    return {"difference": told, "checked_rows": int((~near_decision_boundary).sum()), "version": __version__}
