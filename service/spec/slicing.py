"""Which models `parallelism: fsdp` cannot read in slices, told from config.json before a worker is asked for."""

from typing import Any

from service.spec.job import AlignmentJob
from service.spec.training import Parallelism

# Model types whose weights transformers 5.23 holds in another form than their files do, mostly experts that are stored
# one by one and run as one tensor. A test compares them with the transformers installed beside the workers.
STORED_OTHERWISE = frozenset(
    {
        "afmoe",
        "axk1",
        "axk2",
        "bailing_hybrid",
        "beam",
        "cohere2_moe",
        "deepseek_v2",
        "deepseek_v3",
        "deepseek_v32",
        "deepseek_v4",
        "dots1",
        "ernie4_5_moe",
        "exaone_moe",
        "flex_olmo",
        "flint",
        "glm4_moe",
        "glm4_moe_lite",
        "glm_moe_dsa",
        "hrm_text",
        "hunyuan_v1_moe",
        "hy_v3",
        "inkling2_text",
        "jamba",
        "kimi_linear",
        "kolibri1",
        "laguna",
        "lfm2_moe",
        "longcat_flash",
        "mellum",
        "mimo_v2_flash",
        "minimax",
        "minimax_m2",
        "mixtral",
        "nemotron_h",
        "olmo_hybrid",
        "olmoe",
        "phimoe",
        "qwen2_moe",
        "qwen3_5_moe_text",
        "qwen3_moe",
        "qwen3_next",
        "qwen4_exp_text",
        "solar_open",
    }
)


def reads_slices(job: AlignmentJob) -> bool:
    """Whether each training worker reads only its slices of the weights. Random ones are drawn whole."""
    training = job.training
    several = job.resources.policy.workers > 1
    return training.parallelism is Parallelism.FSDP and several and job.model.weights == "pretrained"


def why_not_sliced(config: dict[str, Any]) -> str | None:
    """A sentence about a model with this config.json whose files hold no slices of what runs; None if it seems fit."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in STORED_OTHERWISE:
        return None
    return (
        f"Models of type {model_type} store their weights in another form than they run in, so several workers cannot "
        "each read a slice of them. Set training.parallelism: ddp."
    )
