"""What a job may ask for, and what is refused."""

from typing import Any

import pytest
from pydantic import ValidationError

from service.spec import AlignmentJob, LossKind

FILE = "file-" + "0" * 21


def job(**fields: Any) -> AlignmentJob:
    return AlignmentJob.model_validate({"model": "/models/tiny", "data": {"train": FILE}} | fields)


def test_the_smallest_job_is_full_dpo_with_documented_defaults() -> None:
    smallest = job()
    assert [loss.type for loss in smallest.losses] == [LossKind.SIGMOID]
    assert smallest.training.method.type == "full"
    assert smallest.learning_rate == 1e-6
    assert smallest.model.source == "/models/tiny"


@pytest.mark.parametrize(
    ("losses", "method", "rate"),
    [("sigmoid", "lora", 1e-5), ("sft", "full", 2e-5), ("sft", "lora", 2e-4)],
)
def test_the_default_learning_rate_follows_what_is_trained(losses: str, method: str, rate: float) -> None:
    asked = job(losses=[{"type": losses}], training={"method": {"type": method}})
    assert asked.learning_rate == pytest.approx(rate)


def test_a_spec_survives_its_way_through_json() -> None:
    asked = job(losses=[{"type": "sigmoid", "beta": 0.3}, {"type": "sft", "weight": 0.5}], reference="hf:a/b")
    assert AlignmentJob.model_validate_json(asked.model_dump_json()) == asked


@pytest.mark.parametrize(
    "fields",
    [
        {"unknown": 1},
        {"losses": []},
        {"losses": [{"type": "sigmoidd"}]},
        {"losses": [{"type": "sft", "beta": 0.1}]},
        {"losses": [{"type": "sigmoid", "beta": 0}]},
        {"losses": [{"type": "sigmoid", "beta": float("nan")}]},
        {"losses": [{"type": "sigmoid"}, {"type": "sigmoid"}]},
        {"losses": [{"type": "sft"}], "reference": "/models/other"},
        {"model": "relative/path"},
        {"model": {"source": "/models/tiny", "weights": "random"}, "serve": False},
        {"model": {"source": "/models/tiny", "weights": "random"}, "losses": [{"type": "sft"}]},
        {"training": {"batch_size": 0}},
        {"training": {"learning_rate": "fast"}},
        {"data": {"train": "not-a-file"}},
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        job(**fields)


def test_every_field_says_what_it_means() -> None:
    schema = AlignmentJob.model_json_schema()
    undocumented = [
        f"{name}.{field}"
        for name, model in {**schema["$defs"], "AlignmentJob": schema}.items()
        for field, declared in model.get("properties", {}).items()
        if field != "type" and "description" not in declared and "$ref" not in declared
    ]
    assert undocumented == []
