import io
from typing import Any

import pytest
from rich.console import Console

from api.cli.watch import StageBars, duration, report_end
from api.views import JobView

NOW = "2026-01-02T03:04:05Z"


def _job(**changed: Any) -> JobView:
    job = {
        "id": "job-1",
        "project_id": "ada",
        "name": None,
        "state": "succeeded",
        "stage": None,
        "progress": {},
        "spec": {},
        "error": None,
    }
    job |= {"attempts": 1, "created_at": NOW, "started_at": NOW, "finished_at": NOW, "deployment": None}
    job |= dict.fromkeys(("next_attempt_at", "cloned_from", "sweep_id", "waiting", "eta", "owner"))
    job |= {"gpu_hours": 0.0, "loss_points": []}
    return JobView.model_validate(job | changed)


def _deployment(**changed: Any) -> dict[str, Any]:
    return {"job_id": "job-1", "message": None, "created_at": NOW, "updated_at": NOW} | changed


def _said(job: JobView) -> tuple[int, str]:
    console = Console(record=True, width=120, file=io.StringIO())
    return report_end(job, console), console.export_text()


def test_success_is_exit_status_0_and_says_how_to_compare() -> None:
    status, text = _said(_job(deployment=_deployment(state="ready")))
    assert status == 0
    assert "plumbline compare job-1" in text


def test_a_model_that_cannot_be_served_is_still_a_success_with_a_reason() -> None:
    status, text = _said(_job(deployment=_deployment(state="failed", message="no room")))
    assert status == 0
    assert "no room" in text


def test_a_failure_shows_code_stage_message_and_log() -> None:
    error = {"code": "tokenizer_missing", "message": "There is none.", "stage": "prepare", "log_tail": ["[last] line"]}
    error |= {"fault": "user"}
    status, text = _said(_job(state="failed", error=error))
    assert status == 1
    for part in ("tokenizer_missing", "prepare", "There is none.", "[last] line"):
        assert part in text


def test_a_cancelled_job_is_no_success() -> None:
    assert _said(_job(state="cancelled"))[0] == 1


def test_the_bars_follow_the_stages_and_start_over_with_the_next_attempt() -> None:
    console = Console(record=True, width=120, force_terminal=True, file=io.StringIO())
    step = {"done": 3, "total": 10, "unit": "steps", "eta_s": 125.0, "started_at": NOW, "updated_at": NOW}
    with StageBars(console) as bars:
        bars.show(_job(progress={"prepare": step | {"done": 10, "eta_s": None}, "train": step}))
        assert [task.description for task in bars.tasks] == ["prepare", "train"]
        assert bars.tasks[1].fields["eta"] == "2:05 min left"
        bars.show(_job(progress={}))
        assert bars.tasks == []


@pytest.mark.parametrize(("seconds", "text"), [(5.2, "5 s"), (59.9, "1:00 min"), (185, "3:05 min"), (7380, "2:03 h")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
