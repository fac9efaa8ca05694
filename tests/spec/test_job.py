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


@pytest.mark.parametrize("kind", LossKind)
def test_every_loss_survives_its_way_through_json_with_its_defaults(kind: LossKind) -> None:
    asked = job(losses=[{"type": kind}])
    assert AlignmentJob.model_validate_json(asked.model_dump_json()) == asked
    assert asked.losses[0].type is kind


@pytest.mark.parametrize(
    ("losses", "needed"),
    [
        ([{"type": "sigmoid"}], True),
        ([{"type": "apo_zero"}, {"type": "sft"}], True),
        ([{"type": "sigmoid", "reference_free": True}, {"type": "ipo"}], True),
        ([{"type": "sigmoid", "reference_free": True}, {"type": "sft"}], False),
        ([{"type": "simpo"}], False),
        ([{"type": "cpo"}, {"type": "sft"}], False),
        ([{"type": "orpo"}], False),
    ],
)
def test_a_reference_pass_is_made_if_a_term_with_its_options_needs_one(
    losses: list[dict[str, Any]], needed: bool
) -> None:
    assert job(losses=losses).needs_reference is needed


@pytest.mark.parametrize("losses", [["sft"], ["kto"], ["bco"]])
def test_pairs_are_not_measured_where_there_are_none(losses: list[str]) -> None:
    terms = [{"type": one} for one in losses]
    with pytest.raises(ValidationError, match=r"evaluation\.pairs"):
        job(losses=terms, evaluation={"pairs": 10})
    assert not job(losses=terms, evaluation={"pairs": 0}).has_pairs
    assert job(losses=[{"type": "plackett_luce"}], evaluation={"pairs": 10}).has_pairs


def test_scorers_are_refused_where_the_policy_scores() -> None:
    asked = {"reference_placement": "policy"}
    placed = job(resources=asked)
    assert AlignmentJob.model_validate_json(placed.model_dump_json()) == placed
    with pytest.raises(ValidationError, match=r"leave out `resources\.reference`"):
        job(resources=asked | {"reference": {"workers": 2}})


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
        {"losses": [{"type": "kto"}, {"type": "sigmoid"}]},
        {"losses": [{"type": "plackett_luce"}, {"type": "bco"}]},
        {"losses": [{"type": "hinge", "beta": 0.2, "weight": 2}, {"type": "hinge", "beta": 0.2}]},
        {"losses": [{"type": "simpo"}], "training": {"reference_sync": {}}},
        {"training": {"reference_sync": {}, "method": {"type": "lora"}}},
        {"losses": [{"type": "sigmoid", "f_alpha_divergence_coef": 0.5}]},
        {"losses": [{"type": "sigmoid", "f_divergence": "js", "f_alpha_divergence_coef": 0.5}]},
        {"losses": [{"type": "hinge", "f_divergence": "js", "reference_free": True}]},
        {"losses": [{"type": "nca_pair", "f_divergence": "js"}]},
        {"losses": [{"type": "nca_pair", "reference_free": True}]},
        {"losses": [{"type": "exo_pair", "label_smoothing": 0}]},
        {"losses": [{"type": "robust", "label_smoothing": 0.5}]},
        {"losses": [{"type": "discopop", "discopop_tau": 1.5}]},
        {"losses": [{"type": "cpo", "form": "hinge", "label_smoothing": 0.1}]},
        {"losses": [{"type": "bco_pair", "reward_baseline": "mean"}]},
        {"losses": [{"type": "sigmoid", "ld_alpha": 1.5}]},
        {"losses": [{"type": "sigmoid", "reference_free": True}], "reference": "/models/other"},
        {"losses": [{"type": "simpo"}], "reference": "/models/other"},
        {"losses": [{"type": "kto", "desirable_weight": 0, "undesirable_weight": 0}]},
        {"evaluation": {"held_out_fraction": 0, "every": 5}},
        {"losses": [{"type": "sigmoid", "beta": 0}]},
        {"losses": [{"type": "sigmoid", "beta": float("nan")}]},
        {"losses": [{"type": "sigmoid"}, {"type": "sigmoid"}]},
        {"losses": [{"type": "sft"}], "reference": "/models/other"},
        {"model": "relative/path"},
        {"model": "hf:../.."},
        {"model": "hf:a/b\n"},
        {"model": {"source": "/models/tiny", "weights": "random"}, "serve": False},
        {"model": {"source": "/models/tiny", "weights": "random"}, "losses": [{"type": "sft"}]},
        {"training": {"batch_size": 0}},
        {"training": {"learning_rate": "fast"}},
        {"training": {"batch_size": "3"}},
        {"training": {"batch_size": True}},
        {"losses": [{"type": "sigmoid", "beta": "0.1"}]},
        {"serve": "yes"},
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


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ({"rank": 0}, "rank"),
        ({"alpha": 0}, "alpha"),
        ({"dropout": 1}, "dropout"),
        ({"target_modules": []}, "target_modules"),
        ({"target_modules": [""]}, "target_modules"),
        ({"target_modules": "all"}, "target_modules"),
        ({"target_modules": ["q_proj", "q_proj"]}, "more than once"),
        ({"target_modules": ["q_proj", "lm_head"], "modules_to_save": ["lm_head"]}, "choose one"),
        ({"use_dora": True}, "use_dora"),
        ({"dora": 1}, "dora"),
        ({"continue_adapter": True}, "needs a `model` of the form"),
    ],
)
def test_adapter_options_that_make_no_sense_are_refused(method: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        job(training={"method": {"type": "lora"} | method})


def test_an_adapter_is_continued_from_a_job() -> None:
    asked = job(model="job:job-" + "1" * 21, training={"method": {"type": "lora", "continue_adapter": True}})
    assert asked.continues_adapter
    assert not job(model="job:job-" + "1" * 21).continues_adapter
