"""What bad input gets: a problem with a stable code, the field or the row, and the way out; and nothing is left."""

import json
import sqlite3
from typing import Any

import httpx
import pytest
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from api.examples import JOBS
from service.db.session import Database
from service.settings import Settings
from service.spec import AlignmentJob
from tests.api.conftest import PAIR, problem
from tests.service.conftest import make_model


async def refused(
    client: httpx.AsyncClient, body: dict[str, Any], status: int = 422, code: str = "invalid_request"
) -> dict[str, Any]:
    """The problem that posting `body` gets; no job may be left of it."""
    answer = problem(await client.post("/v1/jobs", json=body), status, code)
    assert (await client.get("/v1/jobs")).json()["data"] == []
    return answer


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({"learning_rate": 1e-4}, "learning_rate", "did you mean 'training.learning_rate'?"),
        ({"training": {"batchsize": 8}}, "training.batchsize", "did you mean 'training.batch_size'?"),
        ({"zzz": 1}, "zzz", "no such field"),
        ({"training": {"batch_size": "many"}}, "training.batch_size", "valid integer"),
        ({"training": {"batch_size": 0}}, "training.batch_size", "greater than or equal to 1"),
        ({"training": {"batch_size": 10**400}}, "training.batch_size", "65536"),
        ({"training": {"method": {"type": "lora", "rank": 0}}}, "training.method.rank", "greater than or equal to 1"),
        ({"training": {"method": {"type": "loha"}}}, "training.method", "did you mean 'lora'?"),
        ({"losses": []}, "losses", "at least 1 item"),
        ({"losses": [{"type": "sigmoid", "beta": -1}]}, "losses.0.beta", "greater than or equal to 0.000001"),
        ({"losses": [{"type": "sft"}, {"type": "sigmoid", "betta": 1}]}, "losses.1.betta", "beta"),
        ({"losses": [{"type": "sft", "beta": 1}]}, "losses.0.beta", "'sft' does not use `beta`; sigmoid, hinge, ipo"),
        ({"losses": [{"type": "hinge", "gamma": 1}]}, "losses.0.gamma", "simpo, alphapo do"),
        ({"losses": [{"type": "sigmoid", "discopop_tau": 1}]}, "losses.0.discopop_tau", "discopop does"),
        ({"losses": [{"type": "hinge", "label_smoothin": 0.1}]}, "losses.0.label_smoothin", "which sigmoid, exo_pair"),
        ({"losses": [{"type": "sft", "zzz": 1}]}, "losses.0.zzz", "its options are weight, per_sequence"),
        ({"losses": [{"type": "sigmoid", "f_alpha_divergence_coef": 1}]}, "losses.0", "by f_divergence 'alpha' only"),
        ({"losses": [{"type": "cpo", "form": "ipo", "label_smoothing": 0.1}]}, "losses.0", "form 'sigmoid' only"),
        ({"losses": [{"type": "bco_pair", "reward_baseline": "mean"}]}, "losses.0.reward_baseline", "'running_mean'"),
        ({"losses": [{"type": "kto"}, {"type": "sigmoid"}]}, "", "different rows (kto: unpaired; sigmoid: pairs)"),
        ({"losses": [{"type": "aot", "wpo": True}]}, "losses.0.wpo", "sigmoid, hinge"),
        ({"training": {"reference_sync": {}, "method": {"type": "lora"}}}, "training", "it needs `method: full`"),
        ({"losses": [{"type": "sigmoid", "rpo_alpha": 1}]}, "losses.0.rpo_alpha", "{type: sft, weight: ...}"),
        ({"losses": [{"type": "sigmoid", "use_weighting": True}]}, "losses.0.use_weighting", "it is `wpo` here"),
        ({"training": {"method": {"type": "full", "rank": 4}}}, "training.method.rank", "a field of another `type`"),
        ({"losses": [{"type": "sft"}], "evaluation": {"kl_budget": 1}}, "", "`evaluation.kl_budget` is measured"),
        ({"losses": [{"beta": 1}]}, "losses.0", "`type` is missing; it is one of sigmoid, hinge"),
        ({"losses": [{"type": "sft"}, {"type": "sft"}]}, "", "has one term twice"),
        ({"data": {}}, "data.train", "required"),
        ({"data": {"train": "../../etc/passwd"}}, "data.train", "ID of an uploaded file (POST /v1/files)"),
        ({"model": "not a model"}, "model", "must be 'job:ID'"),
        ({"model": {"source": "/m", "weights": "some"}}, "model.weights", "pretrained"),
        ({"name": "a\0b"}, "name", "NUL"),
        ({"name": 5}, "name", "string"),
    ],
)
async def test_a_field_that_cannot_be_is_named_with_the_way_out(
    client: httpx.AsyncClient, body: dict[str, Any], fields: dict[str, Any], field: str, said: str
) -> None:
    answer = await refused(client, body | fields)

    assert said.lower() in answer["detail"].lower()
    assert field in [error["field"] for error in answer.get("errors", [answer])]


