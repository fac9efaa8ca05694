"""What training did to its pairs: each number against a plain forward pass, however the policy is trained."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from peft import PeftModel
from transformers import AutoModelForCausalLM

from service.spec import AlignmentJob
from service.spec.reports import EventReport, MetricsReport, Report
from tests.models import make_model, make_tokenizer
from tests.workers.runs import make_pairs
from tests.workers.test_shared_prompt import ARCHITECTURES
from tests.workers.training_runs import make_job, make_run
from workers.data.examples import Example
from workers.engine.config import RunConfig
from workers.engine.loop import TrainingRun
from workers.engine.models import load_model
from workers.engine.parallel import Rank
from workers.errors import Paused
from workers.pairs.pieces import Pieces

LORA = {"type": "lora", "rank": 4}
ALL = 16
ROWS = "SELECT * FROM pairs JOIN details USING (row) ORDER BY row"


def ran(config: RunConfig, rank: Rank | None = None, **options: Any) -> list[Report]:
    torch.set_num_threads(1)
    reports: list[Report] = []
    TrainingRun(config, rank or Rank(), reports.append, **options).run()
    return reports


def a_run(root: Path, job: AlignmentJob, architecture: str = "llama") -> RunConfig:
    kind, sizes = ARCHITECTURES[architecture]
    model = make_model(root / "model", kind, **sizes | {"vocab_size": 400})
    return replace(make_run(root / "run", model, job), pairs=root / "run" / "pairs.sqlite")


def whole_batch(**training: Any) -> AlignmentJob:
    """All pairs in every step, so that the means of the first step are over the same pairs as the file's."""
    losses = training.pop("losses", [{"type": "sigmoid"}])
    job = make_job(losses, batch_size=ALL, max_steps=3, learning_rate=1e-2, warmup_ratio=0, **training)
    return job.model_copy(update={"evaluation": job.evaluation.model_copy(update={"held_out_fraction": 0})})


def rows_of(path: Path | None, query: str = ROWS) -> list[dict[str, Any]]:
    assert path is not None
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(query)]


def plain(model: Any, example: Example, at: int) -> NDArray[np.float32]:
    """Log-probs of an answer's tokens by transformers' own forward; NaN where they do not count."""
    answer = example.answers[at]
    ids = torch.tensor(np.concatenate([example.prompt, answer.ids]), dtype=torch.int64)[None]
    with torch.no_grad():
        logps = torch.log_softmax(model(ids).logits[0].float(), -1)
    start = len(example.prompt)
    values = logps[torch.arange(start - 1, ids.shape[1] - 1), ids[0, start:]].numpy()
    return np.where(answer.mask, values, np.nan).astype(np.float32)


def trained_model(config: RunConfig) -> Any:
    if config.job.training.method.type == "full":
        return AutoModelForCausalLM.from_pretrained(config.export, dtype=torch.float32)
    base = AutoModelForCausalLM.from_pretrained(config.start.model, dtype=torch.float32)
    return PeftModel.from_pretrained(base, config.export / "adapter")


