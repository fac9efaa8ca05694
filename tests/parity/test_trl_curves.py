"""Fifty optimizer steps of ours against fifty of TRL's DPOTrainer, from the same weights, pairs and order."""

import json
from pathlib import Path
from typing import Any

import pytest
from peft import set_peft_model_state_dict
from peft.utils import load_peft_weights

from service.spec import Precision
from tests.encoding import RowEncoder
from tests.models import make_tokenizer
from tests.parity.start import CURVES, NUM_STEPS, digest, make_job, make_rows, make_start
from workers.data.examples import Example
from workers.data.order import TrainingOrder
from workers.engine.adapters import adapt
from workers.engine.models import load_model, split
from workers.engine.parallel import Rank
from workers.engine.trainer import Trainer
from workers.reference.scorer import score
from workers.reference.store import Score

RECORDED: list[dict[str, Any]] = json.loads(CURVES.read_text())["curves"]
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_start(tmp_path_factory.mktemp("start"))


@pytest.fixture(scope="module")
def pairs() -> list[Example]:
    encode = RowEncoder(make_tokenizer(), max_length=512, truncation="error")
    return [encode(row) for row in make_rows()]


@pytest.fixture(scope="module")
def scores(start: Path, pairs: list[Example]) -> list[Score]:
    return score(split(load_model(start).eval()), pairs, Precision.FLOAT32, 1024)


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda one: f"{one['losses']}-{one['method']}")
def test_each_step_has_the_loss_that_trl_has(
    recorded: dict[str, Any], start: Path, pairs: list[Example], scores: list[Score]
) -> None:
    job = make_job(recorded["losses"], recorded["method"])
    base = load_model(start)
    lm = split(base)
    model = adapt(base, job.training.method, job.training.seed)
    if recorded["method"] == "lora":
        set_peft_model_state_dict(model, load_peft_weights(str(start / "adapter"), device="cpu"))
    order = TrainingOrder(job, range(len(pairs)))
    trainer = Trainer(job, model, lm, order, Rank())

    losses: list[float] = []
    trained_on: list[list[int]] = []
    for step in range(NUM_STEPS):
        positions = order.step(step)
        for pair in (pairs[i] for i in positions):
            trained_on += [pair.prompt.tolist(), *(answer.ids.tolist() for answer in pair.answers)]
        metrics = trainer.step(step, [pairs[i] for i in positions], [scores[i] for i in positions])
        losses.append(metrics["loss"])

    assert digest(trained_on) == recorded["ids_sha256"], "the token ids are not those that TRL trained on"
    assert losses == pytest.approx(recorded["per_step"], rel=0, abs=TOLERANCE)
    assert abs(losses[-1] - losses[0]) > 0.3  # a curve, not a line


def test_every_loss_is_recorded_with_and_without_adapters() -> None:
    curves = {(one["losses"], one["method"]) for one in RECORDED}
    assert curves == {(losses, method) for losses in ("sigmoid", "ipo", "sigmoid+sft") for method in ("full", "lora")}
