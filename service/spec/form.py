"""How a form asks for a job: the fields of its specification in groups, what most people set before what few do."""

from functools import cache
from typing import Any

from pydantic import BaseModel, Field

from service.spec.job import AlignmentJob


class FormGroup(BaseModel):
    title: str
    description: str
    fields: list[str] = Field(description="Dotted paths, in order.", examples=[["data.train", "data.max_length"]])
    advanced: list[str] = Field(description="Further ones, which most jobs leave as they are.")


class JobSchema(BaseModel):
    json_schema: dict[str, Any] = Field(
        description="Of a job, as JSON Schema (draft 2020-12), every field with its title, description, default and "
        "range; `unit`, where a number has one, is an addition of ours."
    )
    groups: list[FormGroup] = Field(description="Every field once, in the order in which a form asks.")


GROUPS = [
    FormGroup(
        title="Model",
        description="What is aligned, and the name of the job for people.",
        fields=["name", "model"],
        advanced=["reference", "metadata", "priority"],
    ),
    FormGroup(
        title="Data",
        description="Preference rows, and how they become tokens.",
        fields=["data.train", "data.max_length", "data.truncation"],
        advanced=[
            "data.validation",
            "data.format",
            "data.scores",
            "data.train_on",
            "data.max_prompt_length",
            "data.max_completion_length",
            "data.max_bad_rows",
        ],
    ),
    FormGroup(
        title="Loss",
        description="One term, or several with weights; the total is their weighted sum.",
        fields=["losses"],
        advanced=[],
    ),
    FormGroup(
        title="Training",
        description="How far and how fast the model moves.",
        fields=["training.method", "training.epochs", "training.batch_size", "training.learning_rate"],
        advanced=[
            "training.max_steps",
            "training.schedule",
            "training.warmup_ratio",
            "training.weight_decay",
            "training.max_grad_norm",
            "training.reference_sync",
            "training.precision",
            "training.parallelism",
            "training.gradient_checkpointing",
            "training.compile",
            "training.micro_batch_tokens",
            "training.checkpoint_every",
            "training.checkpoints_to_keep",
            "training.seed",
        ],
    ),
    FormGroup(
        title="Evaluation and serving",
        description="What is measured on held-out rows, and whether the result is put up beside its base.",
        fields=["evaluation.held_out_fraction", "serve"],
        advanced=["evaluation.every", "evaluation.held_out_max", "evaluation.pairs", "evaluation.kl_budget"],
    ),
    FormGroup(
        title="Resources",
        description="Workers on the cluster's pools, and how long they may be held.",
        fields=["resources.policy.workers", "resources.reference.workers", "resources.max_gpu_hours"],
        advanced=[
            "resources.policy.gpus_per_worker",
            "resources.policy.cpus_per_worker",
            "resources.reference.gpus_per_worker",
            "resources.reference.cpus_per_worker",
            "resources.reference_placement",
            "resources.start_timeout_s",
            "resources.max_failures",
        ],
    ),
]


@cache
def job_schema() -> JobSchema:
    return JobSchema(json_schema=AlignmentJob.model_json_schema(), groups=GROUPS)
