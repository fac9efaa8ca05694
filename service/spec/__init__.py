"""What a client can ask for, what an attempt can report, and where files lie. Shared by control plane and cluster."""

from service.spec.data import DataSpec, TrainOn, Truncation
from service.spec.evaluation import Evaluation
from service.spec.job import AlignmentJob
from service.spec.layout import Storage
from service.spec.losses import Loss, LossKind, SftLoss, SigmoidLoss
from service.spec.model import ModelRef
from service.spec.resources import PoolRequest, Resources
from service.spec.rows.formats import RowFormat, ScoreUse
from service.spec.sources import SourceKind
from service.spec.stages import Stage
from service.spec.training import FullFineTuning, Lora, Precision, Schedule, Training

__all__ = [
    "AlignmentJob",
    "DataSpec",
    "Evaluation",
    "FullFineTuning",
    "Lora",
    "Loss",
    "LossKind",
    "ModelRef",
    "PoolRequest",
    "Precision",
    "Resources",
    "RowFormat",
    "Schedule",
    "ScoreUse",
    "SftLoss",
    "SigmoidLoss",
    "SourceKind",
    "Stage",
    "Storage",
    "TrainOn",
    "Training",
    "Truncation",
]
