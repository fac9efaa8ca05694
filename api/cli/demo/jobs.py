"""The demo's two jobs, as a client would POST them."""

from typing import Any


def learn_job(model_path: str, file_id: str) -> dict[str, Any]:
    """Job 1: from random weights to a model that answers, mostly curtly. About 700 steps of 32 short dialogues."""
    return {
        "name": "demo 1: learn to answer",
        "model": {"source": model_path, "weights": "random"},
        "data": {"train": file_id, "max_length": 128},
        "losses": [{"type": "sft"}],
        "training": {
            "batch_size": 32,
            "learning_rate": 3e-3,
            "epochs": 4,
            "precision": "float32",  # at this size, casting to bfloat16 costs a CPU more than it saves
            "checkpoint_every": 200,
        },
        "serve": False,
    }


def align_job(base_job_id: str, file_id: str) -> dict[str, Any]:
    """Job 2: courteous and brief over curt, one pass over the pairs. A rate much higher costs the answers' truth."""
    return {
        "name": "demo 2: learn manners",
        "model": f"job:{base_job_id}",
        "data": {"train": file_id, "max_length": 128},
        "losses": [{"type": "sigmoid", "beta": 0.1}],
        "training": {"batch_size": 16, "learning_rate": 1e-4, "epochs": 1, "precision": "float32"},
        "serve": True,
    }
