"""Commands on jobs and sweeps after they were submitted, against a real API; Ray is not there, so jobs stay queued."""

import json
from pathlib import Path

from service.settings import Settings
from tests.cli.conftest import ROW, plumbline, write_job


def submitted(local: Settings, directory: Path) -> str:
    out = plumbline("submit", str(write_job(directory, local.home / "tiny")))[1]
    return next(line for line in out.splitlines() if line.startswith("job-"))


def test_a_job_is_paused_resumed_cancelled_retried_cloned_and_deleted(local: Settings, tmp_path: Path) -> None:
    job = submitted(local, tmp_path)
    # the controller may have handed it to the Ray that does not answer
    assert plumbline("pause", job)[1].split()[1] in {"paused", "pausing"}
    assert plumbline("checkpoints", job) == (0, "No checkpoints.\n", "")
    status, out, _ = plumbline("clone", job, "{name: another, training: {learning_rate: 1.0e-6}}")
    assert status == 0
    spec = json.loads(plumbline("request", "get", f"/v1/jobs/{out.strip()}")[1])["spec"]
    assert (spec["name"], spec["training"]["learning_rate"]) == ("another", 1e-6)
    status, _, err = plumbline("delete", "--yes", job)
    assert status == 1
    assert "invalid_state" in err


def test_changes_that_are_no_mapping_are_refused(local: Settings, tmp_path: Path) -> None:
    job = submitted(local, tmp_path)
    for changes in ("[1]", "{"):
        status, _, err = plumbline("clone", job, changes)
        assert status == 1
        assert "changes" in err


def test_a_sweep_uploads_its_file_and_shows_its_jobs(local: Settings, tmp_path: Path) -> None:
    write_job(tmp_path, local.home / "tiny")
    path = tmp_path / "sweep.yaml"
    path.write_text(
        f"name: betas\nbase: {{model: {local.home / 'tiny'}, data: {{train: pairs.jsonl}}}}\n"
        "grid: {losses.0.beta: [0.1, 0.3]}\n"
    )
    status, out, err = plumbline("sweep", "submit", str(path))
    assert status == 0, err
    sweep = out.splitlines()[0]
    status, shown, err = plumbline("sweep", "show", sweep)
    assert status == 0, err
    assert "losses.0.beta=0.1" in shown
    assert "losses.0.beta=0.3" in shown
    assert plumbline("sweep", "cancel", sweep)[0] == 0


def test_any_route_can_be_asked(local: Settings) -> None:
    assert json.loads(plumbline("request", "GET", "/v1/queue")[1])["queued"] >= 0
    status, _, err = plumbline("request", "POST", "/v1/webhooks", "{")
    assert (status, "not JSON" in err) == (1, True)
    status, _, err = plumbline("request", "POST", "/v1/webhooks", '{"url": "ftp://x"}')
    assert status == 1
    assert "url" in err
    status, _, err = plumbline("request", "GET", "/v1/models/nobody's")
    assert (status, "There is no model" in err) == (1, True)


def test_files_are_sent_and_received_by_any_route_that_takes_and_gives_them(local: Settings, tmp_path: Path) -> None:
    sent, got = tmp_path / "pairs.jsonl", tmp_path / "got.jsonl"
    sent.write_bytes(ROW.encode() + b"\xff\x00")
    status, out, err = plumbline("request", "POST", "/v1/files", "--file", f"file=@{sent}")
    assert status == 0, err
    content = f"/v1/files/{json.loads(out)['id']}/content"
    assert plumbline("request", "GET", content, "--output", str(got))[0] == 0
    assert got.read_bytes() == sent.read_bytes()

    asked = json.dumps({"filename": "big.jsonl", "bytes": sent.stat().st_size, "purpose": "fine-tune", "mime_type": ""})
    upload = json.loads(plumbline("request", "POST", "/v1/uploads", asked)[1])["id"]
    part = json.loads(plumbline("request", "POST", f"/v1/uploads/{upload}/parts", "--file", f"data=@{sent}")[1])
    done = plumbline("request", "POST", f"/v1/uploads/{upload}/complete", json.dumps({"part_ids": [part["id"]]}))[1]
    assert json.loads(done)["status"] == "completed"

    for wrong in (str(sent), f"={sent}", "file=@"):
        status, _, err = plumbline("request", "POST", "/v1/files", "--file", wrong)
        assert (status, "FIELD=@PATH" in err) == (1, True)
    status, _, err = plumbline("request", "POST", "/v1/files", "--file", "file=@nowhere.jsonl")
    assert (status, "no file nowhere.jsonl" in err) == (1, True)
    status, _, err = plumbline("request", "GET", "/v1/files/file-1/content", "--output", str(tmp_path / "none"))
    assert (status, (tmp_path / "none").exists()) == (1, False)
