"""The side folders (configs, jobs, studies, cluster files) for whoever has only the installed package.

In a wheel they lie beside this file; in a checkout they are the repository's own folders.
"""

import os
import shutil
import sys
from pathlib import Path

from phaseb.config.paths import expanded
from phaseb.errors import ConfigError, PhasebError

FOLDERS = ("configs", "jobs", "tune", "cluster")


def template_folder(name: str) -> Path:
    """Where a side folder lies.

    Raises:
        PhasebError: where the installation lacks it.
    """
    here = Path(__file__).parent
    for parent in (here, here.parents[2]):
        if (parent / name).is_dir():
            return parent / name
    raise PhasebError(f"this installation of phaseb has no {name} folder; install it again")


def write_templates(target: str) -> int:
    """Copy the side folders into a folder; nothing that is there already is overwritten.

    Raises:
        ConfigError: where a file exists and differs, or the folder is a URI or a file; nothing is written then.
    """
    try:
        target = expanded(target)
    except ValueError as error:
        raise ConfigError(f"{target}: {error}") from error
    if "://" in target:
        raise ConfigError(f"{target} is a storage URI; templates are files of this machine: give a folder")
    file = next((one for one in (Path(target), *Path(target).parents) if one.exists() and not one.is_dir()), None)
    if file is not None:
        raise ConfigError(f"{file} is a file; give a folder")
    folders = {name: template_folder(name) for name in FOLDERS}
    files = {Path(name) / file: folder / file for name, folder in folders.items() for file in _files(folder)}
    taken = [file for file, source in files.items() if _differs(Path(target) / file, source)]
    if taken:
        more = f" and {len(taken) - 1} more" if len(taken) > 1 else ""
        raise ConfigError(f"{Path(target) / taken[0]}{more} exists and differs; choose another folder")
    for file, source in files.items():
        goal = Path(target) / file
        try:
            goal.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, goal)
            if source.read_bytes().startswith(b"#!"):
                goal.chmod(goal.stat().st_mode | 0o111)  # whoever unpacked the wheel may have lost it
        except OSError as error:
            raise PhasebError(f"cannot write {goal}: {os.strerror(error.errno or 0)}") from error
    sys.stdout.write(
        f"wrote {len(files)} files under {target}: {', '.join(FOLDERS)}\n"
        f"next:  cd {target} && phaseb run --config configs/dev.yaml\n"
    )
    return 0


def _files(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")


def _differs(goal: Path, source: Path) -> bool:
    return goal.exists() and (not goal.is_file() or goal.read_bytes() != source.read_bytes())
