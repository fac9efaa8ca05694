"""Preparing a file of rows, and the order of training."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from service.spec import AlignmentJob
from service.spec.data_report import DataReport
from workers.data.example_file import ExampleFile
from workers.data.order import TrainingOrder
from workers.data.prepare import prepare, require_usable
from workers.errors import AttemptError


def job(**fields: Any) -> AlignmentJob:
    base = {"model": "/m", "data": {"train": "file-" + "0" * 21}}
    return AlignmentJob.model_validate(base | fields)


def rows(path: Path, *values: Any) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


def run(job: AlignmentJob, source: Path, tokenizer: PreTrainedTokenizerFast) -> DataReport:
    report = prepare(job, source, source.parent / "pairs.arrow", tokenizer, lambda _: None)
    require_usable(report, job.data.max_bad_rows)
    return report


GOOD = {"prompt": "a", "chosen": "b", "rejected": "c"}
EQUAL = {"prompt": "a", "chosen": "b", "rejected": "b"}


def test_pairs_come_back_from_the_file_as_they_went_in(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    source = rows(tmp_path / "rows.jsonl", GOOD, {"prompt": "what", "chosen": "yes yes", "rejected": "no"})
    report = run(job(), source, tokenizer)
    pairs = ExampleFile(tmp_path / "pairs.arrow")
    assert (report.rows, report.used, len(pairs)) == (2, 2, 2)
    assert tokenizer.decode(pairs[1].prompt) == "what"
    assert tokenizer.decode(pairs[1].answers[0].ids) == "yes yes<|im_end|>"
    assert tokenizer.decode(pairs[1].answers[1].ids) == "no<|im_end|>"
    assert pairs[1].row == 2


def test_a_bad_row_refuses_the_job_and_is_named(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(AttemptError, match=r"dataset_invalid.*row 2.*equal") as error:
        run(job(), rows(tmp_path / "rows.jsonl", GOOD, EQUAL), tokenizer)
    assert "max_bad_rows" in error.value.message


def test_bad_rows_within_the_allowance_are_left_out_and_listed(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    allowed = job(data={"train": "file-" + "0" * 21, "max_bad_rows": 1})
    report = run(allowed, rows(tmp_path / "rows.jsonl", GOOD, EQUAL), tokenizer)
    assert (report.used, report.bad) == (1, 1)
    assert report.problems[0].row == 2


def test_an_empty_file_refuses_the_job(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(AttemptError, match="the file is empty"):
        run(job(), rows(tmp_path / "rows.jsonl"), tokenizer)


def test_a_second_attempt_reuses_what_the_first_prepared(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    source = rows(tmp_path / "rows.jsonl", GOOD)
    first = run(job(), source, tokenizer)
    source.unlink()
    assert run(job(), source, tokenizer) == first


def test_several_processes_prepare_the_same_file_and_report_as_one(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    values = [{"prompt": f"q {i}", "chosen": f"a {i % 7}", "rejected": f"b {i % 7}"} for i in range(2000)]
    source = rows(tmp_path / "rows.jsonl", *values, EQUAL, EQUAL)
    made = []
    for processes in (1, 2):
        target = tmp_path / f"{processes}.arrow"
        report = prepare(job(), source, target, tokenizer, lambda _: None, processes=processes)
        made.append((target.read_bytes(), report))
    assert made[0] == made[1]
    assert (report.used, report.bad) == (2000, 2)


def test_a_loss_with_a_kl_term_gets_partners_of_the_first_answers(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    values = [{"prompt": p, "completion": c, "label": True} for p, c in [("a", "b"), ("a", "c"), ("d", "e")]]
    source = rows(tmp_path / "rows.jsonl", *values)
    run(job(losses=[{"type": "kto"}]), source, tokenizer)
    made = ExampleFile(tmp_path / "pairs.arrow")
    answers = [[tokenizer.decode(answer.ids) for answer in made[i].answers] for i in range(3)]
    assert answers == [
        ["b<|im_end|>", "e<|im_end|>"],
        ["c<|im_end|>", "e<|im_end|>"],
        ["e<|im_end|>", "b<|im_end|>"],
    ]


def test_the_report_of_a_refused_job_says_why(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    source = rows(tmp_path / "rows.jsonl", GOOD, EQUAL)
    report = prepare(job(), source, tmp_path / "pairs.arrow", tokenizer, lambda _: None)
    assert [(reason.code, reason.rows) for reason in report.reasons] == [("answers_equal", [2])]
    with pytest.raises(AttemptError, match="dataset_invalid"):
        require_usable(report, 0)
    require_usable(report, 1)


def order(num_pairs: int, **training: Any) -> TrainingOrder:
    return TrainingOrder(job(training=training, evaluation={"held_out_fraction": 0.1}), range(num_pairs))


def test_each_epoch_visits_every_training_pair_once_and_no_held_out_one() -> None:
    two = order(100, epochs=2, batch_size=7)
    visits = np.concatenate([two.step(step) for step in range(two.num_steps)])
    assert len(two.held_out) == 10
    assert set(Counter(visits.tolist()).values()) == {2}
    assert set(visits.tolist()) == set(range(100)) - set(two.held_out.tolist())


def test_the_order_follows_the_seed_and_can_be_entered_anywhere() -> None:
    one, same, other = order(50, batch_size=8), order(50, batch_size=8), order(50, batch_size=8, seed=1)
    assert one.step(3).tolist() == same.step(3).tolist()
    assert one.step(3).tolist() != other.step(3).tolist()


def test_first_visits_are_every_needed_pair_once_in_training_order() -> None:
    short = order(100, epochs=3, batch_size=10, max_steps=4)
    visits = short.first_visits().tolist()
    assert short.num_steps == 4
    assert visits[:10] == short.step(0).tolist()
    assert len(visits) == len(set(visits)) == 40 + 10


def test_held_out_rows_that_are_measured_on_the_way_are_needed_then() -> None:
    asked = job(training={"batch_size": 10}, evaluation={"held_out_fraction": 0.1, "every": 2})
    early = TrainingOrder(asked, range(100))
    visits = early.first_visits().tolist()
    assert visits[20:30] == early.held_out.tolist()
    assert sorted(visits) == list(range(100))


def test_both_answers_of_a_pair_are_held_out_or_neither() -> None:
    rows = np.repeat(np.arange(50), 2)
    halves = TrainingOrder(job(training={}, evaluation={"held_out_fraction": 0.3}), rows)
    assert len(halves.held_out) == 30
    assert set(Counter(rows[halves.held_out].tolist()).values()) == {2}


def test_rows_of_a_validation_file_are_measured_and_no_others_held_out(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    train = rows(tmp_path / "train.jsonl", *(GOOD | {"prompt": f"p{number}"} for number in range(30)))
    other = rows(tmp_path / "validation.jsonl", GOOD, EQUAL, GOOD | {"prompt": "p3"})
    asked = job(data={"train": "file-" + "0" * 21, "validation": "file-" + "1" * 21})
    target = tmp_path / "pairs.arrow"
    report = prepare(asked, train, target, tokenizer, lambda _: None, validation=other)
    assert (report.rows, report.used, report.overlap.held_out) == (33, 32, 2)
    assert (report.reasons[0].rows, report.overlap.shared.rows) == ([-2], [-3])
    examples = ExampleFile(target)
    drawn = TrainingOrder(asked, examples.rows)
    assert [examples[position].row for position in drawn.held_out.tolist()] == [-1, -3]
    assert {examples[position].row for position in drawn.step(0).tolist()} == set(range(1, 31))
    require_usable(report, 1, validated=True)

    none = rows(tmp_path / "none.jsonl", EQUAL)
    report = prepare(asked, train, tmp_path / "none.arrow", tokenizer, lambda _: None, validation=none)
    with pytest.raises(AttemptError, match=r"No row of data\.validation"):
        require_usable(report, 1, validated=True)


def test_a_single_row_is_trained_on_and_not_held_out() -> None:
    assert order(1).step(0).tolist() == [0]
