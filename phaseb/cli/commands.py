"""The commands that are not stages of a run: searches, clusters, templates, a look at the machine."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from phaseb.config.root import Config
from phaseb.errors import ConfigError, DataError
from phaseb.runtime.storage import to_jsonable


def run(arguments: argparse.Namespace, words: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    known = {
        "tune": _tune,
        "submit": _submit,
        "status": _status,
        "logs": _logs,
        "stop": _stop,
        "init": _init,
        "doctor": _doctor,
        "export": _export,
        "settings": _settings,
        "inspect": _inspect,
        "trials": _trials,
    }
    return known[arguments.command](arguments, words)


def show_report(runs: Sequence[str], as_json: bool) -> int:
    """Write the page of a run or a flywheel again, or the comparison of two runs."""
    from phaseb.stages.report import rewrite_report

    results = rewrite_report(runs)
    if as_json:
        _print_json(results)
        return 0
    if "runs" in results:
        from phaseb.cli.tables import results_console, show_comparison

        show_comparison(results, results_console())
    print(f"report: {results['page']}")
    return 0


def evaluate_policy(path: str, config: str | None, words: Sequence[str], as_json: bool) -> int:
    """Measure an exported policy; without a config, where and as its own run measured it."""
    from phaseb.config.load import load_config
    from phaseb.export.loader import ExportedPolicy, evaluate_exported

    policy = ExportedPolicy.load(path)
    own = [] if config else [f"{name}={json.dumps(value)}" for name, value in policy.card["config"].items()]
    told = evaluate_exported(path, load_config(config, [*own, *words]), policy)
    if as_json:
        _print_json(told)
        return 0
    from phaseb.runtime.formatting import number

    who = f"{told['file']} ({told['arm']}, seed {told['seed']})"
    print(f"{who} in {told['environment']}; what its card says in brackets")
    for name, value in told["measured"].items():
        known = told["card"].get(name)
        print(f"{name:<20} {number(value):>10}{'' if known is None else f'   ({number(known)})'}")
    return 0


def dry_run(config: Config, as_json: bool) -> int:
    """Say what a run would choose and need, without writing or training.

    Raises:
        PhasebError: where it would fail, after all was said.
    """
    from phaseb.stages.rehearsal import rehearse

    found = rehearse(config)
    if as_json:
        _print_json(found.to_json())
    else:
        for line in found.lines():
            print(f"note: {line}")
        for need in found.requirements:
            print(f"{'ok' if need.met else 'no':<4}{need.stage:<12} {need.needed} ({need.setting}): {need.found}")
    found.require()
    return 0


def _tune(arguments: argparse.Namespace, words: Sequence[str]) -> int:
    from phaseb.tuning.study import run_study

    result = run_study(arguments.study, arguments.resume, arguments.watch, arguments.auto_resume)
    if arguments.json:
        _print_json(result.summary())
        return 0
    folder = os.path.dirname(result.path)
    print(f"{result.verdict}\n\nbest:   {result.path}\ntrials: optuna-dashboard sqlite:///{folder}/study.db")
    return 0


def _submit(arguments: argparse.Namespace, words: Sequence[str]) -> int:
    from phaseb.submit import submit

    return submit(arguments.job, arguments.address, arguments.render, list(words))


def _status(arguments: argparse.Namespace, words: Sequence[str]) -> int:
    from phaseb.submit import status

    return status(arguments.id, arguments.address)


def _logs(arguments: argparse.Namespace, words: Sequence[str]) -> int:
    from phaseb.submit import logs

    return logs(arguments.id, arguments.address)


def _stop(arguments: argparse.Namespace, words: Sequence[str]) -> int:
    from phaseb.submit import stop

    return stop(arguments.id, arguments.address)


def _init(arguments: argparse.Namespace, words: Sequence[str]) -> int:
    from phaseb.submit.templates import write_templates

    return write_templates(arguments.dir)


def _doctor(arguments: argparse.Namespace, words: Sequence[str]) -> int:
    from phaseb.doctor.checks import run_checks

    return run_checks(arguments.storage, as_json=arguments.json)


def _export(arguments: argparse.Namespace, words: Sequence[str]) -> int:
    if arguments.format == "policy":
        return _export_policy(arguments)
    from phaseb.export.episodes import export_run

    done = export_run(arguments.run, arguments.target, arguments.format, arguments.only)
    if arguments.json:
        _print_json(done)
    else:
        print(f"{done['episodes']} episodes ({done['synthetic']} synthetic) in {done['path']}")
    return 0


def _export_policy(arguments: argparse.Namespace) -> int:
    from phaseb.export.onnx import export_policy

    done = export_policy(arguments.run, arguments.target, arguments.seed)
    if arguments.json:
        _print_json(done)
    else:
        worst = max(done["difference"].values())
        files = ", ".join(done["files"])
        print(f"{done['arm']}, seed {done['seed']}: {files} in {done['path']} (they differ by {worst:.1g})")
    return 0


def _inspect(arguments: argparse.Namespace, words: Sequence[str]) -> int:
    from phaseb.config.load import load_config
    from phaseb.episodes.sources import recognise
    from phaseb.inspection.inspection import inspect
    from phaseb.inspection.page import lines, page

    named = any(word.startswith("episodes.source=") for word in words)
    source, place = ("", arguments.path) if named else recognise(arguments.path)
    own = [f"episodes.path={json.dumps(place)}", *([] if named else [f"episodes.source={source}"])]
    own += [] if arguments.config else ["environment.id=none"]
    config = load_config(arguments.config, [*own, *words])
    html = _page_file(arguments.html) if arguments.html else None
    found = inspect(config)
    if html is not None:
        html.write_text(page(found), encoding="utf-8")
    if arguments.json:
        _print_json(found.to_json())
    else:
        print("\n".join(lines(found)))
    if found.refused:
        count = sum(one.severity == "error" for one in found.findings)
        raise DataError(f"a run on {arguments.path} would be refused: {count} error{'s' * (count > 1)}")
    return 0


def _page_file(path: str) -> Path:
    """Where a page will be written.

    Raises:
        ConfigError: where it cannot be written, before the work for it begins.
    """
    from phaseb.config.paths import expanded

    try:
        file = Path(expanded(path))
    except ValueError as error:
        raise ConfigError(f"--html={path}: {error}") from error
    if file.is_dir() or not os.access(file.parent, os.W_OK):
        raise ConfigError(f"--html={path} cannot be written; name a file in a folder that you may write to")
    return file


def _trials(arguments: argparse.Namespace, words: Sequence[str]) -> int:
    from phaseb.robot_trials.files import decide_trials, write_plan
    from phaseb.robot_trials.plan import blind_labels
    from phaseb.robot_trials.study import Study

    if arguments.kind == "plan":
        is_score = arguments.score_std is not None
        study = Study(
            arguments.candidate,
            arguments.control,
            blind_labels(arguments.seed),
            0,
            arguments.looks,
            arguments.confidence,
            "score" if is_score else "success",
            not arguments.unpaired,
            arguments.gain,
        )
        told, lines = write_plan(
            arguments.file,
            study,
            arguments.baseline,
            arguments.power,
            arguments.score_std if is_score else 1.0,
            arguments.seed,
        )
    else:
        told, lines = decide_trials(arguments.file, arguments.run)
    if arguments.json:
        _print_json(told)
    else:
        print("\n".join(lines))
    return 0


def _settings(arguments: argparse.Namespace, words: Sequence[str]) -> int:
    from phaseb.config.reference import settings

    found = [one for one in settings() if all(word in one.path or word in one.by_name for word in arguments.words)]
    if not found:
        raise ConfigError(f"no setting has {' and '.join(arguments.words)} in its name")
    if arguments.json:
        _print_json([asdict(one) for one in found])
        return 0
    for one in found:
        kind = ", ".join(filter(None, [" / ".join(one.choices) or one.kind, one.limits]))
        print(f"{one.path}={one.default}  ({kind})\n    {one.description}")
        if one.by_name:
            print(f"    {', '.join(f'{name}: {value}' for name, value in one.by_name.items())}")
    return 0


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(to_jsonable(value), allow_nan=False) + "\n")
