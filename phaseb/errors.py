"""The errors a user can cause, each with the exit code that the command line gives for it."""


class PhasebError(Exception):
    """A user's error: one clear line that says what is wrong, where, and what to do."""

    exit_code = 1


class ConfigError(PhasebError):
    """Bad arguments or configuration."""

    exit_code = 2


class DataError(PhasebError):
    """Data that cannot be read, or that must not be trusted."""

    exit_code = 3


class ClusterError(PhasebError):
    """The cluster cannot do what was asked: resources, address or authentication."""

    exit_code = 4


class DivergenceError(PhasebError):
    """Training produced NaN, Inf or an exploding loss."""
