"""One's own code: by its name (`module:Class` or `module:function`), and where it stands in the way of others'."""

import importlib
import sysconfig
from pathlib import Path
from typing import Any

from phaseb.errors import ConfigError


def load_plugin(name: str, setting: str) -> Any:
    """What `module:name` names; `setting` is the dotted name of the setting that says so.

    Raises:
        ConfigError: where the module cannot be imported or has nothing of that name.
    """
    module, _, attribute = name.partition(":")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        fix = "put it into the current folder or on PYTHONPATH, or install it"
        raise ConfigError(f"{setting}={name}: there is no module {error.name}; {fix}") from error
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"{setting}={name}: module {module} cannot be imported ({type(error).__name__}: {said}); mend it"
        ) from error
    if not hasattr(found, attribute):
        raise ConfigError(f"{setting}={name}: module {module} has no {attribute}; name a class or function of it")
    return getattr(found, attribute)


def check_shadowing(folder: Path) -> None:
    """Refuse a folder with a module of the name of an installed package: Ray's workers import from it first.

    Args:
        folder: the current folder, which Ray puts before all others on its workers' path.

    Raises:
        ConfigError: naming the file.
    """
    installed = Path(sysconfig.get_paths()["purelib"])
    own = [(file, file.stem) for file in folder.glob("*.py")]
    own += [(file.parent, file.parent.name) for file in folder.glob("*/__init__.py")]
    for place, name in sorted(own):
        if name != "phaseb" and ((installed / name / "__init__.py").exists() or (installed / f"{name}.py").exists()):
            raise ConfigError(
                f"{place} would be imported in place of the package {name} by Ray's workers: rename it, or start "
                "phaseb in another folder"
            )
