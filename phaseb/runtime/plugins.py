"""One's own code by its name: `module:Class` or `module:function`."""

import importlib
from typing import Any

from phaseb.errors import ConfigError


def load_named(name: str, setting: str) -> Any:
    """What `module:name` names; `setting` is the dotted name of the setting that says so.

    Raises:
        ConfigError: where the module cannot be imported or has nothing of that name.
    """
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{setting}: cannot import {name}: {error}") from error
