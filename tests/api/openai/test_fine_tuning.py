from typing import Any

import httpx
import openai as package_errors
import pytest
from openai import AsyncOpenAI, OpenAI

from service.db.session import Database
from service.jobs import attempts
from service.jobs.reports import take_batch
from service.jobs.repository import AttemptRepository, JobRepository
from service.jobs.service import cancel
from service.jobs.states import JobState
from service.settings import Settings
from service.spec.reports import ReportBatch
from tests.api.conftest import Server
from tests.api.openai.conftest import DPO_ROW, package
from tests.service.conftest import add_job

DPO = {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2, "n_epochs": 3, "batch_size": "auto"}}}
NOBODYS = "job-" + "0" * 21


async def report(database: Database, settings: Settings, job_id: str, *reports: dict[str, Any]) -> None:
    """Let the newest attempt of the job say something, as its driver would."""
    async with database.transaction() as session:
        attempt = await AttemptRepository(session).current(await JobRepository(session).get(job_id))
        assert attempt is not None
        batch = ReportBatch.model_validate({"first_seq": attempt.last_seq + 1, "reports": list(reports)})
        await take_batch(session, attempt.id, batch, settings)


async def start(database: Database, job_id: str) -> None:
    async with database.transaction() as session:
        await attempts.start_attempt(session, await JobRepository(session).get(job_id))


