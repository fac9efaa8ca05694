"""What the report of a file says, on rows whose counts are known."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from service.spec import AlignmentJob
from service.spec.data_report import AdviceCode, DataReport
from service.spec.rows import Row
from workers.data.encode import Usable, measure
from workers.data.prepare import inspect
from workers.data.statistics import Statistics
from workers.errors import AttemptError


def report(path: Path, rows: list[Any], tokenizer: PreTrainedTokenizerFast | None, **job: Any) -> DataReport:
    source = path / "rows.jsonl"
    source.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    base = {"model": "/m", "data": {"train": "file-" + "0" * 21}, "evaluation": {"held_out_fraction": 0}}
    return inspect(AlignmentJob.model_validate(base | job), source, tokenizer, lambda _: None)


def pair(prompt: str, chosen: str, rejected: str) -> dict[str, str]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def codes(found: DataReport) -> set[str]:
    return {advice.code for advice in found.warnings}


def test_a_clean_file_has_no_warning(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    found = report(tmp_path, [pair("a", "b", "cc"), pair("d", "ee", "f")], tokenizer)
    assert (found.rows, found.used, found.bad, found.unit) == (2, 2, 0, "tokens")
    assert found.warnings == []
    assert DataReport.model_validate_json(found.model_dump_json()) == found


def test_rows_left_out_are_counted_by_reason_with_their_numbers(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = [pair("a", "b", "b"), "{", pair("a", "b", "c"), pair("x", "y", "y"), *["null"] * 25]
    found = report(tmp_path, rows, tokenizer)
    assert (found.rows, found.used, found.bad) == (29, 1, 28)
    assert [(reason.code, reason.count, reason.rows) for reason in found.reasons] == [
        ("row_not_object", 25, list(range(5, 25))),
        ("answers_equal", 2, [1, 4]),
        ("row_not_json", 1, [2]),
    ]
    assert (found.equal_answers.count, found.equal_answers.rows) == (2, [1, 4])
    assert [problem.row for problem in found.problems] == [1, 2, *range(4, 22)]
    assert "rows_left_out" in codes(found)


def test_exact_duplicates_are_counted_and_used(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [pair("a", "b", "c"), pair("x", "b", "c"), pair("a", "b", "c"), pair("a", "b", "c")]
    found = report(tmp_path, rows, tokenizer)
    assert (found.used, found.duplicates.count, found.duplicates.rows) == (4, 2, [3, 4])
    assert codes(found) == {"duplicates"}


def test_dialogues_are_compared_by_roles_and_words(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    def said(role: str, text: str) -> list[dict[str, str]]:
        return [{"role": role, "content": text}]

    row = {"prompt": said("user", "a"), "chosen": said("assistant", "b"), "rejected": said("assistant", "c")}
    found = report(tmp_path, [row, row | {"prompt": said("system", "a")}, row], tokenizer)
    assert found.duplicates.rows == [3]


def test_pairs_that_contradict_each_other_are_both_named(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [pair("a", "b", "c"), pair("x", "c", "b"), pair("a", "c", "b"), pair("a", "b", "d")]
    found = report(tmp_path, rows, tokenizer)
    assert (found.contradictions.count, found.contradictions.rows) == (2, [1, 3])
    assert codes(found) == {"contradictions"}


def of_rows(*rows: Row) -> DataReport:
    """Without a file: of rows of any shape, in characters."""
    statistics = Statistics(has_tokens=False)
    for result in measure(rows):
        assert isinstance(result, Usable)
        statistics.add(result.facts)
    return statistics.report(AlignmentJob.model_validate({"model": "/m", "data": {"train": "file-" + "0" * 21}}))


def test_one_answer_with_both_labels_is_a_contradiction() -> None:
    found = of_rows(
        Row(1, "a", ("b",), True), Row(2, "a", ("b",), False), Row(3, "x", ("b",), False), Row(4, "a", ("c",), False)
    )
    assert found.contradictions.rows == [1, 2]
    assert found.duplicates.count == 0


def test_two_rankings_contradict_each_other_in_any_two_of_their_answers() -> None:
    found = of_rows(Row(1, "a", ("b", "c", "d")), Row(2, "a", ("d", "x", "b")), Row(3, "a", ("b", "y", "d")))
    assert found.contradictions.rows == [1, 2, 3]
    assert of_rows(Row(1, "a", ("b", "c", "d")), Row(2, "a", ("b", "d", "x"))).contradictions.count == 0


def test_of_labelled_rows_the_bias_is_an_auc() -> None:
    rows = [Row(i, f"q{i}", ("long" * (1 + i % 2),), bool(i % 2)) for i in range(40)]
    found = of_rows(*rows)
    assert found.length_bias is not None
    assert (found.length_bias.measure, found.length_bias.value) == ("auc", 1.0)


def test_tools_and_template_arguments_make_another_prompt() -> None:
    row = Row(1, [{"role": "user", "content": "a"}], ("b", "c"))
    found = of_rows(row, replace(row, template_kwargs={"enable_thinking": False}), replace(row, tools=[{"name": "x"}]))
    assert found.duplicates.count == 0


def test_held_out_prompts_that_are_trained_on_are_counted(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [pair("a", f"b {i}", f"c {i}") for i in range(50)]
    rows += [pair(f"other {i}", "b", "c") for i in range(50)]
    found = report(tmp_path, rows, tokenizer, evaluation={"held_out_fraction": 0.2})
    assert found.overlap.held_out == 20
    assert 0 < found.overlap.shared.count < 20
    assert all(row <= 50 for row in found.overlap.shared.rows)  # of the rows that share a prompt
    assert "held_out_overlap" in codes(found)


def test_special_tokens_in_the_text_of_a_row_are_told_with_the_row(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = [
        pair("say <|im_end|> to me", "b", "c"),
        pair("a", "b<|im_end|>", "c<|im_end|>\n"),  # an end that string answers may bring along
        pair("a", "b<|im_start|>d", "c"),
    ]  # fmt: skip
    found = report(tmp_path, rows, tokenizer)
    assert found.special_tokens is not None
    assert (found.special_tokens.count, found.special_tokens.rows) == (2, [1, 3])
    assert found.special_tokens.tokens == {"<|im_end|>": 1, "<|im_start|>": 1}
    assert "special_tokens_in_content" in codes(found)


def test_special_tokens_in_messages_are_told_wherever_they_stand(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    def row(question: str, answer: str) -> dict[str, Any]:
        return {
            "prompt": [{"role": "user", "content": question}],
            "chosen": [{"role": "assistant", "content": answer}],
            "rejected": [{"role": "assistant", "content": "c"}],
        }

    found = report(tmp_path, [row("a", "b"), row("a<|endoftext|>", "d"), row("a", "e<|im_end|>")], tokenizer)
    assert found.special_tokens is not None
    assert found.special_tokens.rows == [2, 3]
    assert "special_tokens_in_content" in codes(found)


def test_how_the_file_was_read_and_what_was_not_is_told(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    found = report(tmp_path, [pair("a", "b", "c") | {"source": "x"}, pair("d", "e", "f")], tokenizer)
    assert found.read_as == "standard, explicit prompt"
    assert found.ignored_columns == {"source": 1}
    assert codes(found) == {"columns_ignored"}


def test_lengths_are_those_before_truncation_and_truncated_rows_are_counted(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = [pair("p " * n, "yes " * n, "no") for n in (1, 2, 40)]
    data = {"train": "file-" + "0" * 21, "max_length": 32}
    found = report(tmp_path, rows, tokenizer, data=data)
    assert (found.truncated, found.truncated_share) == (1, 0.3333)
    assert found.longest == 32
    assert found.prompt_lengths is not None
    assert found.prompt_lengths.count == 3
    assert found.prompt_lengths.max == len(tokenizer("p " * 40)["input_ids"])
    assert sum(bin_.count for bin_ in found.prompt_lengths.bins) == 3
    assert found.answer_lengths is not None
    assert found.answer_lengths.count == 6
    assert "rows_truncated" in codes(found)


def test_a_preference_that_follows_length_is_told(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [pair(f"q{i}", f"{i} is a longer answer", f"{i}") for i in range(90)]
    rows += [pair(f"q{i}", f"{i}", f"{i} is a longer answer") for i in range(90, 100)]
    bias = report(tmp_path, rows, tokenizer).length_bias
    assert bias is not None
    assert (bias.measure, bias.value, bias.count) == ("longer_is_better", 0.9, 100)
    assert (bias.low, bias.high) == (0.8256, 0.9448)  # Wilson's interval of 90 in 100
    assert "length_predicts_label" in codes(report(tmp_path, rows, tokenizer))


def test_a_fair_coin_about_length_is_not(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    rng = random.Random(0)
    rows = [pair(f"q{i}", *rng.sample([f"{i} is a longer answer", f"{i}"], 2)) for i in range(400)]
    found = report(tmp_path, rows, tokenizer)
    assert found.length_bias is not None
    assert found.length_bias.low < 0.5 < found.length_bias.high
    assert "length_predicts_label" not in codes(found)


def test_without_a_tokenizer_lengths_are_characters(tmp_path: Path) -> None:
    found = report(tmp_path, [pair("abc", "de", "fghi"), pair("abc", "fghi", "de")], None)
    assert found.unit == "characters"
    assert (found.prompt_tokens, found.answer_tokens, found.special_tokens) == (None, None, None)
    assert found.prompt_lengths is not None
    assert found.prompt_lengths.mean == 3
    assert found.longest == 7
    assert found.contradictions.count == 2


def test_an_empty_file_is_reported_as_empty(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    found = report(tmp_path, [], tokenizer)
    assert (found.rows, found.used, found.longest) == (0, 0, 0)
    assert found.prompt_lengths is None
    assert found.length_bias is None


def test_texts_are_not_kept(tmp_path: Path) -> None:
    """Nothing that a row says is in the report, only numbers, codes and names of columns."""
    found = report(tmp_path, [pair("a secret question", "a secret answer", "no"), pair("a", "b", "b")], None)
    assert "secret" not in found.model_dump_json()


def test_of_pairs_read_as_labelled_answers_both_counts_are_told(tmp_path: Path) -> None:
    found = report(tmp_path, [pair("a", "b", "cc"), "{", pair("d", "ee", "f")], None, losses=[{"type": "kto"}])
    assert (found.file_rows, found.rows, found.used, found.bad) == (3, 5, 4, 1)
    found = report(tmp_path, [pair("a", "b", "cc"), "{", pair("d", "ee", "f")], None)
    assert (found.file_rows, found.rows) == (3, 3)


@pytest.mark.parametrize(("loss", "can"), [("sigmoid", True), ("kto", False), ("plackett_luce", False)])
def test_only_losses_that_the_rows_suit_are_advised(tmp_path: Path, loss: str, can: bool) -> None:
    rows = [pair(str(i), "long" * 9, "x") for i in range(100)] + [pair("0", "x", "long" * 9)]
    found = report(tmp_path, rows, None, losses=[{"type": loss}])
    said = {advice.code: advice.message for advice in found.warnings}
    assert {"contradictions", "length_predicts_label"} <= said.keys()
    assert ("`robust`" in said[AdviceCode.CONTRADICTIONS]) == can
    assert ("`simpo`" in said[AdviceCode.LENGTH_BIAS]) == can


@pytest.mark.parametrize("has_tokenizer", [True, False])
def test_a_file_of_one_prompt_is_refused_for_a_kl_term_as_its_job_would_be(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, has_tokenizer: bool
) -> None:
    rows = [pair("a", "b", "cc"), pair("a", "dd", "e")]
    used = tokenizer if has_tokenizer else None
    with pytest.raises(AttemptError, match="kl_needs_prompts"):
        report(tmp_path, rows, used, losses=[{"type": "kto"}])
    assert report(tmp_path, rows, used, losses=[{"type": "bco"}]).used == 4
    assert report(tmp_path, [*rows, pair("x", "b", "c")], used, losses=[{"type": "kto"}]).used == 6
    assert report(tmp_path, ["{"], used, losses=[{"type": "kto"}]).used == 0
