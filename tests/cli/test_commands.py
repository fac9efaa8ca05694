"""The commands as a user types them, against a real API."""

from pathlib import Path

import pytest

from api.cli.submit import read_spec
from api.client import Client
from service.settings import Settings
from tests.cli.conftest import plumbline, write_job


def test_submitting_uploads_the_training_file_that_the_spec_names_by_its_path(
    local: Settings, client: Client, tmp_path: Path
) -> None:
    status, out, _ = plumbline("submit", str(write_job(tmp_path, local.home / "tiny", name="by-path")))
    assert status == 0
    job_id = next(line for line in out.splitlines() if line.startswith("job-"))
    job = client.jobs.get(job_id)
    assert job.name == "by-path"
    assert job.spec["data"]["train"].startswith("file-")


def test_submitting_uploads_the_validation_file_too_and_takes_both_back_if_the_job_is_refused(
    local: Settings, client: Client, tmp_path: Path
) -> None:
    files = uploads(client)
    (tmp_path / "held_out.jsonl").write_text('{"prompt": "p", "chosen": "a", "rejected": "b"}\n')
    data = "{train: pairs.jsonl, validation: held_out.jsonl}"
    status, _, _ = plumbline("submit", str(write_job(tmp_path, local.home / "nowhere", data=data)))
    assert (status, uploads(client)) == (1, files)
    status, out, _ = plumbline("submit", str(write_job(tmp_path, local.home / "tiny", data=data)))
    assert status == 0
    job = client.jobs.get(next(line for line in out.splitlines() if line.startswith("job-")))
    placed = {client.files.get(job.spec["data"][field]).filename for field in ("train", "validation")}
    assert placed == {"pairs.jsonl", "held_out.jsonl"}
    missing = write_job(tmp_path, local.home / "tiny", data="{train: pairs.jsonl, validation: not_here.jsonl}")
    assert "data.validation: there is no file" in plumbline("submit", str(missing))[2]


@pytest.mark.parametrize(
    ("train", "told"),
    [
        ("hf:nobody", "hf:owner/name"),
        ("http://example.com/pairs.jsonl", "use https://"),
        ("/nowhere/pairs.jsonl", "There is no file /nowhere/pairs.jsonl"),
    ],
)
def test_what_is_not_here_is_left_to_the_server(local: Settings, tmp_path: Path, train: str, told: str) -> None:
    status, _, err = plumbline("submit", str(write_job(tmp_path, local.home / "tiny", data=f"{{train: '{train}'}}")))
    assert status == 1
    assert told in err


def test_the_same_idempotency_key_returns_the_same_job(local: Settings, tmp_path: Path, client: Client) -> None:
    uploaded = client.files.upload(_row_file(tmp_path)).id
    path = write_job(tmp_path, local.home / "tiny", data=f"{{train: {uploaded}}}")
    answers = [plumbline("submit", str(path), "--idempotency-key", "once")[1].splitlines()[0] for _ in range(2)]
    assert answers[0] == answers[1]


def test_the_same_idempotency_key_with_a_local_file_returns_the_same_job(
    local: Settings, tmp_path: Path, client: Client
) -> None:
    path = write_job(tmp_path, local.home / "tiny")
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "once", "chosen": "a", "rejected": "b"}\n')
    answers = [plumbline("submit", str(path), "--idempotency-key", "with-file") for _ in range(2)]
    assert [status for status, _, _ in answers] == [0, 0]
    jobs = [next(line for line in out.splitlines() if line.startswith("job-")) for _, out, _ in answers]
    assert jobs[0] == jobs[1]
    assert "is there already as file-" in answers[1][2]

    (tmp_path / "pairs.jsonl").write_text('{"prompt": "twice", "chosen": "a", "rejected": "b"}\n')
    files = uploads(client)
    status, _, err = plumbline("submit", str(path), "--idempotency-key", "with-file")
    assert (status, "idempotency_conflict" in err) == (1, True)
    assert uploads(client) == files


def test_a_refused_job_leaves_no_uploaded_file(local: Settings, tmp_path: Path, client: Client) -> None:
    path = write_job(tmp_path, local.home / "nowhere")
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "refused", "chosen": "a", "rejected": "b"}\n')
    files = uploads(client)
    assert plumbline("submit", str(path))[0] == 1
    assert uploads(client) == files


def test_a_refused_job_keeps_a_file_that_was_there_before(local: Settings, tmp_path: Path, client: Client) -> None:
    path = write_job(tmp_path, local.home / "nowhere")
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "mine", "chosen": "a", "rejected": "b"}\n')
    kept = client.files.upload(tmp_path / "pairs.jsonl")
    assert plumbline("submit", str(path))[0] == 1
    assert kept.id in uploads(client)