def test_a_users_script_runs_as_it_was_written(server: Server, ada: dict[str, str], model: str) -> None:
    client = OpenAI(base_url=f"{server.url}/v1", api_key=ada["Authorization"].removeprefix("Bearer "))
    file = client.files.create(file=("pairs.jsonl", DPO_ROW), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        model=model,
        training_file=file.id,
        method={"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.1, "n_epochs": "auto"}}},
        suffix="courteous",
        seed=7,
        metadata={"team": "support"},
    )
    assert (job.object, job.status, job.model, job.training_file) == ("fine_tuning.job", "queued", model, file.id)
    assert (job.seed, job.metadata, job.organization_id) == (7, {"team": "support"}, "ada")
    place = {"queue_position": None, "waiting": None, "eta": None}  # worked out when it is asked for
    assert client.fine_tuning.jobs.retrieve(job.id).to_dict() | place == job.to_dict() | place
    assert [one.id for one in client.fine_tuning.jobs.list()] == [job.id]
    assert [one.message for one in client.fine_tuning.jobs.list_events(job.id)] == [
        "The job was accepted and waits for the controller."
    ]
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    client.close()


async def test_what_a_request_comes_to_is_shown_as_the_package_types_it(
    openai: AsyncOpenAI, pairs: str, model: str
) -> None:
    job = await openai.fine_tuning.jobs.create(model=model, training_file=pairs, method=DPO)

    assert job.method is not None
    assert job.method.dpo is not None
    assert job.method.dpo.hyperparameters is not None
    used = job.method.dpo.hyperparameters
    assert (used.beta, used.n_epochs, used.batch_size, used.learning_rate_multiplier) == (0.2, 3, 32, 1)
    assert (job.error, job.fine_tuned_model, job.finished_at, job.estimated_finish) == (None, None, None, None)
    assert (job.validation_file, job.result_files, job.integrations, job.metadata) == (None, [], [], None)
    assert isinstance(job.created_at, int)
    assert job.model_extra is not None
    assert (job.model_extra["state"], job.model_extra["stage"], job.model_extra["progress"]) == ("queued", None, {})
    assert job.model_extra["spec"]["losses"][0]["beta"] == 0.2


async def test_a_validation_file_is_held_out_and_kept_while_the_job_needs_it(
    openai: AsyncOpenAI, pairs: str, chats: str, model: str
) -> None:
    validation = (await openai.files.create(file=("more.jsonl", DPO_ROW), purpose="fine-tune")).id
    asked: Any = {"model": model, "training_file": pairs, "validation_file": validation, "method": DPO}
    job = await openai.fine_tuning.jobs.create(**asked)
    assert job.validation_file == validation
    assert (job.model_extra or {})["spec"]["data"]["validation"] == validation
    with pytest.raises(package_errors.ConflictError, match=job.id):
        await openai.files.delete(validation)
    with pytest.raises(package_errors.BadRequestError) as refused:
        await openai.fine_tuning.jobs.create(**asked | {"validation_file": chats})
    assert (refused.value.code, refused.value.param) == ("dataset_invalid", "validation_file")
    share = {"plumbline": {"evaluation": {"held_out_fraction": 0.1}}}
    with pytest.raises(package_errors.BadRequestError, match="contradict"):
        await openai.fine_tuning.jobs.create(**asked, extra_body=share)


async def test_without_a_method_a_job_is_supervised(openai: AsyncOpenAI, chats: str, model: str) -> None:
    job = await openai.fine_tuning.jobs.create(
        model=model, training_file=chats, hyperparameters={"n_epochs": 2, "learning_rate_multiplier": 0.5}
    )
    assert job.method is not None
    assert job.method.type == "supervised"
    assert (job.hyperparameters.n_epochs, job.hyperparameters.learning_rate_multiplier) == (2, 0.5)
    assert job.model_extra is not None
    assert job.model_extra["spec"]["losses"][0]["type"] == "sft"
    assert job.model_extra["spec"]["training"]["learning_rate"] == 1e-5


async def test_a_job_runs_only_while_its_attempt_does(
    openai: AsyncOpenAI, database: Database, settings: Settings, pairs: str, model: str
) -> None:
    async def status() -> str:
        return (await openai.fine_tuning.jobs.retrieve(job.id)).status

    job = await openai.fine_tuning.jobs.create(model=model, training_file=pairs, method=DPO)
    assert await status() == "queued"
    await start(database, job.id)
    assert await status() == "queued"  # on the cluster, but not heard of
    await report(database, settings, job.id)
    assert await status() == "running"
    lost = {"code": "lost", "message": "The node went away.", "fault": "system"}
    await report(database, settings, job.id, {"kind": "outcome", "result": "failed", "failure": lost})
    assert await status() == "queued"  # for its second attempt
    await start(database, job.id)
    await cancel(database, "ada", job.id)
    assert await status() == "queued"  # cancelling, and the second attempt has not been heard of
    await report(database, settings, job.id)
    assert await status() == "running"
    async with database.transaction() as session:
        await attempts.finish_leaving(session, await JobRepository(session).get(job.id), "The cluster is clean.")
    assert await status() == "cancelled"


async def test_a_job_is_paused_and_resumed_by_the_package(
    openai: AsyncOpenAI, database: Database, settings: Settings, pairs: str, model: str
) -> None:
    job = await openai.fine_tuning.jobs.create(model=model, training_file=pairs, method=DPO)
    for _ in range(2):  # what is asked for again is done once
        held = await openai.fine_tuning.jobs.pause(job.id)
        assert (held.status, (held.model_extra or {})["state"]) == ("queued", "paused")
    resumed = await openai.fine_tuning.jobs.resume(job.id)
    assert (resumed.status, (resumed.model_extra or {})["state"]) == ("queued", "queued")
    await start(database, job.id)
    await report(database, settings, job.id)
    leaving = await openai.fine_tuning.jobs.pause(job.id)
    assert (leaving.status, (leaving.model_extra or {})["state"]) == ("running", "pausing")
    with pytest.raises(package_errors.ConflictError, match="still being paused"):
        await openai.fine_tuning.jobs.resume(job.id)
    await openai.fine_tuning.jobs.cancel(job.id)
    with pytest.raises(package_errors.ConflictError, match="nothing to pause"):
        await openai.fine_tuning.jobs.pause(job.id)
    for ask in (openai.fine_tuning.jobs.pause, openai.fine_tuning.jobs.resume):
        with pytest.raises(package_errors.NotFoundError):
            await ask(NOBODYS)


async def test_a_succeeded_job_names_a_model_that_the_next_one_may_start_from(
    openai: AsyncOpenAI, database: Database, settings: Settings, pairs: str, model: str
) -> None:
    job = await openai.fine_tuning.jobs.create(model=model, training_file=pairs, method=DPO)
    assert [one.id async for one in openai.fine_tuning.jobs.checkpoints.list(job.id)] == []
    await start(database, job.id)
    progress = {"kind": "progress", "stage": "train", "unit": "steps", "total": 10}
    await report(database, settings, job.id, progress | {"done": 1})
    await report(database, settings, job.id, progress | {"done": 5})
    running = await openai.fine_tuning.jobs.retrieve(job.id)
    assert running.estimated_finish is not None
    assert running.estimated_finish >= running.created_at
    values = {"loss": 0.5, "token_accuracy": 0.8}
    await report(
        database,
        settings,
        job.id,
        {"kind": "metrics", "step": 10, "values": values},
        {"kind": "metrics", "step": 10, "split": "held_out", "values": values | {"loss": 0.6}},
        {"kind": "outcome", "result": "succeeded"},
    )
    (settings.storage_root / "models" / "tiny").rename(settings.storage_root / "models" / job.id)

    done = await openai.fine_tuning.jobs.retrieve(job.id)
    assert (done.status, done.estimated_finish) == ("succeeded", None)
    assert done.finished_at is not None
    assert done.fine_tuned_model == f"job:{job.id}"
    (checkpoint,) = [one async for one in openai.fine_tuning.jobs.checkpoints.list(job.id)]
    assert (checkpoint.step_number, checkpoint.fine_tuned_model_checkpoint) == (10, done.fine_tuned_model)
    assert (checkpoint.metrics.train_loss, checkpoint.metrics.full_valid_loss) == (0.5, 0.6)
    following = await openai.fine_tuning.jobs.create(model=done.fine_tuned_model, training_file=pairs, method=DPO)
    assert following.model == done.fine_tuned_model


async def test_a_failure_is_told_with_its_code(openai: AsyncOpenAI, database: Database) -> None:
    failure = {"code": "tokenizer_missing", "message": "There is no tokenizer.", "fault": "user", "log_tail": ["x"]}
    async with database.transaction() as session:
        failed = await add_job(session, state=JobState.FAILED, error=failure)
    job = await openai.fine_tuning.jobs.retrieve(failed.id)
    assert job.status == "failed"
    assert job.error is not None
    assert (job.error.code, job.error.message, job.error.param) == (
        "tokenizer_missing",
        "There is no tokenizer.",
        None,
    )


async def test_pages_hold_every_job_and_event_once(openai: AsyncOpenAI, database: Database, settings: Settings) -> None:
    async with database.transaction() as session:
        mine = [(await add_job(session)).id for _ in range(5)]
        await add_job(session, project_id="bob")
    assert [job.id async for job in openai.fine_tuning.jobs.list(limit=2)] == sorted(mine, reverse=True)

    await start(database, mine[0])
    said = [{"kind": "event", "type": "data.seen", "message": str(number)} for number in range(5)]
    await report(database, settings, mine[0], *said)
    events = [event async for event in openai.fine_tuning.jobs.list_events(mine[0], limit=2)]
    assert [event.message for event in events[:5]] == ["4", "3", "2", "1", "0"]
    assert len({event.id for event in events}) == 7  # with job.starting and job.running
    assert events[0].level == "info"


async def test_jobs_are_listed_by_their_labels(openai: AsyncOpenAI, pairs: str, model: str) -> None:
    async def listed(**query: Any) -> list[str]:
        return [job.id async for job in openai.fine_tuning.jobs.list(limit=1, **query)]

    made = [
        (await openai.fine_tuning.jobs.create(model=model, training_file=pairs, method=DPO, metadata=labels)).id
        for labels in ({"team": "a", "the run": '1, {x} "y"'}, {"team": "b"}, {})
    ]
    assert await listed(metadata={"team": "a"}) == made[:1]
    assert await listed(metadata={"team": "a", "the run": '1, {x} "y"'}) == made[:1]
    assert await listed(metadata={"team": "a", "the run": "2"}) == []
    assert await listed(extra_query={"metadata": "null"}) == made[2:]
    assert await listed(metadata={}) == sorted(made, reverse=True)
    for query in ({"metadata": "x"}, {"metadata[]": "x"}, {'metadata["]': "x"}):
        with pytest.raises(package_errors.BadRequestError) as refused:
            await listed(extra_query=query)
        assert refused.value.param == "metadata"


async def test_a_place_that_no_list_gave_out_is_named_as_the_package_names_it(openai: AsyncOpenAI) -> None:
    with pytest.raises(package_errors.BadRequestError) as refused:
        await openai.fine_tuning.jobs.list(after="ftjob-abc")
    assert refused.value.param == "after"


@pytest.mark.parametrize("count", [17, 1_000])
async def test_more_labels_than_a_job_can_have_are_refused_before_the_database_is_asked(
    client: httpx.AsyncClient, count: int
) -> None:
    query = "&".join(f"metadata[{number}]=v" for number in range(count))
    refused = await client.get(f"/v1/fine_tuning/jobs?{query}")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "metadata")


