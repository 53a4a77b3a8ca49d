"""MkDocs hooks: the config reference out of the schema, and a table of contents out of the pages that are there."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from phaseb.config.reference import section_titles, settings

CONTENTS = {
    "Start": ["index", "own-data", "concepts", "glossary", "library", "notebook"],
    "Guides": ["searches", "large-searches", "clusters", "replay", "extending", "config"],
    "How it works": [
        "architecture",
        "world-model",
        "short-range",
        "trust",
        "policies",
        "do-no-harm",
        "flywheel",
        "reliability",
        "security",
    ],
    "Measured": ["results", "benchmarks", "performance", "scale"],
    "Research notes": [
        "research/results",
        "research/performance",
        "research/world-model",
        "research/short-range",
        "research/trust",
        "research/do-no-harm",
        "research/policies",
        "research/flywheel",
        "research/searches",
        "research/imports",
        "research/reliability",
    ],
}
"""The order of the pages; one that is not named here comes last, one that is not there is left out."""
GENERATED = "config"
HEAD = "| setting | default | is | meaning |\n| --- | --- | --- | --- |\n"


def on_config(config: Any) -> Any:
    folder = Path(config["docs_dir"])
    pages = {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.md")} | {GENERATED}
    named = {name for names in CONTENTS.values() for name in names}
    rest = sorted(pages - named)
    chapters = {**CONTENTS, "More": rest}
    config["nav"] = [
        {title: [f"{name}.md" for name in names if name in pages]}
        for title, names in chapters.items()
        if pages & set(names)
    ]
    return config


def on_files(files: Files, config: Any) -> Files:
    files.append(File.generated(config, f"{GENERATED}.md", content=reference()))
    return files


def reference() -> str:
    """The page of all settings, section by section."""
    parts = [
        "# Settings\n\nEvery setting of a run by its dotted name, for YAML files (`policy: {num_steps: 2000}`) and for "
        "the command line (`policy.num_steps=2000`). `phaseb settings WORD` shows them in the terminal. Made from the "
        "schema.\n"
    ]
    titles, seen = section_titles(), ""
    for setting in settings():
        section = setting.path.partition(".")[0]
        if section != seen:
            seen = section
            parts.append(f"\n## {section}\n\n{titles[section]}\n\n{HEAD}")
        kind = ", ".join(filter(None, [" / ".join(setting.choices) or setting.kind, setting.limits]))
        cells = (f"`{setting.path}`", f"`{setting.default}`", kind, setting.description)
        parts.append(_row(cells))
    return "".join(parts) + _built_in("arms") + _built_in("policy.learners")


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |\n"


def _built_in(mapping: str) -> str:
    """A table of what the built-in sections of a mapping set, a row a name."""
    columns = {s.path: s.by_name for s in settings() if s.path.startswith(f"{mapping}.NAME.") and s.by_name}
    leaves = [path.rpartition(".")[2] for path in columns]
    head = f"\n## {mapping} that are built in\n\nAn empty cell is the setting's default.\n\n"
    names = dict.fromkeys(name for values in columns.values() for name in values)
    rows = (_row((f"`{mapping}.{name}`", *(values.get(name, "") for values in columns.values()))) for name in names)
    return head + _row(("name", *leaves)) + _row("---" for _ in range(len(columns) + 1)) + "".join(rows)
