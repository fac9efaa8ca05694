"""What `plumbline doctor` says of an installation without a cluster; tests/e2e has one with it."""

import json
from pathlib import Path

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from api.cli.main import app
from api.cli.processes import free_port
from service.clock import utc_now
from service.db.session import Database
from service.doctor import buckets
from service.doctor.cluster import look_at_pools
from service.doctor.examination import CHECKS, examine
from service.doctor.findings import Finding, Verdict
from service.files.bucket import Bucket
from service.queue.capacity import Capacity, Node
from service.settings import Settings
from tests.s3_server import keys


async def found(settings: Settings, *names: str) -> dict[str, Finding]:
    nowhere = f"http://127.0.0.1:{free_port()}"
    nobody = settings.model_copy(update={"ray_url": nowhere, "api_url": nowhere})
    return {name: finding async for name, finding in examine(nobody, names or tuple(CHECKS))}


async def test_each_part_is_told_apart(settings: Settings) -> None:
    settings.storage_root.mkdir(parents=True)
    said = await found(settings)
    assert list(said) == ["database", "migrations", "storage", "buckets", "api", "ray", "pools", "serve", "attempts"]
    bad = [name for name, one in said.items() if one.verdict is Verdict.FAILED]
    assert bad == ["api", "ray", "pools", "serve", "attempts"]
    assert all(one.fix for one in said.values() if one.verdict is not Verdict.OK)
    assert "PLUMBLINE_RAY_URL" in str(said["ray"].fix)
    assert not list(settings.storage_root.iterdir())  # a check leaves nothing behind


@pytest.mark.parametrize(
    ("nodes", "serving_device", "verdict", "words"),
    [
        ({"policy": 1, "reference": 1, "serving": 1}, "gpu", Verdict.OK, "serving (1 GPUs"),
        ({"policy": 1, "reference": 1, "serving": 0}, "gpu", Verdict.FAILED, "Without a GPU: serving. Engines ask"),
        ({"policy": 1, "reference": 0, "serving": 1}, "gpu", Verdict.WARNING, "Without a GPU: reference."),
        ({"policy": 0, "reference": 0, "serving": 0}, None, Verdict.WARNING, "policy, reference, serving."),
        ({"policy": 0, "reference": 0, "serving": 0}, "cpu", Verdict.OK, "policy (0 GPUs"),
        ({"shared": 1}, "gpu", Verdict.OK, "shared (1 GPUs"),
        ({"policy": 1, "serving": 1}, "gpu", Verdict.FAILED, "No node is labelled pool=reference"),
    ],
)
def test_each_pool_is_asked_for_its_gpus(
    settings: Settings, nodes: dict[str, float], serving_device: str | None, verdict: Verdict, words: str
) -> None:
    seen = tuple(Node(label, gpus, 8) for label, gpus in (nodes | {"control": 0}).items())
    said = look_at_pools(Capacity(seen, utc_now()), settings.model_copy(update={"serving_device": serving_device}))
    assert said.verdict is verdict
    assert words in said.message


async def test_an_old_schema_is_told(settings: Settings, database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    said = (await found(settings, "migrations"))["migrations"]
    assert (said.verdict, said.fix) == (Verdict.FAILED, "Run `plumbline db upgrade`.")


async def test_a_schema_of_a_newer_version_is_told_by_whether_it_serves(settings: Settings, database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = 'newer'"))
    assert (await found(settings, "migrations"))["migrations"].message.endswith("serves this version too.")
    async with database.transaction() as session:
        await session.execute(text("UPDATE schema_compatibility SET oldest_code = 'newer'"))
    said = (await found(settings, "migrations"))["migrations"]
    assert said.verdict is Verdict.FAILED
    assert "restore a backup" in str(said.fix)


async def test_a_storage_that_is_not_mounted_is_told(settings: Settings, tmp_path: Path) -> None:
    said = await found(settings.model_copy(update={"storage": tmp_path / "absent"}), "storage")
    assert said["storage"].verdict is Verdict.FAILED
    assert f"{tmp_path}/absent cannot be written: No such file" in said["storage"].message


async def test_object_stores_are_tried_as_uploads_and_models_use_them(settings: Settings, empty_bucket: str) -> None:
    both = settings.model_copy(update={"files_url": f"{empty_bucket}/files", "models_url": f"{empty_bucket}/models"})
    said = (await found(both, "buckets"))["buckets"]
    assert (said.verdict, said.message) == (
        Verdict.OK, "s3://team/files and s3://team/models can be written, read, listed and cleared."
    )  # fmt: skip
    assert keys() == []
    absent = settings.model_copy(update={"models_url": "s3://nobody-made-this/models"})
    said = (await found(absent, "buckets"))["buckets"]
    assert (said.verdict, said.fix) == (Verdict.FAILED, "Make the bucket, or mend PLUMBLINE_MODELS_URL.")


async def test_an_object_store_that_does_not_answer_is_told(
    settings: Settings, empty_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    away = Bucket(empty_bucket)
    away._store = type(away._store)(use_listings_cache=False, skip_instance_cache=True)
    monkeypatch.setattr(buckets, "bucket", lambda url: away)
    said = (await found(settings.model_copy(update={"files_url": empty_bucket}), "buckets"))["buckets"]
    assert said.verdict is Verdict.FAILED
    assert "s3://team (PLUMBLINE_FILES_URL): The object store cannot be used" in said.message
    assert "AWS_ENDPOINT_URL" in str(said.fix)


async def test_a_database_that_is_away_is_told_without_its_password(settings: Settings) -> None:
    url = f"postgresql+asyncpg://ada:hunter2@127.0.0.1:{free_port()}/plumbline"
    said = await found(settings.model_copy(update={"database_url": url}), "database", "migrations")
    assert {one.verdict for one in said.values()} == {Verdict.FAILED}
    assert "hunter2" not in str(said)


def test_the_command_fails_where_a_check_does_and_waits_for_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLUMBLINE_HOME", str(settings.home))
    monkeypatch.setenv("PLUMBLINE_DATABASE_URL", settings.sqlalchemy_url)
    well = CliRunner().invoke(app, ["doctor", "--only", "database", "--only", "migrations", "--json", "--wait", "30"])
    assert well.exit_code == 0, well.output
    assert [json.loads(line)["verdict"] for line in well.output.splitlines()] == ["ok", "ok"]
    monkeypatch.setenv("PLUMBLINE_RAY_URL", f"http://127.0.0.1:{free_port()}")
    ill = CliRunner().invoke(app, ["doctor", "--only", "ray", "--wait", "0.1"])
    assert ill.exit_code == 1
    assert "failed   ray" in ill.output
    assert CliRunner().invoke(app, ["doctor", "--only", "karma"]).exit_code == 2
