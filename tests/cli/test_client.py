from pathlib import Path

import pytest

from api.cli.client import Client
from api.cli.control_plane import ControlPlane
from api.cli.errors import ApiError, Unreachable
from api.cli.sse import Frame, parse_frames
from service.settings import Settings
from tests.cli.conftest import ROW


def _submit(client: Client, settings: Settings, directory: Path) -> str:
    (directory / "pairs.jsonl").write_text(ROW)
    file_id = client.upload(directory / "pairs.jsonl")["id"]
    job_id: str = client.submit({"model": str(settings.home / "tiny"), "data": {"train": file_id}})["id"]
    return job_id


def test_following_a_job_ends_with_it_and_numbers_every_event(
    client: Client, control_plane: Settings, tmp_path: Path
) -> None:
    job_id = _submit(client, control_plane, tmp_path)
    client.cancel(job_id)
    numbers = []
    for frame in client.events(job_id, patience_s=10):
        if frame.event == "event":
            numbers.append(frame.id)
        if frame.event == "job" and frame.data["state"] == "cancelling":
            break  # the Ray that would let go of it is not there
    assert numbers == list(range(1, len(numbers) + 1))
    stored = client.event_page(job_id)["data"]
    assert [event["number"] for event in stored][: len(numbers)] == numbers


def test_a_stream_goes_on_over_a_restart_of_the_api(client: Client, control_plane: Settings, tmp_path: Path) -> None:
    settings = control_plane.model_copy(update={"port": control_plane.port + 1, "stream_lifetime_s": 1})
    first = ControlPlane(settings)
    first.start()
    with Client(settings.public_url, (settings.home / "api-key").read_text()) as other:
        job_id = _submit(other, settings, tmp_path)
        frames = other.events(job_id, patience_s=30)
        seen = [next(frame for frame in frames if frame.event == "event")]
        first.stop()
        second = ControlPlane(settings)
        second.start()
        client.cancel(job_id)
        seen += [next(frame for frame in frames if frame.event == "event")]
        second.stop()
    assert [frame.id for frame in seen] == [1, 2]


def test_an_api_that_stays_away_is_unreachable(tmp_path: Path) -> None:
    with Client("http://127.0.0.1:9", "pk-x") as client:
        with pytest.raises(Unreachable):
            client.jobs()
        with pytest.raises(Unreachable):
            next(client.events("job-1", patience_s=0))


def test_problems_carry_status_code_and_fields(client: Client) -> None:
    with pytest.raises(ApiError) as caught:
        client.submit({"model": "/nowhere", "colour": "blue"})
    assert (caught.value.status, caught.value.code) == (422, "invalid_request")
    assert "colour" in str(caught.value)


def test_frames_are_read_with_comments_ids_and_several_lines() -> None:
    text = ': hello\n\nid: 7\nevent: event\ndata: {"a":\ndata: 1}\n\nevent: end\n\ndata: 2\n\ndata: cut off'
    assert list(parse_frames(iter(text.split("\n")))) == [
        Frame("event", {"a": 1}, 7),
        Frame("end", None),
        Frame("message", 2),
    ]
