import asyncio
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from service.db.session import Database
from service.db.tables import Job
from service.errors import (
    DatasetInvalid,
    IdempotencyConflict,
    InvalidRequest,
    InvalidState,
    ModelNotFound,
    ModelUnusable,
)
from service.jobs.repository import JobRepository
from service.jobs.service import cancel, submit
from service.jobs.states import JobState
from service.settings import Settings
from service.spec import AlignmentJob
from tests.service.conftest import add_file, add_job, make_model

PAIR = b'{"prompt": "Hello", "chosen": "Good day.", "rejected": "What."}\n'
ANSWER = b'{"prompt": "Hello", "completion": "Good day."}\n'


class Client:
    """Submits jobs as `ada`, on a model that is there and a file with one good pair."""

    def __init__(self, database: Database, settings: Settings, model: Path, file_id: str) -> None:
        self.database, self.settings = database, settings
        self.body = {"model": str(model), "data": {"train": file_id}}

    async def submit(self, key: str | None = None, **fields: Any) -> tuple[Job, bool]:
        spec = AlignmentJob.model_validate(self.body | fields)
        return await submit(self.database, self.settings, "ada", spec, key)

    async def submit_rows(self, content: bytes, max_bad_rows: int = 0, **fields: Any) -> tuple[Job, bool]:
        file_id = await add_file(self.database, self.settings, content)
        return await self.submit(data={"train": file_id, "max_bad_rows": max_bad_rows}, **fields)

    async def num_jobs(self) -> int:
        async with self.database.reading() as session:
            return len((await JobRepository(session).page("ada", limit=100))[0])


@pytest.fixture
async def client(database: Database, settings: Settings) -> Client:
    model = make_model(settings.storage_root / "models" / "tiny")
    return Client(database, settings, model, await add_file(database, settings, PAIR))


async def test_a_job_is_queued_with_its_defaults_written_down(client: Client) -> None:
    job, replayed = await client.submit()

    assert (job.state, job.last_event, replayed) == (JobState.QUEUED, 1, False)
    assert job.spec["training"]["batch_size"] == 32


async def test_one_key_and_one_body_make_one_job(client: Client) -> None:
    job, _ = await client.submit("a-key")
    again, replayed = await client.submit("a-key")

    assert (again.id, replayed) == (job.id, True)
    assert await client.num_jobs() == 1


async def test_the_same_body_in_another_spelling_is_the_same_body(client: Client) -> None:
    job, _ = await client.submit("a-key")
    again, _ = await client.submit("a-key", model={"source": client.body["model"]})

    assert again.id == job.id


async def test_one_key_and_two_bodies_conflict(client: Client) -> None:
    await client.submit("a-key")
    with pytest.raises(IdempotencyConflict, match="new key"):
        await client.submit("a-key", name="another")
    assert await client.num_jobs() == 1


async def test_one_key_at_two_owners_makes_two_jobs(client: Client) -> None:
    await client.submit("a-key")
    async with client.database.transaction() as session:
        await add_job(session, project_id="bob", idempotency_key="a-key")
    assert await client.num_jobs() == 1


async def test_requests_that_race_with_one_key_get_one_job(client: Client) -> None:
    answers = await asyncio.gather(*(client.submit("a-key") for _ in range(8)))

    assert len({job.id for job, _ in answers}) == 1
    assert [replayed for _, replayed in answers].count(False) == 1
    assert await client.num_jobs() == 1


async def test_requests_that_race_with_one_key_and_two_bodies_conflict(client: Client) -> None:
    answers = await asyncio.gather(*(client.submit("a-key", name=f"job {i}") for i in range(8)), return_exceptions=True)

    assert len([one for one in answers if isinstance(one, IdempotencyConflict)]) == 7
    assert await client.num_jobs() == 1


async def test_a_repeated_request_is_answered_even_if_its_model_has_gone(client: Client) -> None:
    job, _ = await client.submit("a-key")
    (Path(client.body["model"]) / "config.json").unlink()

    assert (await client.submit("a-key"))[0].id == job.id


