"""Log lines: what they hold, and that what opens doors is in none of them."""

import json
import logging
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import Settings
from service.telemetry import context
from service.telemetry.logs import formatter, held_secrets


def settings(tmp_path: Path, **changed: object) -> Settings:
    values = {
        "home": tmp_path,
        "secret": "the-signing-secret",
        "ray_token": "the-ray-token",
        "database_url": "postgresql+asyncpg://ada:hunter22@db/plumbline",
    }
    return Settings(**(values | changed))


def record(message: str, *args: object, **extra: object) -> logging.LogRecord:
    return logging.getLogger("plumbline.test").makeRecord(
        "t", logging.INFO, __file__, 1, message, args, None, extra=extra
    )


def test_a_json_line_has_the_time_the_level_the_message_and_the_fields_of_what_is_worked_on(tmp_path: Path) -> None:
    with context.bound(request_id="req-1"), context.bound(job_id="job-1"):
        context.add(project_id="ada")
        line = json.loads(formatter(settings(tmp_path, log_format="json")).format(record("%s went", "it", status=200)))
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "info",
        "logger": "t",
        "message": "it went",
        "request_id": "req-1",
        "job_id": "job-1",
        "project_id": "ada",
        "status": 200,
    }


def test_a_traceback_is_one_json_line(tmp_path: Path) -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        told = record("failed")
        told.exc_info = (ValueError, error, error.__traceback__)
    line = formatter(settings(tmp_path, log_format="json")).format(told)
    assert "\n" not in line
    assert "ValueError: two\nlines" in json.loads(line)["exception"]


def test_a_line_for_people_ends_with_the_fields(tmp_path: Path) -> None:
    with context.bound(job_id="job-1"):
        line = formatter(settings(tmp_path)).format(record("went", status=200))
    assert line.endswith("INFO t: went job_id=job-1 status=200")


def test_production_logs_json_unless_told_otherwise(tmp_path: Path) -> None:
    production = {"environment": "production", "storage": tmp_path, "api_url": "http://api"}
    assert json.loads(formatter(settings(tmp_path, **production)).format(record("went")))["message"] == "went"
    text = formatter(settings(tmp_path, log_format="text", **production))
    assert text.format(record("went")).endswith("INFO t: went")


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_the_secrets_that_the_process_holds_are_in_no_line(tmp_path: Path, log_format: str) -> None:
    held = settings(tmp_path, log_format=log_format, metrics_token="the-metrics-token")
    secrets = held_secrets(held)
    assert set(secrets) == {"the-signing-secret", "the-ray-token", "hunter22", "the-metrics-token"}
    try:
        raise RuntimeError(f"cannot reach {held.database_url}")
    except RuntimeError as error:
        told = record("%s", " ".join(secrets), where=held.database_url)
        told.exc_info = (RuntimeError, error, error.__traceback__)
    line = formatter(held).format(told)
    assert not [secret for secret in secrets if secret in line]
    assert "ada:***@db" in line


def test_a_level_that_there_is_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="log_level"):
        settings(tmp_path, log_level="CHATTY")
