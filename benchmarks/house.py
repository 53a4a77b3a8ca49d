"""Count what a newcomer has to read: files, lines, settings, cycles, layers, sentences and names of the rename table.

    python benchmarks/house.py [--json]

Each number stands beside its bar. The exit status is 1 where a bar is missed, so that a gate can use it.
"""

import argparse
import ast
import json
import re
import statistics
import sys
import tokenize
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from phaseb.config.reference import settings

ROOT = Path(__file__).parent.parent
USERS = ("configs", "tune", "tests", "benchmarks", "docs", "jobs", "cluster", "README.md")
"""Where a setting counts as used: whatever a user, a test or a benchmark writes."""
TEXT = (".py", ".yaml", ".yml", ".md", ".ipynb", ".toml")
OLD_NAMES = (
    "Ahead",
    "HeadStart",
    "AheadActor",
    "ShareElsewhere",
    "ShareActor",
    "RolloutsBeside",
    "FollowingRollouts",
    "following",
    "foreseen",
    "own_column",
    "ReplaySink",
    "Census",
    "followed_codes",
    "other_rollouts",
    "EpisodeLedger",
    "over_shards",
    "OneThread",
    "Crew",
    "recommended_starts",
    "first_latents",
    "told_results",
    "stages_told",
    "retell",
    "act_episodes",
    "CapturedStep",
    "EAGER_STEPS",
    "LearnerContext",
    "LOOKS",
    "Finding",
    "patiently",
    "patience_of",
    "is_passing",
    "load_named",
    "is_own",
    "Landings",
    "Landing",
    "look_ahead",
    "look_no_further",
    "sight_size",
    "blind_share",
    "sighted_floor",
    "Imagination",
    "OwnWorldModel",
    "OneStepModel",
    "fit_own",
    "ChangingLearner",
    "Situations",
    "TransitionModel",
    "TransitionRollout",
    "Outlook",
    "Happening",
    "Payment",
    "Reading",
    "reward_doubt",
    "WorldModelBundle",
    "EncoderBundle",
    "TrustBundle",
    "Weigh",
    "RolloutSink",
    "Imagined",
    "Forecasts",
    "followed_steps",
    "where_followed",
    "clone_share",
    "clone_lr",
    "value_share",
    "cut_spread_weight",
    "runs_together",
    "actor_average_rate",
    "target_rate",
    "behaviour_weight",
    "gradient_limit",
    "gradient_clip",
    "clip_norm",
    "iql_temperature",
    "Critic",
    "CriticTerm",
    "Material",
    "LocalPredictor",
    "first_bad_step",
    "onset_emphasis",
    "min_crop",
    "Keeper",
    "ResidentGroup",
    "Mailbox",
    "ask_to_leave",
    "CodeBank",
    "Readout",
    "fit_readout",
    "Wheel",
    "Ledger",
    "Told",
)
"""Identifiers that the rename table replaces. A name is struck from the code, never from this list."""
WALK = re.compile(r"^\d+\. `([\w/]+\.py)", re.MULTILINE)
"""A file of the walk from `phaseb run` to the gradient step, as docs/architecture.md numbers them."""


class Count(NamedTuple):
    """A number with the largest value that is allowed; None: it is only reported."""

    name: str
    value: float
    bar: float | None


