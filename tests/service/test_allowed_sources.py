"""What jobs may name: allowed roots, hosts and patterns; and no code that comes with a model."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from service.db.session import Database
from service.errors import DatasetInvalid, ModelNotFound, ModelUnusable
from service.jobs import service as jobs
from service.jobs.attempts import start_attempt
from service.jobs.reports import brief
from service.settings import Settings
from service.spec import AlignmentJob
from service.spec.sources import may_be_fetched
from tests.service.conftest import add_job, make_model

RULES = {
    "allowed_hub": ["Qwen/*", "team/model"],
    "allowed_urls": ["s3://team-*", "https://*.example.org"],
}


def job(**fields: Any) -> AlignmentJob:
    return AlignmentJob.model_validate({"model": "hf:Qwen/any", "data": {"train": "hf:qwen/rows"}} | fields)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"model": "hf:team/model@main"},
        {"data": {"train": "s3://team-rows/a.jsonl"}},
        {"data": {"train": "https://data.example.org/a.jsonl"}},
        {"data": {"train": "https://DATA.example.org:8443/a.jsonl"}},
    ],
)
async def test_what_matches_a_pattern_is_accepted(
    database: Database, settings: Settings, fields: dict[str, Any]
) -> None:
    await jobs.submit(database, settings.model_copy(update=RULES), "ada", job(**fields))


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"model": "hf:other/model"}, ModelNotFound),
        ({"model": "hf:team/model2"}, ModelNotFound),
        ({"reference": "hf:other/model"}, ModelNotFound),
        ({"data": {"train": "hf:other/rows"}}, DatasetInvalid),
        ({"data": {"train": "s3://others/a.jsonl"}}, DatasetInvalid),
        ({"data": {"train": "gs://team-rows/a.jsonl"}}, DatasetInvalid),
        ({"data": {"train": "https://example.org.evil.com/a.jsonl"}}, DatasetInvalid),
        ({"data": {"train": "https://evil.com/.example.org"}}, DatasetInvalid),
        ({"data": {"train": "/etc/passwd"}}, DatasetInvalid),
        ({"model": "/etc"}, ModelNotFound),
    ],
)
async def test_everything_else_is_refused(
    database: Database, settings: Settings, fields: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await jobs.submit(database, settings.model_copy(update=RULES), "ada", job(**fields))


def test_only_the_host_counts() -> None:
    assert not may_be_fetched("https://evil.com/?https://data.example.org", ["https://data.example.org*"])
    assert not may_be_fetched("https://data.example.org", ["s3://*"])
    assert not may_be_fetched("https://data.example.org", [])


@pytest.mark.parametrize("weights", ["pytorch_model.bin", "model.pt", "model.ckpt", "pytorch_model-00001-of-00002.bin"])
async def test_weights_that_are_pickles_are_refused(
    database: Database, settings: Settings, tmp_path: Path, weights: str
) -> None:
    model = make_model(settings.storage_root / "models" / "tiny", "model.safetensors")
    (model / weights).write_bytes(b"w")
    with pytest.raises(ModelUnusable, match="safetensors"):
        await jobs.submit(database, settings, "ada", job(model=str(model)))


@pytest.mark.parametrize(
    "fields",
    [
        {"trust_remote_code": True},
        {"model": {"source": "hf:Qwen/any", "trust_remote_code": True}},
        {"training": {"trust_remote_code": True}},
        {"resources": {"trust_remote_code": True}},
    ],
)
def test_no_job_can_switch_on_the_code_of_a_model(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="trust_remote_code"):
        job(**fields)


@pytest.mark.parametrize(("share", "same"), [(True, True), (False, False)])
async def test_projects_share_reference_scores_only_if_they_may(
    database: Database, settings: Settings, share: bool, same: bool
) -> None:
    settings = settings.model_copy(update={"share_reference_store": share})
    stores = []
    for project_id in ("ada", "ada", "bob"):
        async with database.transaction() as session:
            attempt = await start_attempt(session, await add_job(session, project_id=project_id))
            stores.append((await brief(session, attempt.id, settings)).reference_store)
    assert stores[0] == stores[1], "jobs of one project share"
    assert (stores[0] == stores[2]) is same
    assert all(not Path(store).is_absolute() and ".." not in store for store in stores)


def test_production_shares_nothing_unless_it_is_told_to(tmp_path: Path) -> None:
    required = {"secret": "s", "database_url": "sqlite://", "storage": tmp_path, "api_url": "https://api"}
    assert not Settings(environment="production", **required).shares_reference_store
    assert Settings(environment="production", share_reference_store=True, **required).shares_reference_store
    assert Settings().shares_reference_store