@pytest.mark.parametrize("key", ["", "x" * 256, "a\nb", "a\0b", "ключ"])
async def test_a_key_that_is_none_is_refused(client: Client, key: str) -> None:
    with pytest.raises(InvalidRequest, match="Idempotency-Key"):
        await client.submit(key)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "has no rows"),
        (b"\n\n  \n", "has no rows"),
        (b"prompt,chosen,rejected\n", "has no rows"),
        (b"question,good,bad\n", "row 1: not a JSON value"),
        (b"\xff\xfe", "row 1: not UTF-8"),
        (PAIR + b"[1]\n", "row 2: a row must be a JSON object"),
        (PAIR + b'{"prompt": "Hello", "chosen": "Good day."}\n', "row 2: column 'rejected' is missing"),
        (PAIR + b'{"prompt": "a", "chosen": "b", "rejected": "b"}', "row 2: chosen and rejected are equal"),
        (PAIR + b'{"prompt": "a", "chosen": " ", "rejected": "b"}', "row 2: the answer is empty"),
        (PAIR + b'{"prompt": "a", "chosen": "\\ud800", "rejected": "b"}', "row 2: a lone surrogate"),
        (PAIR + b"[" * 100_000, "row 2: not a JSON value"),
        (gzip.compress(PAIR * 1000, mtime=0)[:-20], "damaged or cut off"),
    ],
)
async def test_a_dataset_that_cannot_be_used_is_refused_with_its_rows(
    client: Client, content: bytes, said: str
) -> None:
    with pytest.raises(DatasetInvalid) as refused:
        await client.submit_rows(content)

    assert said in refused.value.detail
    assert refused.value.extra["field"] == "data.train"
    assert await client.num_jobs() == 0


async def test_at_most_twenty_bad_rows_are_shown_and_all_are_counted(client: Client) -> None:
    with pytest.raises(DatasetInvalid) as refused:
        await client.submit_rows(PAIR + b"{}\n" * 30)

    extra = refused.value.extra
    assert [row["row"] for row in extra["rows"]] == list(range(2, 22))
    assert (extra["bad_rows"], extra["usable_rows"]) == (30, 1)
    assert "set data.max_bad_rows to 30" in refused.value.detail
    json.dumps(extra)


async def test_bad_rows_are_tolerated_up_to_the_number_allowed(client: Client) -> None:
    await client.submit_rows(PAIR + b"{}\n" * 3, max_bad_rows=3)
    with pytest.raises(DatasetInvalid):
        await client.submit_rows(PAIR + b"{}\n" * 4, max_bad_rows=3)


async def test_bad_rows_alone_are_never_tolerated(client: Client) -> None:
    with pytest.raises(DatasetInvalid) as refused:
        await client.submit_rows(b"{}\n", max_bad_rows=3)
    assert "max_bad_rows" not in refused.value.detail  # which would not help


async def test_answers_are_enough_for_sft_alone(client: Client) -> None:
    await client.submit_rows(ANSWER, losses=[{"type": "sft"}])
    with pytest.raises(DatasetInvalid):
        await client.submit_rows(ANSWER, losses=[{"type": "sft"}, {"type": "sigmoid"}])


async def test_another_owners_file_is_not_there(client: Client) -> None:
    theirs = await add_file(client.database, client.settings, PAIR, project_id="bob")
    with pytest.raises(DatasetInvalid, match=r"no file .* among yours"):
        await client.submit(data={"train": theirs})


@pytest.mark.parametrize("model", ["/etc", "/", "/nowhere/at/all", "/" + "x" * 900])
async def test_a_path_outside_the_model_roots_is_not_there(client: Client, model: str) -> None:
    with pytest.raises(ModelNotFound) as refused:
        await client.submit(model=model)
    assert refused.value.extra == {"field": "model"}


async def test_no_link_and_no_dots_lead_out_of_the_model_roots(client: Client, tmp_path: Path) -> None:
    outside = make_model(tmp_path / "outside")
    root = client.settings.storage_root / "models"
    (root / "link").symlink_to(outside)
    (root / "circle").symlink_to(root / "circle")
    for path in (root / "link", root / "circle", root / ".." / ".." / "outside", root / "tiny" / "config.json"):
        with pytest.raises(ModelNotFound):
            await client.submit(model=str(path))


