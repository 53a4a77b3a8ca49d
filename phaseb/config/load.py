"""Defaults, a YAML file and `key.path=value` words make a checked `Config`; all errors at once, with their places."""

import difflib
import functools
import os
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from phaseb.config.data import ENDINGS
from phaseb.config.paths import expanded
from phaseb.config.root import Config
from phaseb.errors import ConfigError

RENAMED = {
    "world_model": "dynamics.gru",
    "generators": "negatives",
    "reuse.world_model": "reuse.dynamics",
    "policy.transitions": "dynamics.gp",
    "policy.augmentation.model": "arms.trust_weighted.generator",
    "dynamics.gru.landings": "dynamics.gru.gp_correction",
    "dynamics.gru.look_ahead": "dynamics.gru.action_lookahead",
    "dynamics.gru.critic_from": "dynamics.gru.discriminator_from",
    "dynamics.gp.kept": "dynamics.gp.max_transitions",
    "dynamics.gp.fitted": "dynamics.gp.num_hyperparameter_points",
    "trust.critic": "trust.discriminator",
    "policy.offline.behaviour_weight": "policy.offline.bc_weight",
    "policy.offline.clone_share": "policy.offline.bc_fraction",
    "policy.offline.value_share": "policy.offline.critic_warmup_fraction",
    "policy.offline.cut_spread_weight": "policy.offline.truncation_pessimism",
    "policy.offline.iql_temperature": "policy.offline.iql_beta",
    "policy.target_rate": "policy.tau",
    "policy.actor_average_rate": "policy.actor_ema",
    "policy.runs_together": "policy.runs_per_batch",
    "policy.switches": "policy.binary_actions",
}
"""Old names of settings: they are errors that name the new one."""


