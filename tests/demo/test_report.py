"""From the API's comparisons to what the demo claims."""

import pytest
from rich.console import Console

from api.cli.demo.facts import held_out_questions
from api.cli.demo.jobs import align_job, learn_job
from api.cli.demo.report import Answered, answered, render, shares
from api.cli.demo.run import _require_shift
from api.cli.errors import CliError
from api.views import Comparison
from service.ids import new_id
from service.spec import AlignmentJob


def comparison(base: str, aligned: str, finish_reason: str = "stop") -> Comparison:
    return Comparison.model_validate(
        {
            "base": {"text": base, "finish_reason": finish_reason, "usage": {}},
            "aligned": {"text": aligned, "finish_reason": finish_reason, "usage": {}},
            "seed": 0,
        }
    )


def answers(kind_from: int) -> list[Answered]:
    """Curt base answers throughout; aligned ones that are courteous from this question on."""
    return [
        answered(fact, question, comparison(f"{fact.answer}.", fact.sentence + (" Gladly!" if i >= kind_from else "")))
        for i, (fact, question) in enumerate(held_out_questions())
    ]


def test_shares_count_each_property_by_itself() -> None:
    judged = [answer.aligned_verdict for answer in answers(kind_from=15)]
    share = shares(judged)
    assert (share.right, share.brief) == (1, 1)
    assert share.courteous == share.preferred == pytest.approx(45 / 60)


def test_an_answer_cut_off_by_the_token_limit_is_not_brief() -> None:
    fact, question = held_out_questions()[0]
    cut = answered(fact, question, comparison("x", f"Gladly! {fact.sentence}", finish_reason="length"))
    assert not cut.aligned_verdict.preferred


def test_the_table_shows_both_models_and_the_shares_before_and_after() -> None:
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(render(answers(kind_from=15)))
    text = console.export_text()
    assert text.count("Gladly!") == 6  # of eight examples, spread evenly
    assert "preferred: all three" in text
    assert "75%" in text


def test_a_small_shift_fails_the_demo() -> None:
    _require_shift(answers(kind_from=0))
    with pytest.raises(CliError, match="from 0% to 25% only"):
        _require_shift(answers(kind_from=45))


def test_both_jobs_are_possible_ones() -> None:
    file_id, job_id = new_id("file"), new_id("job")
    learn = AlignmentJob.model_validate(learn_job("/storage/models/demo-tiny", file_id))
    align = AlignmentJob.model_validate(align_job(job_id, file_id))
    assert (learn.model.weights, learn.needs_reference, learn.serve) == ("random", False, False)
    assert (align.model.job_id, align.needs_reference, align.serve) == (job_id, True, True)