async def test_as_many_labels_as_a_job_can_have_are_looked_for(openai: AsyncOpenAI, pairs: str, model: str) -> None:
    labels = {f"label {number}": str(number) for number in range(16)}
    made = await openai.fine_tuning.jobs.create(model=model, training_file=pairs, method=DPO, metadata=labels)
    assert [job.id async for job in openai.fine_tuning.jobs.list(metadata=labels)] == [made.id]


async def test_what_is_another_owners_is_not_there(
    openai: AsyncOpenAI, server: Server, database: Database, bob: dict[str, str]
) -> None:
    async with database.transaction() as session:
        mine = (await add_job(session)).id
    async with package(server, bob) as theirs:
        jobs = theirs.fine_tuning.jobs
        for job_id in (mine, NOBODYS, "ftjob-abc"):
            for call in (jobs.retrieve, jobs.cancel, jobs.list_events, jobs.checkpoints.list):
                with pytest.raises(package_errors.NotFoundError) as absent:
                    await call(job_id)
                assert (absent.value.code, absent.value.type) == ("not_found", "invalid_request_error")
        assert [job.id async for job in jobs.list()] == []


async def test_an_ended_job_is_not_cancelled_and_the_package_does_not_insist(
    server: Server, database: Database, ada: dict[str, str]
) -> None:
    async with database.transaction() as session:
        done = await add_job(session, state=JobState.SUCCEEDED)
    async with package(server, ada, max_retries=2) as openai:
        with pytest.raises(package_errors.ConflictError) as refused:
            await openai.fine_tuning.jobs.cancel(done.id)
    assert refused.value.code == "invalid_state"
    assert refused.value.request.headers["x-stainless-retry-count"] == "0"


