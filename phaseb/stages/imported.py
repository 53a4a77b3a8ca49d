"""`phaseb import`: the collect stage on recorded files, and on nothing else."""

from collections.abc import Sequence

from phaseb.config.data import COLLECTED, IMPORTED
from phaseb.config.root import Config
from phaseb.errors import ConfigError
from phaseb.pipeline.result import Callback, RunResult


def run(config: Config, callbacks: Sequence[Callback] = ()) -> RunResult:
    """Read recorded episodes into the run directory.

    Raises:
        ConfigError: where `episodes.source` names no files: that would record simulated episodes.
    """
    if config.episodes.source in COLLECTED:
        raise ConfigError(
            f"import reads files, and episodes.source={config.episodes.source} records new episodes; name the files: "
            f"episodes.source=FORMAT episodes.path=PATH, FORMAT one of {', '.join(IMPORTED)} (or run `phaseb collect`)"
        )
    from phaseb.stages.run import run_job

    return run_job("collect", config, callbacks)
