"""Requests that OpenAPI shows, and that a test validates."""

from fastapi.openapi.models import Example

_FILE = "file-019316f0a6b2f3c1d4e5a"

JOBS: dict[str, Example] = {
    "preference pairs": {
        "summary": "DPO with every default",
        "value": {"name": "courteous-v1", "model": "hf:Qwen/Qwen3-0.6B", "data": {"train": _FILE}},
    },
    "LoRA with a weighted SFT term": {
        "summary": "DPO and SFT on adapters",
        "value": {
            "model": "/models/qwen3-0.6b",
            "data": {"train": _FILE, "max_length": 1024, "max_bad_rows": 10},
            "losses": [{"type": "sigmoid", "beta": 0.2}, {"type": "sft", "weight": 0.1}],
            "training": {"method": {"type": "lora", "rank": 16}, "epochs": 2, "batch_size": 64},
        },
    },
    "DPO on an SFT adapter": {
        "summary": "Go on with the adapter that a job published",
        "value": {
            "model": "job:job-019316f0a6b2f3c1d4e5a",
            "data": {"train": _FILE},
            "training": {"method": {"type": "lora", "continue_adapter": True}},
        },
    },
    "from another job": {
        "summary": "Go on from the model that a job published",
        "value": {"model": "job:job-019316f0a6b2f3c1d4e5a", "data": {"train": _FILE}, "serve": False},
    },
}