async def test_a_wrong_key_is_the_packages_authentication_error(server: Server) -> None:
    async with package(server, {"Authorization": "Bearer nonsense"}) as openai:
        with pytest.raises(package_errors.AuthenticationError) as refused:
            await openai.fine_tuning.jobs.list()
    assert refused.value.code == "unauthorized"


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"model": "gpt-4o-mini"}, "model", "hf:owner/name"),
        ({"model": "/nowhere/model"}, "model", "no model directory"),
        ({"training_file": "file-abc"}, "training_file", "ID of an uploaded file"),
        ({"training_file": "file-" + "0" * 21}, "training_file", "upload it"),
        ({"validation_file": "file-" + "0" * 21}, "validation_file", "upload it"),
        ({"validation_file": "hf:owner/name"}, "validation_file", "ID of an uploaded file"),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]}, "integrations", "not supported"),
        ({"method": {"type": "reinforcement"}}, "method.type", "'supervised' or 'dpo'"),
        ({"method": {"type": "dpo", "supervised": {}}}, "method", "would not be used"),
        ({"seed": -1}, "seed", "greater than or equal to 0"),
        ({"seed": 2**31}, "seed", "less than or equal"),
        ({"suffix": "x" * 65}, "suffix", "64"),
        ({"metadata": {"a": "x" * 513}}, "metadata.a", "512"),
        ({"metadata": {str(n): "x" for n in range(17)}}, "metadata", "16"),
        ({"metadata": {"a": 5}}, "metadata.a", "string"),
        ({"extra_body": {"training": {"epochs": 2}}}, None, "give this in `plumbline`"),
        ({"extra_body": {"n_epochs": 2}}, "n_epochs", "no such field"),
        ({"extra_body": {"plumbline": {"training": {"batchsize": 2}}}}, "plumbline.training.batchsize", "batch_size"),
        ({"extra_body": {"plumbline": {"losses": [{"type": "tpo"}]}}}, "plumbline.losses.0", "not available"),
    ],
)
async def test_what_cannot_be_honoured_is_refused_by_its_name(
    openai: AsyncOpenAI, pairs: str, model: str, fields: dict[str, Any], param: str | None, said: str
) -> None:
    given = {"model": model, "training_file": pairs, "method": {"type": "dpo"}} | fields
    with pytest.raises(package_errors.BadRequestError) as refused:
        await openai.fine_tuning.jobs.create(**given)
    assert refused.value.param == param
    assert said in refused.value.message
    assert [job.id async for job in openai.fine_tuning.jobs.list()] == []