def uploads(client: Client) -> set[str]:
    return {file.id for file in client.files.list(limit=10_000).data}


def test_without_a_key_of_ones_own_each_submission_is_another_job(
    local: Settings, tmp_path: Path, client: Client
) -> None:
    uploaded = client.files.upload(_row_file(tmp_path)).id
    path = write_job(tmp_path, local.home / "tiny", data=f"{{train: {uploaded}}}")
    answers = {plumbline("submit", str(path))[1].splitlines()[0] for _ in range(2)}
    assert len(answers) == 2


def test_cancelled_jobs_are_listed_as_such(local: Settings, tmp_path: Path) -> None:
    out = plumbline("submit", str(write_job(tmp_path, local.home / "tiny", name="to-cancel")))[1]
    job_id = next(line for line in out.splitlines() if line.startswith("job-"))
    status, out, _ = plumbline("cancel", job_id)
    assert status == 0
    assert "cancel" in out
    status, out, _ = plumbline("jobs")
    assert status == 0
    line = next(line for line in out.splitlines() if job_id in line)
    assert "to-cancel" in line
    assert "cancel" in line


def test_a_refused_spec_names_the_field(local: Settings, tmp_path: Path) -> None:
    path = write_job(tmp_path, local.home / "tiny", losses="[{type: sigmoid, beta: -1}]")
    status, _, err = plumbline("submit", str(path))
    assert status == 1
    assert "invalid_request" in err
    assert "losses.0.beta" in err


def test_a_refused_dataset_names_the_row(local: Settings, tmp_path: Path) -> None:
    path = write_job(tmp_path, local.home / "tiny")
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "b"}\n')
    status, _, err = plumbline("submit", str(path))
    assert status == 1
    assert "row 1" in err
    assert "answers_equal" in err


@pytest.mark.parametrize(
    ("content", "told"),
    [("- a list", "mapping"), ("a: [", "not YAML"), ("data: {train: nowhere.jsonl}", "nowhere.jsonl")],
)
def test_a_job_file_that_cannot_be_used_says_why(local: Settings, tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(content)
    status, _, err = plumbline("submit", str(path))
    assert status == 1
    assert told in err


def test_no_answer_says_how_to_start(local: Settings) -> None:
    status, _, err = plumbline("jobs", "--url", "http://127.0.0.1:9")
    assert status == 1
    assert "plumbline up" in err
    assert "127.0.0.1:9" in err


def test_a_wrong_key_is_one_line(local: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUMBLINE_API_KEY", "pk-wrong")
    status, _, err = plumbline("jobs")
    assert status == 1
    assert "unauthorized" in err
    assert len(err.splitlines()) == 1


def test_without_a_key_the_ways_to_one_are_named(
    local: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PLUMBLINE_HOME", str(tmp_path))
    status, _, err = plumbline("jobs")
    assert status == 1
    assert "PLUMBLINE_API_KEY" in err


def test_an_unknown_job_is_one_line(local: Settings) -> None:
    for command in (["watch"], ["cancel"], ["compare"]):
        status, _, err = plumbline(*command, "job-" + "0" * 21, *(["hello"] if command == ["compare"] else []))
        assert status == 1
        assert "not_found" in err


def test_a_setting_out_of_range_is_named(local: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUMBLINE_MAX_ATTEMPTS", "0")
    status, _, err = plumbline("jobs")
    assert status == 1
    assert "PLUMBLINE_MAX_ATTEMPTS" in err


def test_a_key_works_until_it_is_revoked(local: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    key = plumbline("keys", "create", "--project", "grace", "--name", "laptop")[1].strip()
    line = next(line for line in plumbline("keys", "list")[1].splitlines() if "grace" in line)
    monkeypatch.setenv("PLUMBLINE_API_KEY", key)
    assert plumbline("jobs") == (0, "No jobs.\n", "")
    assert plumbline("keys", "revoke", line.split()[0])[0] == 0
    assert plumbline("jobs")[0] == 1


def test_revoking_an_unknown_key_is_one_line(local: Settings) -> None:
    status, _, err = plumbline("keys", "revoke", "key-unknown")
    assert status == 1
    assert "key-unknown" in err


def test_keys_need_a_database(local: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PLUMBLINE_HOME", str(tmp_path / "new"))
    status, _, err = plumbline("keys", "list")
    assert status == 1
    assert "db upgrade" in err
    assert plumbline("db", "upgrade")[0] == 0
    assert plumbline("keys", "list")[0] == 0


def _row_file(directory: Path) -> Path:
    write_job(directory, directory)
    return directory / "pairs.jsonl"


def test_a_rate_written_as_1e_minus_6_is_a_number(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("training: {learning_rate: 1e-6}\nname: 1e6x\n")
    assert read_spec(file) == {"training": {"learning_rate": 1e-6}, "name": "1e6x"}