async def test_several_faults_are_told_at_once(client: httpx.AsyncClient) -> None:
    answer = await refused(client, {"training": {"epochs": -1, "seed": "x"}, "extra": True})
    assert {error["field"] for error in answer["errors"]} == {
        "model",
        "data",
        "training.epochs",
        "training.seed",
        "extra",
    }


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sigmoyd", "Did you mean 'sigmoid'?"),
        ("sigmoid-norm", "Did you mean 'sigmoid_norm'?"),
        ("DPO", "Did you mean 'sigmoid'?"),
        ("aot_pair", "take 'aot' (margins of pairs, sorted) or 'aot_unpaired'"),
        ("tpo", "the loss 'tpo' is not available; available are sigmoid,"),
        ("zzz", "there is no loss 'zzz'; it is one of sigmoid,"),
    ],
)
async def test_an_unknown_loss_has_its_own_code_and_a_suggestion(
    client: httpx.AsyncClient, body: dict[str, Any], name: str, said: str
) -> None:
    answer = await refused(client, body | {"losses": [{"type": name}]}, code="unknown_loss")
    assert said in answer["detail"]
    assert answer["errors"][0]["field"] == "losses.0"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the body is missing"),
        (b"{", "not JSON"),
        (b"nonsense", "not JSON"),
        (b"[]", "must be a JSON object"),
        (b'"text"', "must be a JSON object"),
        (b"null", "the body is missing"),
        (b"[" * 15_000, "nested deeper than 64 levels"),
        (b'{"name": ' + b"9" * 10_000 + b"}", "cannot be read as JSON"),
        (b'{"name": "\xff"}', "cannot be read as JSON"),
        (b'{"name": NaN}', "NaN, which is no number"),
        (b'{"name": "\\ud800"}', "name: this is not Unicode text"),
        (b'{"\\ud800": 1}', "not Unicode text"),
        (b'{"a\\u0000": 1}', "no such field"),
    ],
)
async def test_a_body_that_is_no_job_at_all(client: httpx.AsyncClient, content: bytes, said: str) -> None:
    sent = await client.post("/v1/jobs", content=content, headers={"Content-Type": "application/json"})
    assert said in problem(sent, 422, "invalid_request")["detail"]