async def test_rows_that_cannot_be_used_are_the_training_files_fault(openai: AsyncOpenAI, model: str) -> None:
    bad = await openai.files.create(file=("bad.jsonl", b'{"prompt": "x"}\n'), purpose="fine-tune")
    with pytest.raises(package_errors.BadRequestError) as refused:
        await openai.fine_tuning.jobs.create(model=model, training_file=bad.id, method=DPO)
    assert (refused.value.code, refused.value.param) == ("dataset_invalid", "training_file")
    assert isinstance(refused.value.body, dict)
    assert refused.value.body["rows"][0]["row"] == 1


@pytest.mark.parametrize("path", ["/v1/fine_tuning/nothing", "/v1/fine_tuning/jobs/x/pause"])
async def test_what_is_not_there_is_told_in_the_same_form(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.post(path)
    assert answer.status_code == 404
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


async def test_resources_that_are_not_here_are_not_found_in_the_same_form(openai: AsyncOpenAI) -> None:
    grader: Any = {"type": "string_check", "name": "g", "input": "a", "operation": "eq", "reference": "a"}
    for call in (
        openai.embeddings.create(model="job:x", input="a"),
        openai.responses.create(model="job:x", input="a"),
        openai.batches.list(),
        openai.fine_tuning.alpha.graders.run(grader=grader, model_sample="a"),
        openai.fine_tuning.checkpoints.permissions.list("job:x:ckpt-step-1"),
    ):
        with pytest.raises(package_errors.NotFoundError, match="There is nothing at /v1/") as absent:
            await call
        assert (absent.value.code, absent.value.type) == ("not_found", "invalid_request_error")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"[" * 10_000, b'{"model": "' + b"x" * 30_000 + b'"}'])
async def test_a_body_that_is_none_is_told_in_the_same_form(client: httpx.AsyncClient, content: bytes) -> None:
    answer = await client.post("/v1/fine_tuning/jobs", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == (413 if len(content) > 20_000 else 400)
    assert answer.json()["error"]["type"] == "invalid_request_error"
