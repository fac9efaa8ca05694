from typing import Any

import pytest

from api.openai.request import FineTuningRequest
from api.openai.translate import alignment_job
from service.errors import InvalidRequest, UnknownLoss
from service.spec import AlignmentJob

FILE = "file-" + "0" * 21
BASE = {"model": "/models/tiny", "training_file": FILE}


def translated(**fields: Any) -> AlignmentJob:
    return alignment_job(FineTuningRequest.model_validate(BASE | fields))[0]


def refused(**fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as error:
        translated(**fields)
    return error.value


def dpo(**hyperparameters: Any) -> dict[str, Any]:
    return {"type": "dpo", "dpo": {"hyperparameters": hyperparameters}}


def job(**fields: Any) -> AlignmentJob:
    return AlignmentJob.model_validate({"model": "/models/tiny", "data": {"train": FILE}} | fields)


@pytest.mark.parametrize(
    "auto", [{}, dict.fromkeys(["beta", "n_epochs", "batch_size", "learning_rate_multiplier"], "auto")]
)
def test_what_is_left_open_is_our_default(auto: dict[str, str]) -> None:
    assert translated(method=dpo(**auto)) == job(losses=[{"type": "sigmoid"}])


def test_every_field_has_its_place() -> None:
    assert translated(
        method=dpo(beta=0.2, n_epochs=3, batch_size=8, learning_rate_multiplier=2),
        suffix="courteous",
        seed=5,
        metadata={"team": "a"},
    ) == job(
        losses=[{"type": "sigmoid", "beta": 0.2}],
        training={"epochs": 3, "batch_size": 8, "learning_rate": 2e-6, "seed": 5},
        name="courteous",
        metadata={"team": "a"},
    )


def test_supervised_is_the_default_and_takes_the_deprecated_hyperparameters() -> None:
    expected = job(losses=[{"type": "sft"}], training={"epochs": 2})
    assert translated(hyperparameters={"n_epochs": 2}) == expected
    assert translated(method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}}) == expected


def test_the_multiplier_is_of_the_rate_that_the_whole_job_would_have() -> None:
    lora = {"training": {"method": {"type": "lora"}}}
    assert translated(method=dpo(learning_rate_multiplier=0.5), plumbline=lora).learning_rate == pytest.approx(5e-6)
    assert translated(hyperparameters={"learning_rate_multiplier": 0.5}, plumbline=lora).learning_rate == pytest.approx(
        1e-4
    )


def test_what_is_ours_is_laid_over_the_rest() -> None:
    ours = {
        "model": {"source": "/models/tiny", "weights": "pretrained"},
        "losses": [{"type": "kto"}],
        "training": {"warmup_ratio": 0.2, "batch_size": 8},
        "metadata": {"b": "2"},
        "serve": False,
    }
    assert translated(
        hyperparameters={"n_epochs": 2, "batch_size": 8}, metadata={"a": "1"}, seed=3, plumbline=ours
    ) == job(
        losses=[{"type": "kto"}],
        training={"warmup_ratio": 0.2, "batch_size": 8, "epochs": 2, "seed": 3},
        metadata={"a": "1", "b": "2"},
        serve=False,
    )


@pytest.mark.parametrize(
    ("fields", "ours", "field", "said"),
    [
        ({"method": dpo(batch_size=8)}, {"training": {"batch_size": 4}}, "training.batch_size", "method.dpo.hyper"),
        ({"method": dpo(n_epochs=2)}, {"training": {"epochs": 3}}, "training.epochs", "dpo.hyperparameters.n_epochs"),
        ({"method": dpo(beta=0.1)}, {"losses": [{"type": "ipo"}]}, "losses", "dpo.hyperparameters.beta"),
        (
            {"hyperparameters": {"learning_rate_multiplier": 1}},
            {"training": {"learning_rate": 1e-6}},
            "training.learning_rate",
            "hyperparameters.learning_rate_multiplier",
        ),
        ({"method": {"type": "dpo"}}, {"losses": [{"type": "sft"}]}, "losses", "method.type"),
        ({"method": {"type": "supervised"}}, {"losses": [{"type": "sigmoid"}]}, "losses", "method.type"),
        ({"seed": 1}, {"training": {"seed": 2}}, "training.seed", "`seed`"),
        ({"suffix": "a"}, {"name": "b"}, "name", "suffix"),
        ({"metadata": {"a": "1"}}, {"metadata": {"a": "2"}}, "metadata.a", "metadata"),
        ({}, {"model": "/models/other"}, "model.source", "model"),
        ({}, {"data": {"train": "/data/rows"}}, "data.train", "training_file"),
    ],
)
def test_what_is_ours_may_not_contradict_the_rest(
    fields: dict[str, Any], ours: dict[str, Any], field: str, said: str
) -> None:
    error = refused(**fields, plumbline=ours)
    assert error.extra["field"] == f"plumbline.{field}"
    assert said in error.detail


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"method": dpo(batch_size=0)}, "method.dpo.hyperparameters.batch_size"),
        ({"method": dpo(beta=1000)}, "method.dpo.hyperparameters.beta"),
        ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"learning_rate_multiplier": 1e9}}, "hyperparameters.learning_rate_multiplier"),
        ({"seed": -1}, "seed"),
        ({"model": "gpt-4o-mini"}, "model"),
        ({"training_file": "nonsense"}, "training_file"),
        ({"plumbline": {"data": {"max_length": 1}}}, "plumbline.data.max_length"),
        ({"plumbline": {"data": "x"}}, "plumbline.data"),
        ({"plumbline": {"training": [1]}}, "plumbline.training"),
        ({"plumbline": {"zzz": 1}}, "plumbline.zzz"),
    ],
)
def test_a_value_that_cannot_be_is_told_by_its_name_in_the_request(fields: dict[str, Any], field: str) -> None:
    error = refused(**fields)
    assert [one["field"] for one in error.extra["errors"]] == [field]
    assert error.detail.startswith(f"{field}: ")


def test_an_unknown_loss_keeps_its_code() -> None:
    assert isinstance(refused(plumbline={"losses": [{"type": "tpo"}]}), UnknownLoss)