def modules() -> dict[str, ast.Module]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted((ROOT / "phaseb").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imports(name: str, tree: ast.Module, known: Iterable[str]) -> set[str]:
    """The modules of the package that a module imports, within functions too; imports for types alone do not count."""
    known, found = set(known), set()
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & known
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & known
            found |= inner or ({node.module} & known)
    return found - {name}


def _statements(tree: ast.AST) -> Iterator[ast.stmt]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.stmt):
            yield node
        yield from _statements(node)


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Sets of modules that import each other (strongly connected components of two or more; Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            part = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(part) > 1:
                found.append(sorted(part))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def outside_layers(names: Iterable[str]) -> list[str]:
    """Modules that stand in no layer of the import contracts."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = [
        ".".join(filter(None, (home, part.strip().strip("()"))))
        for c in contracts
        for home in c.get("containers", ("",))
        for layer in c.get("layers", ())
        for part in _parts(layer)
    ]
    return sorted(n for n in names if n != "phaseb" and not any(n == m or n.startswith(f"{m}.") for m in layers))


def _parts(layer: str) -> list[str]:
    return re.split(r"[|:]", layer)


def unused_settings() -> list[str]:
    """Settings whose name no config, study, job, test, benchmark or page has."""
    paths = [path for name in USERS for path in _files(ROOT / name) if path != Path(__file__)]
    words = set(re.findall(r"\w+", "\n".join(path.read_text(encoding="utf-8") for path in paths)))
    return [setting.path for setting in settings() if setting.path.rsplit(".", 1)[-1] not in words]


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [p for p in sorted(path.rglob("*")) if p.suffix in TEXT and p.is_file()]


def sentences(text: str) -> list[str]:
    """The sentences of a Markdown text without its code, tables, headings and links."""
    text = re.sub(r"```.*?```|^( {4}|\||#|!).*?$|<[^>]+>", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    blocks = re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )", text)
    parts = [part for block in blocks for part in re.split(r"(?<=[.!?:])\s+(?=[A-Z`*\"(])", " ".join(block.split()))]
    return [part for part in parts if len(part.split()) > 2]


def long_sentence(texts: Iterable[str]) -> float:
    """The 90 % quantile of sentence length, in words."""
    lengths = [len(sentence.split()) for text in texts for sentence in sentences(text)]
    return statistics.quantiles(lengths, n=10)[-1] if len(lengths) > 1 else 0.0


def old_names() -> list[str]:
    """Identifiers of the rename table that the package still has; words in strings and comments are prose."""
    words = set()
    for path in (ROOT / "phaseb").rglob("*.py"):
        with path.open("rb") as file:
            words |= {token.string for token in tokenize.tokenize(file.readline) if token.type == tokenize.NAME}
    return [name for name in OLD_NAMES if name in words]


def walk() -> list[str]:
    """The files from `phaseb run` to the gradient step; empty where docs/architecture.md does not number them."""
    return WALK.findall((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))


def measure() -> tuple[list[Count], dict[str, list[str]]]:
    """All counts, and the names behind those that should be none."""
    trees = modules()
    graph = {name: imports(name, tree, trees) for name, tree in trees.items()}
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / "phaseb").rglob("*.py"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))]
    told = [f"{setting.description[:1].upper()}{setting.description[1:]}." for setting in settings()]
    names = {
        "settings unused anywhere": unused_settings(),
        "module cycles": [" ⇄ ".join(part) for part in cycles(graph)],
        "modules in no layer": outside_layers(trees),
        "old names left": old_names(),
    }
    counts = [
        Count("files in phaseb/", len(trees), 220),
        Count("lines in phaseb/", lines, 28_000),
        Count("settings", len(list(settings())), 220),
        *(Count(name, len(found), 0) for name, found in names.items()),
        Count("files from phaseb run to the gradient", len(walk()) or float("nan"), 8),
        Count("words in a long sentence, README", long_sentence([readme]), 25),
        Count("words in a long sentence, docs", long_sentence(pages), 25),
        Count("words in a long sentence, settings", long_sentence(told), 25),
    ]
    return counts, names


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    args = parser.parse_args()
    counts, names = measure()
    if args.json:
        print(json.dumps({"counts": {c.name: c.value for c in counts}, "names": names}, indent=1))
    else:
        print("| | now | bar |\n| --- | --- | --- |")
        for count in counts:
            print(f"| {count.name} | {count.value:g} | {'' if count.bar is None else f'≤ {count.bar:g}'} |")
        for name, found in names.items():
            if found:
                print(f"\n{name}: {', '.join(found)}")
    return int(any(c.bar is not None and not c.value <= c.bar for c in counts))


if __name__ == "__main__":
    sys.exit(main())