@pytest.mark.parametrize("method", [{"type": "full"}, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_each_token_has_the_log_prob_of_a_plain_forward_and_the_margins_are_what_the_loss_saw(
    architecture: str, method: dict[str, Any], tmp_path: Path
) -> None:
    config = a_run(tmp_path, whole_batch(method=method), architecture)
    first = next(one for one in ran(config) if isinstance(one, MetricsReport)).values
    rows = rows_of(config.pairs)
    reference, policy = load_model(config.start.model, random_seed=7).eval(), trained_model(config)
    examples = make_pairs(make_tokenizer())
    assert [row["row"] for row in rows] == [example.row for example in examples]
    for row, example in zip(rows, examples, strict=True):
        assert row["digest"] == example.key
        for at, name in enumerate(("chosen", "rejected")):
            assert row[f"{name}_ids"] == example.answers[at].ids.astype("<i4").tobytes()
            for model, when in ((reference, "before"), (policy, "after")):
                found = np.frombuffer(row[f"{name}_logps_{when}"], "<f4")
                np.testing.assert_allclose(found, plain(model, example, at), rtol=1e-4, atol=1e-4)
                assert row[f"{name}_{when}"] == pytest.approx(float(np.nansum(found.astype(np.float64))))
        assert row["margin_after"] == pytest.approx(row["chosen_after"] - row["rejected_after"])
        assert row["margin_change"] == pytest.approx(row["margin_after"] - row["margin_before"])
    beta = 0.1
    means = {name: np.mean([row[f"{name}_before"] for row in rows]) for name in ("chosen", "rejected")}
    for name, mean in means.items():  # rewards are beta (log p - log q), and log p is a metric too
        assert first[f"logps/{name}"] - first[f"rewards/{name}"] / beta == pytest.approx(mean, rel=1e-4)


@pytest.mark.parametrize(
    "training",
    [
        {"losses": [{"type": "simpo"}]},
        {"losses": [{"type": "sigmoid"}], "reference_sync": {"alpha": 0.6, "every": 1}},
    ],
    ids=["a loss without reference", "a reference that follows the policy"],
)
def test_where_no_reference_stays_the_pairs_are_measured_against_the_start(
    training: dict[str, Any], tmp_path: Path
) -> None:
    config = a_run(tmp_path, whole_batch(**training))
    (told,) = [one for one in ran(config) if isinstance(one, EventReport) and one.type == "pairs.measured"]
    assert told.data["before"] == "start"
    start, example = load_model(config.start.model).eval(), make_pairs(make_tokenizer())[0]
    found = np.frombuffer(rows_of(config.pairs)[0]["chosen_logps_before"], "<f4")
    np.testing.assert_allclose(found, plain(start, example, 0), rtol=1e-4, atol=1e-4)


def test_a_sample_is_the_same_every_time_and_holds_no_pair_that_was_held_out(tmp_path: Path) -> None:
    job = make_job(max_steps=3)
    config = a_run(tmp_path, job.model_copy(update={"evaluation": job.evaluation.model_copy(update={"pairs": 5})}))
    run = TrainingRun(config, Rank(), lambda _: None)
    run.run()
    first = [row["row"] for row in rows_of(config.pairs)]
    ran(replace(config, checkpoints=tmp_path / "again"))
    assert [row["row"] for row in rows_of(config.pairs)] == first == sorted(first)
    held_out = {run._examples[int(i)].row for i in run._order.held_out}
    assert held_out
    assert not held_out & set(first)
    about = dict(rows_of(config.pairs, "SELECT name, value FROM about")[i].values() for i in range(8))
    assert (about["scored"], about["trained"]) == ("5", str(ALL - len(held_out)))


def test_every_order_has_each_pair_once_and_rises(tmp_path: Path) -> None:
    config = a_run(tmp_path, whole_batch())
    ran(config)
    for name in ("margin_before", "margin_after", "margin_change", "most_wrong"):
        ordered = rows_of(config.pairs, f"SELECT {name} AS value, by_{name} AS place FROM pairs ORDER BY by_{name}")
        assert [row["place"] for row in ordered] == list(range(1, ALL + 1))
        values = [row["value"] for row in ordered]
        assert values == sorted(values)


def test_a_disk_that_cannot_take_the_file_costs_the_file_alone(tmp_path: Path) -> None:
    config = a_run(tmp_path, whole_batch())
    (tmp_path / "file").write_text("")
    reports = ran(replace(config, pairs=tmp_path / "file" / "pairs.sqlite"))
    (told,) = [one for one in reports if isinstance(one, EventReport) and one.type == "pairs.failed"]
    assert "could not be written" in told.message
    assert (config.export / "config.json").exists()


def test_a_pause_while_pairs_are_measured_leaves_the_last_step_and_the_rest_is_done_after_it(tmp_path: Path) -> None:
    job = whole_batch(checkpoint_every=3)
    config = a_run(tmp_path, job)
    asked = iter([False] * 3 + [True])
    with pytest.raises(Paused):
        ran(config, pause_asked=lambda: next(asked))
    assert [path.name for path in config.checkpoints.iterdir()] == ["step-00000003"]
    assert not config.pairs.exists()
    reports = ran(config)
    assert not [one for one in reports if isinstance(one, MetricsReport)]
    assert len(rows_of(config.pairs)) == ALL


def test_losses_of_single_answers_and_a_job_that_asks_for_none_leave_no_file(tmp_path: Path) -> None:
    asked_none = whole_batch()
    none = asked_none.model_copy(update={"evaluation": asked_none.evaluation.model_copy(update={"pairs": 0})})
    for name, job in {"none": none, "sft": whole_batch(losses=[{"type": "sft"}])}.items():
        config = a_run(tmp_path / name, job)
        reports = ran(config)
        assert not config.pairs.exists()
        assert "evaluate" not in {getattr(one, "stage", None) for one in reports}


@pytest.mark.parametrize("text", ["plain words", "Grüße, 你好 🙂!", "", " <b>&amp;</b>\n\n\tend ", "🙂"])
def test_pieces_are_as_many_as_the_tokens_and_make_up_the_text(text: str) -> None:
    tokenizer = make_tokenizer()
    ids = tokenizer.encode(text, add_special_tokens=False)
    pieces = Pieces(tokenizer).of(ids)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == text


def test_a_text_that_ends_within_a_character_says_so_at_its_last_token() -> None:
    tokenizer = make_tokenizer()
    ids = tokenizer.encode("a🙂", add_special_tokens=False)[:-1]
    pieces = Pieces(tokenizer).of(ids)
    assert pieces[0] == "a"
    assert pieces[-1] == "\N{REPLACEMENT CHARACTER}"
    assert len(pieces) == len(ids)
