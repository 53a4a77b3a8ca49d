"""The command line: parse, load and check the config, import the job lazily, run it.

Exit codes: 0 done; 2 bad arguments or config; 3 bad data; 4 cluster not able; 130 interrupted; 143 told to leave
(SIGTERM); 1 anything else.
"""

import argparse
import contextlib
import errno
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from phaseb import __version__
from phaseb.config.registry import JOBS, READERS, load_job
from phaseb.errors import ConfigError, PhasebError
from phaseb.runtime import signals, streams

EPILOG = "Every setting has a dotted name: `phaseb run policy.num_steps=2000`. Exit codes: 0 done, 2 arguments or \
config, 3 data, 4 cluster, 1 anything else."

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a disk or a quota that is full."""
TAKE_SETTINGS = ("submit", "inspect")
"""Commands beside the jobs that take `key.path=value` words."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    streams.prepare()
    _find_modules_here()
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    words = [*getattr(arguments, "settings", []), *rest]
    wrong = [word for word in rest if word.startswith("-")]
    if wrong:
        parser.error(f"unrecognized arguments: {' '.join(wrong)}")
    if arguments.command is None:
        parser.print_help()
        return 0
    try:
        code = _run(arguments, words)
        sys.stdout.flush()
        return code
    except PhasebError as error:
        return _fail(error, str(error), error.exit_code, arguments.debug)
    except KeyboardInterrupt:
        how = "stopped" if signals.shutdown_requested() else "interrupted"
        print(f"phaseb: {how}; run the same command again to go on", file=sys.stderr)
        return signals.EXIT_CODE if signals.shutdown_requested() else 130
    except BrokenPipeError:
        _discard_output()
        return 1
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_ROOM and error.filename is None:
            _discard_output()
            return _fail(error, f"cannot write: {error.strerror}; free space, or write elsewhere", 1, arguments.debug)
        text = f"{type(error).__name__}: {error} (this is a defect of phaseb; --debug shows where)"
        return _fail(error, text, 1, arguments.debug)


