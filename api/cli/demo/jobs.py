"""The demo's two jobs, as a client would POST them."""

from typing import Any

_TWO_THREADS = {"policy": {"cpus_per_worker": 2}, "reference": {"cpus_per_worker": 2}}


def learn_job(model_path: str, file_id: str) -> dict[str, Any]:
    """Job 1: from random weights to a model that answers, mostly curtly. 530 steps of 32 short dialogues."""
    return {
        "name": "demo 1: learn to answer",
        "model": {"source": model_path, "weights": "random"},
        "data": {"train": file_id, "max_length": 128},
        "losses": [{"type": "sft"}],
        "training": {
            "batch_size": 32,
            "learning_rate": 3e-3,
            "epochs": 3,
            "precision": "float32",  # at this size, casting to bfloat16 costs a CPU more than it saves
            "checkpoint_every": 200,
        },
        "resources": _TWO_THREADS,
        "serve": False,
    }


def align_job(base_job_id: str, file_id: str) -> dict[str, Any]:
    """Job 2: courteous and brief over curt, 180 steps of 16 pairs.

    The sigmoid loss sees only the margin, and a model this small widens it by giving up both answers for a third; the
    `sft` term holds on to the chosen one.
    """
    return {
        "name": "demo 2: learn manners",
        "model": f"job:{base_job_id}",
        "data": {"train": file_id, "max_length": 128},
        "losses": [{"type": "sigmoid", "beta": 0.1}, {"type": "sft", "weight": 0.5}],
        "training": {
            "batch_size": 16,
            "learning_rate": 5e-5,
            "epochs": 2,
            "precision": "float32",
            "checkpoint_every": 200,
        },
        "resources": _TWO_THREADS,
        "serve": True,
    }