def load_config(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """The resolved configuration: schema defaults < YAML file < `key.path=value` words.

    Raises:
        ConfigError: naming every fault at once, each with file or word, dotted path, value and the nearest name.
    """
    source = str(path) if path else "defaults"
    tree = read_yaml(path) if path else {}
    faults: list[str] = []
    places: dict[str, str] = {}
    for word in overrides:
        _apply(tree, word, faults, places)
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        faults += [_explain(fault, source, places) for fault in _causes(error.errors())]
    if faults:
        raise ConfigError("\n".join(faults))
    if not config.run.dir:
        name = Path(path).stem if path else "default"
        config = config.model_copy(update={"run": config.run.model_copy(update={"dir": f"runs/{name}"})})
    return config


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping; YAML forbids it, and PyYAML keeps the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"{twice!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(path: str | Path, over: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A YAML file that holds a mapping; `base: other.yaml` beside it is read first and overridden.

    Args:
        path: of the file.
        over: the files whose base it is.

    Raises:
        ConfigError: for a file that cannot be read, is no mapping, or has itself as its base.
    """
    here = Path(os.path.normpath(_expanded(path)))
    if here in over:
        raise ConfigError(f"{path} is its own base, by way of {over[-1].name}; take `base` out of one of them")
    try:
        tree = yaml.load(Path(_expanded(path)).read_text(encoding="utf-8"), _UniqueKeys) or {}
    except OSError as error:
        raise ConfigError(f"cannot read config {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold `section: …` mappings, not a {type(tree).__name__}")
    base = tree.pop("base", None)
    return merge(read_yaml(here.parent / _expanded(str(base)), (*over, here)), tree) if base else tree


def _expanded(path: str | Path) -> str:
    """A path of a file with `~` expanded.

    Raises:
        ConfigError: where it is a URI: configs are files of this machine.
    """
    try:
        text = expanded(str(path))
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    if "://" in text:
        raise ConfigError(f"{path} is a storage URI; a config is a file of this machine, so copy it here first")
    return text


def merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `change` laid over it, mapping by mapping."""
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def dump_config(config: Config) -> str:
    """The resolved configuration as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def dotted_paths(model: type[BaseModel] = Config, prefix: str = "") -> dict[str, Any]:
    """Every dotted name of the schema with its field."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        inner = _section_of(field.annotation)
        if inner is not None:
            found |= dotted_paths(inner, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = field
    return found


def nearest(name: str, names: Sequence[str]) -> str:
    """ " (did you mean …?)" or nothing."""
    match = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else ""


def _section_of(annotation: Any) -> type[BaseModel] | None:
    candidates = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def _apply(tree: dict[str, Any], word: str, faults: list[str], places: dict[str, str]) -> None:
    path, sign, text = word.partition("=")
    if not sign or not path:
        faults.append(f"{word!r} is not of the form key.path=value{_file_hint(word)}")
        return
    try:
        value = _value(path, text)
    except yaml.YAMLError:
        faults.append(f"{path}: the value {text!r} cannot be read; quote it")
        return
    places[path] = word
    *parents, leaf = path.split(".")
    node = tree
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            faults.append(f"{path}: {parent!r} is a value, not a section")
            return
        node = child
    old = node.get(leaf)
    node[leaf] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value


def _value(path: str, text: str) -> Any:
    """What a word sets: YAML, but for settings that are text, which is taken as it stands unless it is quoted.

    Raises:
        yaml.YAMLError: where it is no YAML, or a comment would cut a text short.
    """
    quoted = text.strip()[:1] in ("'", '"')
    kind = _kinds().get(path)
    if not quoted and (kind is str or (kind == (str | None) and text.strip() not in ("", "null", "~"))):
        return text.strip()
    value = yaml.safe_load(text)
    if isinstance(value, str) and not quoted and " #" in text:
        raise yaml.YAMLError(f"{text} has a comment")
    return value


@functools.cache
def _kinds() -> dict[str, Any]:
    """The type of every setting by its dotted name."""
    return {name: field.annotation for name, field in dotted_paths().items()}


def _file_hint(word: str) -> str:
    if source := ENDINGS.get(Path(word).suffix):
        return f"; did you mean episodes.source={source} episodes.path={word}?"
    is_config = word.endswith((".yaml", ".yml")) or Path(word).is_file()
    return f"; did you mean --config {word}?" if is_config else ""


def _causes(found: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Faults without the lists that are too short only because an item of theirs is wrong."""
    deeper = {tuple(fault["loc"][:-1]) for fault in found}
    return [fault for fault in found if fault["type"] != "too_short" or tuple(fault["loc"]) not in deeper]


def _explain(fault: Mapping[str, Any], source: str, places: Mapping[str, str]) -> str:
    parts = [str(part) for part in fault["loc"]]
    path = ".".join(parts)
    word = next((w for p, w in places.items() if p == path or f"{p}.".startswith(f"{path}.")), None)
    word = word or next((w for p, w in places.items() if path.startswith(f"{p}.")), None)
    where = f"command line ({word})" if word else source
    if fault["type"] == "extra_forbidden" or (fault["type"] == "model_type" and parts[-1] not in _names_at(parts[:-1])):
        return f"{where}: unknown key {path}{_suggestion(parts, (word or '').partition('=')[0])}"
    shown = "" if isinstance(fault["input"], Mapping) else f" = {fault['input']!r}"
    in_list = bool(fault["loc"]) and isinstance(fault["loc"][-1], int)
    several = in_list and isinstance(fault["input"], str) and "," in fault["input"]
    hint = f"; write several as [{fault['input']}]" if several else ""
    said = fault["msg"].removeprefix("Value error, ") + hint
    return f"{where}: {path}{shown}: {said}" if path else f"{where}: {said}"


def _suggestion(parts: Sequence[str], typed: str) -> str:
    """The setting that was meant, by its whole dotted path: a sibling's name, or the same name in another section."""
    *parents, leaf = parts
    whole, above = dotted_paths(), "".join(f"{name}." for name in parents)
    known = {name: f"{above}{name}" for name in _names_at(parents)}
    known |= {old.removeprefix(above): new for old, new in RENAMED.items() if old.rpartition(".")[0] == above[:-1]}
    if match := difflib.get_close_matches(leaf, known, n=1, cutoff=0.6):
        meant = known[match[0]]
        rest = typed.removeprefix(".".join(parts))
        return f"; did you mean {meant + rest if meant + rest in whole else meant!r}?"
    leaves = {path.rsplit(".", 1)[-1]: path for path in reversed(whole)}
    match = difflib.get_close_matches(leaf, leaves, n=1, cutoff=0.75)
    return f"; did you mean {leaves[match[0]]!r}?" if match else ""


def _names_at(parents: Sequence[str]) -> list[str]:
    model: type[BaseModel] | None = Config
    for name in parents:
        field = model.model_fields.get(name) if model else None
        model = _section_of(field.annotation) if field else None
    return list(model.model_fields) if model else []
