"""Where trials log to beside their records: TensorBoard or CSV files, MLflow, Weights & Biases."""

import importlib

from ray.tune import Callback

from phaseb.config.tuning import StudyConfig
from phaseb.errors import ConfigError

EXTRAS = {"mlflow": "mlflow-skinny", "wandb": "wandb", "tensorboard": "tensorboardX", "csv": ""}


def loggers(study: StudyConfig, name: str) -> list[Callback]:
    """Tune's own logger callbacks for the study's trackers.

    Raises:
        ConfigError: where a tracker's package is not installed.
    """
    return [_logger(tracker, name) for tracker in study.trackers]


def _logger(tracker: str, name: str) -> Callback:
    package = {"tensorboard": "tensorboardX"}.get(tracker, tracker)
    if tracker != "csv":
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ConfigError(f"trackers: {tracker} is not installed: pip install {EXTRAS[tracker]}") from error
    if tracker == "mlflow":
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        return MLflowLoggerCallback(experiment_name=name)
    if tracker == "wandb":
        from ray.air.integrations.wandb import WandbLoggerCallback

        return WandbLoggerCallback(project="phaseb", group=name)
    if tracker == "csv":
        from ray.tune.logger import CSVLoggerCallback

        return CSVLoggerCallback()
    from ray.tune.logger import TBXLoggerCallback

    return TBXLoggerCallback()