async def test_a_configured_model_root_is_looked_in(database: Database, settings: Settings, tmp_path: Path) -> None:
    settings = settings.model_copy(update={"model_roots": [tmp_path / "outside"]})
    model = make_model(tmp_path / "outside" / "tiny")
    await Client(database, settings, model, await add_file(database, settings, PAIR)).submit()


@pytest.mark.parametrize(
    ("missing", "said"),
    [("config.json", "config.json"), ("tokenizer.json", "no tokenizer"), ("model.safetensors", "no weights")],
)
async def test_a_model_that_lacks_a_part_is_refused_with_its_field(client: Client, missing: str, said: str) -> None:
    model = make_model(client.settings.storage_root / "models" / "partial", missing)
    with pytest.raises(ModelUnusable, match=said):
        await client.submit(model=str(model))
    with pytest.raises(ModelUnusable, match=said) as refused:
        await client.submit(reference=str(model))
    assert refused.value.extra == {"field": "reference"}


async def test_what_a_job_published_is_named_by_the_job_and_not_by_its_path(client: Client) -> None:
    model = make_model(client.settings.storage_root / "models" / ("job-" + "1" * 21), "model.safetensors")
    with pytest.raises(ModelNotFound, match="job:ID"):
        await client.submit(model=str(model))


async def test_a_file_that_is_cut_off_is_refused_whatever_bad_rows_are_allowed(client: Client) -> None:
    whole = gzip.compress(b"".join(PAIR.replace(b"Hello", b"Hello %d" % i) for i in range(5000)))
    with pytest.raises(DatasetInvalid, match="cannot be read past row") as refused:
        await client.submit_rows(whole[: len(whole) // 2], max_bad_rows=100)
    assert "max_bad_rows" not in refused.value.detail


async def test_a_model_from_scratch_needs_no_weights(client: Client) -> None:
    model = make_model(client.settings.storage_root / "models" / "new", "model.safetensors")
    await client.submit(model={"source": str(model), "weights": "random"}, losses=[{"type": "sft"}], serve=False)


@pytest.mark.parametrize("content", ["", "[]", "[" * 100_000, "\xff"])
async def test_a_config_that_is_no_json_object_is_refused(client: Client, content: str) -> None:
    (Path(client.body["model"]) / "config.json").write_text(content, encoding="latin-1")
    with pytest.raises(ModelUnusable, match=r"config\.json"):
        await client.submit()


async def test_a_job_names_a_model_once_it_has_succeeded(client: Client) -> None:
    async with client.database.transaction() as session:
        done = await add_job(session, state=JobState.SUCCEEDED)
        running = await add_job(session, state=JobState.RUNNING)
        theirs = await add_job(session, project_id="bob", state=JobState.SUCCEEDED)
    make_model(client.settings.storage_root / "models" / done.id)

    await client.submit(model=f"job:{done.id}")
    with pytest.raises(ModelUnusable, match=r"is running.*wait"):
        await client.submit(model=f"job:{running.id}")
    with pytest.raises(ModelNotFound, match="among yours"):
        await client.submit(model=f"job:{theirs.id}")


async def test_a_queued_job_is_cancelled_at_once_and_a_running_one_is_asked_to_stop(client: Client) -> None:
    queued, _ = await client.submit()
    async with client.database.transaction() as session:
        running = await add_job(session, state=JobState.RUNNING)

    for _ in range(2):
        assert (await cancel(client.database, "ada", queued.id)).state is JobState.CANCELLED
        asked = await cancel(client.database, "ada", running.id)
        assert (asked.state, asked.last_event) == (JobState.CANCELLING, 1)
    assert asked.cancel_requested_at is not None


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.FAILED])
async def test_what_has_ended_cannot_be_cancelled(client: Client, state: JobState) -> None:
    async with client.database.transaction() as session:
        job = await add_job(session, state=state)
    with pytest.raises(InvalidState, match=state):
        await cancel(client.database, "ada", job.id)