def _discard_output() -> None:
    """Send what standard output still holds to nowhere: Python writes it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _find_modules_here() -> None:
    """Settings (`module:Class`) may name a module of the current folder."""
    with contextlib.suppress(FileNotFoundError):  # the folder was deleted meanwhile
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())


def _parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--json", action="store_true", help="print the result as one JSON document on stdout")
    options.add_argument("--debug", action="store_true", help="show tracebacks")
    about = "Synthetic data, safe and worth having, for offline robot learning."
    parser = argparse.ArgumentParser(prog="phaseb", description=about, epilog=EPILOG, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"phaseb {__version__}")
    parser.set_defaults(debug=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, (_, text) in JOBS.items():
        job = commands.add_parser(name, help=text, description=text, parents=[options], allow_abbrev=False)
        if name == "report":
            job.add_argument(
                "runs", nargs="*", default=[], metavar="RUN", help="a run or flywheel directory, or two runs to compare"
            )
        if name == "run":
            job.add_argument("--dry-run", action="store_true", help="say what the run would choose and need, and stop")
        if name == "evaluate":
            job.add_argument("--policy", metavar="EXPORT", help="measure an exported policy: its folder or file")
            about = "play the policies in the generators, beside physics where there is any; decide nothing"
            job.add_argument("--in-model", action="store_true", help=about)
        job.add_argument("--config", metavar="FILE", help="YAML file of differences from the defaults")
        job.add_argument("settings", nargs="*", metavar="KEY.PATH=VALUE", help="settings that win over the file")
    _add_cluster_commands(commands, options)
    _add_data_commands(commands, options)
    return parser


def _add_cluster_commands(commands: Any, options: argparse.ArgumentParser) -> None:
    tune = commands.add_parser("tune", help="search settings with a study file", parents=[options])
    tune.add_argument("study", metavar="STUDY.yaml")
    tune.add_argument("--resume", action="store_true", help="go on with a study that was stopped")
    tune.add_argument(
        "--auto-resume", action="store_true", help="start a study, or go on with it: for jobs that are started again"
    )
    tune.add_argument("--watch", action="store_true", help="show trials live")
    submit = commands.add_parser("submit", help="send a job file to a running cluster", parents=[options])
    submit.add_argument("job", metavar="JOB.yaml")
    submit.add_argument("--address", metavar="URL", help="of the cluster's job server")
    submit.add_argument("--render", choices=("kuberay", "slurm"), help="print what would be applied instead")
    submit.add_argument("settings", nargs="*", metavar="KEY.PATH=VALUE")
    for name, text in (("status", "state of a submitted job"), ("logs", "its log"), ("stop", "end it")):
        command = commands.add_parser(name, help=text, parents=[options])
        command.add_argument("id")
        command.add_argument("--address", metavar="URL")
    init = commands.add_parser("init", help="write configs, jobs, studies and cluster files", parents=[options])
    init.add_argument("dir", metavar="DIR")
    doctor = commands.add_parser("doctor", help="look at this machine and say what to mend", parents=[options])
    doctor.add_argument("storage", nargs="?", metavar="FOLDER", help="where runs will be: a path or URI to try out")


def _add_data_commands(commands: Any, options: argparse.ArgumentParser) -> None:
    about = "a run's episodes for other trainers, or its policy for machines"
    export = commands.add_parser("export", help=about, parents=[options])
    export.add_argument("run", metavar="RUN", help="a run directory")
    export.add_argument("target", metavar="FOLDER", help="where to write; must be empty or absent")
    formats = "episodes as npz (the default), minari, lerobot or rerun; or policy: what it ships, for machines"
    export.add_argument("--format", default="npz", metavar="FORMAT", help=formats)
    export.add_argument("--only", default="all", metavar="KIND", help="all, trusted, synthetic or real (all)")
    export.add_argument("--seed", type=int, default=0, metavar="N", help="which of the shipped arm's policies (0)")
    look = commands.add_parser("inspect", help="look at recordings: faults, and what a run would do", parents=[options])
    look.add_argument("path", metavar="PATH", help="a file or folder of recordings, or a run directory")
    look.add_argument("--html", metavar="FILE", help="also write a page with pictures")
    look.add_argument("--config", metavar="FILE", help="YAML file of the run that would use them")
    look.add_argument("settings", nargs="*", metavar="KEY.PATH=VALUE", help="settings that win over the file")
    _add_trials(commands, options)
    show = commands.add_parser("settings", help="every setting with its default and meaning", parents=[options])
    show.add_argument("words", nargs="*", metavar="WORD", help="only settings that have all these in their names")


def _add_trials(commands: Any, options: argparse.ArgumentParser) -> None:
    about = "trials on a real robot: how many and in which order, and what they decide"
    kinds = commands.add_parser("trials", help=about).add_subparsers(dest="kind", metavar="plan|decide", required=True)
    plan = kinds.add_parser("plan", parents=[options], help="write a blind schedule of as many trials as a gain needs")
    plan.add_argument("file", metavar="TRIALS.csv", help="schedule to write, with its key beside it")
    plan.add_argument("--gain", type=float, required=True, help="difference to find: 0.2 is 20 points of success")
    plan.add_argument("--baseline", type=float, default=0.5, help="share of successes of the control (0.5)")
    plan.add_argument("--power", type=float, default=0.8, help="chance to find the gain (0.8)")
    plan.add_argument("--confidence", type=float, default=0.95, help="1 less the rate of false promotions (0.95)")
    plan.add_argument("--looks", type=int, default=3, help="times at which the trials may decide (3)")
    plan.add_argument("--score-std", type=float, help="compare scores of this standard deviation, not successes")
    plan.add_argument("--unpaired", action="store_true", help="both policies do not start from the same conditions")
    plan.add_argument("--candidate", default="candidate", metavar="NAME", help="policy that may be promoted")
    plan.add_argument("--control", default="control", metavar="NAME", help="policy that ships otherwise")
    plan.add_argument("--seed", type=int, default=0, help="of labels and order")
    decide = kinds.add_parser("decide", help="say what the trials so far decide", parents=[options])
    decide.add_argument("file", metavar="TRIALS.csv", help="the schedule, filled in; its key lies beside it")
    decide.add_argument("--run", metavar="DIR", help="run that ships what they decide")


def _run(arguments: argparse.Namespace, words: list[str]) -> int:
    if arguments.command in JOBS:
        return _run_job(arguments, words)
    if words and arguments.command not in TAKE_SETTINGS:
        raise ConfigError(f"{arguments.command} takes no settings: {' '.join(words)}")
    from phaseb.cli import commands

    return commands.run(arguments, words)


def _run_job(arguments: argparse.Namespace, words: list[str]) -> int:
    from phaseb.config.load import load_config

    if arguments.command == "report" and arguments.runs and "=" not in arguments.runs[0]:
        from phaseb.cli import commands

        return commands.show_report(arguments.runs, arguments.json)
    if arguments.command == "evaluate" and arguments.policy:
        from phaseb.cli import commands

        return commands.evaluate_policy(arguments.policy, arguments.config, words, arguments.json)
    config = load_config(arguments.config, [*getattr(arguments, "runs", []), *words])
    if getattr(arguments, "dry_run", False):
        from phaseb.cli import commands

        return commands.dry_run(config, arguments.json)
    from phaseb.cli.tables import Console
    from phaseb.runtime.run_lock import run_lock

    module = importlib.import_module(JOBS[arguments.command][0])
    stages = module.stage_names(config) if arguments.command == "run" else ()
    lock = contextlib.nullcontext() if arguments.command in READERS else run_lock(config.run.dir)
    with lock, Console(config, arguments.json, stages) as console:
        in_model = getattr(arguments, "in_model", False)
        result = (module.run_in_model if in_model else load_job(arguments.command))(config, [console])
        console.conclude(result)
    return 0


def _fail(error: BaseException, text: str, code: int, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exception(error)
    lines = text.splitlines() or [type(error).__name__]
    for line in lines:
        print(f"phaseb: {line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
