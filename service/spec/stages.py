"""The stages of an attempt, in order."""

from enum import StrEnum


class Stage(StrEnum):
    PREPARE = "prepare"  # rows -> token sequences
    REFERENCE = "reference"  # log-probs under the reference model, for pairs the store lacks
    TRAIN = "train"  # optimizer steps, then held-out metrics
    EVALUATE = "evaluate"  # what training did to its pairs (service.spec.pairs); by the policy's workers
    PUBLISH = "publish"  # the model directory, moved into place