async def test_a_json_body_sent_as_something_else_is_told_so(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    sent = await client.post("/v1/jobs", content=json.dumps(body), headers={"Content-Type": "text/plain"})
    assert "Content-Type: application/json" in problem(sent, 422, "invalid_request")["detail"]


async def test_a_model_that_is_not_there_or_not_whole(
    client: httpx.AsyncClient, body: dict[str, Any], settings: Settings
) -> None:
    answer = await refused(client, body | {"model": "/etc"}, code="model_not_found")
    assert answer["field"] == "model"

    partial = make_model(settings.storage_root / "models" / "partial", "tokenizer.json")
    answer = await refused(client, body | {"model": str(partial)}, code="model_unusable")
    assert (answer["field"], "tokenizer" in answer["detail"]) == ("model", True)


@pytest.mark.parametrize(
    ("rows", "line", "code"),
    [
        (PAIR + b"not json\n", 2, "row_not_json"),
        (PAIR * 2 + b'{"prompt": "a", "chosen": "b"}\n', 3, "column_missing"),
        (PAIR + b'{"prompt": "a", "chosen": "b", "rejected": "b"}\n', 2, "answers_equal"),
        (PAIR + b'{"prompt": "a", "chosen": "", "rejected": "b"}\n', 2, "answer_empty"),
    ],
)
async def test_a_dataset_with_a_bad_row_names_the_row(
    client: httpx.AsyncClient, body: dict[str, Any], rows: bytes, line: int, code: str
) -> None:
    file = (await client.post("/v1/files", files={"file": ("bad.jsonl", rows)})).json()
    answer = await refused(client, body | {"data": {"train": file["id"]}}, code="dataset_invalid")

    assert [(row["row"], row["code"]) for row in answer["rows"]] == [(line, code)]
    assert f"row {line}" in answer["detail"]


async def test_an_empty_dataset_says_what_a_row_is(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    file = (await client.post("/v1/files", files={"file": ("empty.jsonl", b"")})).json()
    answer = await refused(client, body | {"data": {"train": file["id"]}}, code="dataset_invalid")
    assert "one JSON object per line" in answer["detail"]


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic cGs6", "Bearer pk-" + "a" * 43, "Bearer pk-\xff"],
)
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/files", "/v1/jobs/job-1/events"])
async def test_without_a_good_key_nobody_learns_anything(
    client: httpx.AsyncClient, header: str | None, path: str
) -> None:
    del client.headers["Authorization"]
    headers = {} if header is None else {b"Authorization": header.encode("latin-1")}
    answer = await client.get(path, headers=headers)

    told = problem(answer, 401, "unauthorized")
    assert told["detail"].startswith("Send a good API key as 'Authorization: Bearer KEY': there is none, or")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_a_key_is_asked_for_before_the_fields_are_looked_at(client: httpx.AsyncClient) -> None:
    del client.headers["Authorization"]
    problem(await client.post("/v1/jobs", json={"nonsense": 1}), 401, "unauthorized")


async def test_what_is_not_there_and_what_is_not_allowed(client: httpx.AsyncClient) -> None:
    problem(await client.get("/v1/nothing"), 404, "not_found")
    problem(await client.post("/v1/nothing"), 404, "not_found")
    problem(await client.get("/internal/nothing"), 404, "not_found")
    problem(await client.get("/../../etc/passwd"), 404, "not_found")
    answer = await client.put("/v1/jobs")
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"] == "GET, POST"


async def test_a_database_without_its_tables_is_unavailable_and_not_a_bug(
    client: httpx.AsyncClient, database: Database
) -> None:
    assert (await client.get("/readyz")).json() == {"status": "ready"}
    async with database.engine.begin() as connection:
        await connection.exec_driver_sql("DROP TABLE api_keys")
        await connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    answer = await client.get("/v1/jobs")
    problem(answer, 503, "unavailable")
    assert answer.headers["Retry-After"]
    problem(await client.get("/readyz"), 503, "unavailable")
    assert (await client.get("/healthz")).json() == {"status": "alive"}


async def test_an_api_stays_ready_while_a_newer_schema_serves_it(client: httpx.AsyncClient, database: Database) -> None:
    async with database.engine.begin() as connection:
        await connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'newer'")
    assert (await client.get("/readyz")).json() == {"status": "ready"}
    async with database.engine.begin() as connection:
        await connection.exec_driver_sql("UPDATE schema_compatibility SET oldest_code = 'newer'")
    answer = await client.get("/readyz")
    problem(answer, 503, "unavailable")
    assert "Install the version" in answer.json()["detail"]


class _ServerError(Exception):
    """As PostgreSQL's driver tells it."""

    def __init__(self, sqlstate: str) -> None:
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (DBAPIError(None, None, _ServerError("57P01")), 503, "unavailable"),
        (PoolTimeout("no connection was given back in time"), 503, "unavailable"),
        (OperationalError(None, None, sqlite3.OperationalError("disk I/O error")), 503, "unavailable"),
        (DBAPIError(None, None, _ServerError("22021")), 500, "internal_error"),
    ],
    ids=["shut-down", "pool", "disk", "malformed"],
)
@pytest.mark.parametrize("place", ["api.authentication.verify_key", "service.jobs.repository.JobRepository.page"])
async def test_a_database_in_trouble_is_unavailable_and_a_wrong_query_is_our_bug(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, place: str, error: Exception, status: int, code: str
) -> None:
    async def fail(*_args: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr(place, fail)
    problem(await client.get("/v1/jobs"), status, code)


async def test_a_refusal_is_answered_although_the_audit_log_cannot_be_written(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_args: object, **_options: object) -> None:
        raise DBAPIError(None, None, _ServerError("25006"))

    monkeypatch.setattr("api.audit.audit.record", fail)
    problem(await client.post("/v1/jobs", json={"zzz": 1}), 422, "invalid_request")


def test_the_documented_examples_are_jobs() -> None:
    for example in JOBS.values():
        AlignmentJob.model_validate(example["value"])


async def test_openapi_documents_what_can_go_wrong(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    posting = document["paths"]["/v1/jobs"]["post"]

    told = posting["responses"]["422"]["content"]["application/problem+json"]
    assert set(told["examples"]) >= {"unknown_loss", "dataset_invalid", "model_not_found", "model_unusable"}
    assert told["schema"] == {"$ref": "#/components/schemas/ProblemDetails"}
    assert "ProblemDetails" in document["components"]["schemas"]
    assert posting["requestBody"]["content"]["application/json"]["examples"]
    assert posting["security"]


async def test_a_browser_is_told_what_it_may_do(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/jobs")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'self'")
    assert answer.headers["Cache-Control"] == "no-store"
