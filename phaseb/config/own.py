"""Names of one's own code in a configuration."""


def is_own(name: str) -> bool:
    """Whether a name is of the form module:Class or module:function."""
    module, colon, attribute = name.partition(":")
    return bool(colon) and all(part.isidentifier() for part in [*module.split("."), attribute])
