"""What the demo teaches, and what it keeps from the second job."""

from pathlib import Path

import pytest

from api.cli.demo.data import COURTEOUS, CURT, NEUTRAL, answer_rows, preference_rows, texts, write_rows
from api.cli.demo.facts import facts, held_out_questions
from api.cli.demo.judge import judge
from service.spec.rows import Row, RowNeeds, read_rows
from service.spec.shapes import DataShape


@pytest.mark.parametrize(("make", "need"), [(answer_rows, DataShape.ANSWERS), (preference_rows, DataShape.PAIRS)])
def test_rows_are_the_same_each_time_and_all_usable(tmp_path: Path, make, need) -> None:
    first, second = tmp_path / "first.jsonl.gz", tmp_path / "second.jsonl.gz"
    write_rows(first, make())
    write_rows(second, make())
    assert first.read_bytes() == second.read_bytes()
    assert first.stat().st_size < 200_000
    rows = list(read_rows(first, RowNeeds(need)))
    assert len(rows) > 1000
    assert all(isinstance(row, Row) for row in rows)


def test_job_2_sees_no_held_out_question_sentence_or_answer() -> None:
    said = "\n".join(texts(preference_rows())).lower()
    for fact in facts(held_out=True):
        assert f" {fact.answer.lower()}." not in said
        assert f"\n{fact.answer.lower()}" not in said
        assert fact.sentence.lower() not in said
        assert not any(question.lower() in said for question in fact.questions)


def test_job_1_teaches_every_fact_and_is_mostly_curt() -> None:
    rows = answer_rows()
    asked = {row["prompt"][0]["content"] for row in rows}
    everything = [*facts(held_out=False), *facts(held_out=True)]
    assert asked == {question for fact in everything for question in fact.questions}
    kind = tuple(style.split("{")[0] for style in COURTEOUS)
    courteous = sum(row["completion"][0]["content"].startswith(kind) for row in rows)
    assert 0 < courteous < 0.25 * len(rows)


def test_no_question_has_two_answers() -> None:
    everything = [*facts(held_out=False), *facts(held_out=True)]
    questions = [question for fact in everything for question in fact.questions]
    assert len(questions) == len(set(questions))


def test_every_held_out_fact_is_asked_for_once_in_all_ways() -> None:
    asked = held_out_questions()
    assert [fact for fact, _ in asked] == facts(held_out=True)
    assert {fact.questions.index(question) for fact, question in asked} == {0, 1, 2, 3}


@pytest.mark.parametrize("fact", [*facts(held_out=False), *facts(held_out=True)], ids=lambda fact: fact.sentence)
def test_the_judge_tells_the_styles_apart_for_every_fact(fact) -> None:
    def preferred(style: str) -> bool:
        answer = style.format(sentence=fact.sentence)
        return judge(answer, fact, finished=True).preferred

    assert all(preferred(style) for style in COURTEOUS)
    assert not any(preferred(style) for style in (*CURT, *NEUTRAL))
