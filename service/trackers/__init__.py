"""Experiment trackers, told by the control plane: their credentials never reach the cluster."""

from service.settings import Settings
from service.trackers.base import Tracker
from service.trackers.mlflow import Mlflow
from service.trackers.wandb import Wandb


def trackers(settings: Settings) -> list[Tracker]:
    """Those that are set. Raises ServiceError if the client of one is not installed."""
    found: list[Tracker] = []
    if settings.mlflow_url is not None:
        found.append(Mlflow(settings.mlflow_url, settings.mlflow_experiment))
    if settings.wandb_project is not None:
        key = settings.wandb_api_key.get_secret_value() if settings.wandb_api_key is not None else None
        directory = settings.storage_root / "wandb"
        where = {"entity": settings.wandb_entity, "url": settings.wandb_url, "api_key": key}
        found.append(Wandb(settings.wandb_project, directory, offline=settings.wandb_offline, **where))
    return found
