"""One's own code by its name: `module:Class` or `module:function`."""

import importlib
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
