"""Where a job's rows may come from, and what becomes of rows that the control plane cannot read."""

import builtins
import json
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.db.session import Database
from service.errors import DatasetInvalid
from service.jobs import reports
from service.jobs.attempts import start_attempt
from service.jobs.repository import JobRepository
from service.settings import Settings
from tests.service.conftest import add_file, make_model
from tests.service.test_submit import PAIR, Client


@pytest.fixture
async def client(database: Database, settings: Settings, tmp_path: Path) -> Client:
    settings = settings.model_copy(
        update={"data_roots": [tmp_path / "data"], "allow_private_urls": [ip_network("10.20.0.0/16")]}
    )
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "pairs.jsonl").write_bytes(PAIR)
    model = make_model(settings.storage_root / "models" / "tiny")
    return Client(database, settings, model, await add_file(database, settings, PAIR))


async def refused(client: Client, **data: Any) -> DatasetInvalid:
    with pytest.raises(DatasetInvalid) as error:
        await client.submit(data=data)
    assert error.value.extra["field"] == "data.train"
    assert await client.num_jobs() == 0
    return error.value


async def test_a_file_under_a_data_root_is_read(client: Client, tmp_path: Path) -> None:
    job, _ = await client.submit(data={"train": str(tmp_path / "data" / "pairs.jsonl")})
    assert job.spec["data"]["train"] == str(tmp_path / "data" / "pairs.jsonl")


async def test_the_rows_of_a_file_under_a_data_root_are_checked(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "data" / "bad.jsonl"
    path.write_bytes(PAIR + b"{}\n")
    error = await refused(client, train=str(path))
    assert "Correct the file, or set data.max_bad_rows to 1" in error.detail
    assert error.extra["read_as"] == "standard, explicit prompt"


async def test_a_file_larger_than_any_upload_is_left_to_the_attempt(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "data" / "bad.jsonl"
    path.write_bytes(b"{}\n" * 100)
    await refused(client, train=str(path))
    client.settings = client.settings.model_copy(update={"max_upload_bytes": 299})
    await client.submit(data={"train": str(path)})


async def test_no_link_no_dots_and_no_other_place_is_a_data_root(client: Client, tmp_path: Path) -> None:
    root, outside = tmp_path / "data", tmp_path / "outside.jsonl"
    outside.write_bytes(PAIR)
    (root / "link").symlink_to(outside)
    (root / "circle").symlink_to(root / "circle")
    uploaded = next((client.settings.storage_root / "files").iterdir())
    for path in (outside, root / "link", root / "circle", root / ".." / "outside.jsonl", root, uploaded, "/dev/zero",
                 root / "nothing", "/" + "x" * 900):  # fmt: skip
        assert "There is no file" in (await refused(client, train=str(path))).detail


async def test_uploads_are_no_data_root_even_under_one(client: Client, settings: Settings) -> None:
    client.settings = client.settings.model_copy(update={"data_roots": [Path("/")]})
    uploaded = next((settings.storage_root / "files").iterdir())
    await refused(client, train=str(uploaded))


async def test_without_data_roots_no_path_is_read(client: Client, settings: Settings, tmp_path: Path) -> None:
    client.settings = settings
    assert "no data roots" in (await refused(client, train=str(tmp_path / "data" / "pairs.jsonl"))).detail


async def test_a_private_address_is_refused_unless_it_is_allowed(client: Client) -> None:
    assert "169.254.169.254" in (await refused(client, train="https://169.254.169.254/rows.jsonl")).detail
    await client.submit(data={"train": "https://10.20.1.2/rows.jsonl"})


@pytest.mark.parametrize(
    ("train", "told"),
    [
        ("/data/pairs.jsonl", "/data/pairs.jsonl"),
        ("s3://team/pairs.jsonl", None),
        ("https://example.com/pairs.jsonl", None),
        ("hf:team/pairs@main:train", None),
    ],
)
async def test_an_attempt_is_told_the_path_or_fetches_the_rows_itself(
    client: Client, tmp_path: Path, train: str, told: str | None
) -> None:
    path = str(tmp_path) + told if told else None
    job, _ = await client.submit(data={"train": path or train})
    async with client.database.transaction() as session:
        attempt = await start_attempt(session, await JobRepository(session).get(job.id))
        brief = await reports.brief(session, attempt.id, client.settings)
    assert (brief.train_file, brief.allow_private_urls) == (path, ["10.20.0.0/16"])


async def test_parquet_is_checked_where_pyarrow_is_and_left_to_the_attempt_where_it_is_not(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data" / "pairs.parquet"
    pq.write_table(pa.Table.from_pylist([{"prompt": "a", "chosen": "b", "rejected": "b"}]), path)
    assert "are equal" in (await refused(client, train=str(path))).detail

    real = builtins.__import__

    def without_pyarrow(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "pyarrow":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_pyarrow)
    await client.submit(data={"train": str(path)})


async def test_a_format_and_scores_can_be_set_by_hand(client: Client) -> None:
    row = {"prompt": "-", "chosen": "It is so", "rejected": "It is not", "score_chosen": 1, "score_rejected": 2}
    file_id = await add_file(client.database, client.settings, json.dumps(row).encode())
    await client.submit(data={"train": file_id, "format": "implicit"})
    with pytest.raises(DatasetInvalid, match="chosen scores lower than rejected"):
        await client.submit(data={"train": file_id, "scores": "margin"})


@pytest.mark.parametrize(
    ("losses", "column", "said"),
    [
        ([{"type": "simpo"}], "weight", None),
        ([{"type": "aot"}], "weight", "a weight, which a loss of the job cannot use"),
        ([{"type": "sigmoid"}], "margin", None),
        ([{"type": "sft"}], "margin", "no loss of the job uses margins"),
    ],
)
async def test_a_weight_or_a_margin_that_would_do_nothing_is_refused(
    client: Client, losses: list[dict[str, Any]], column: str, said: str | None
) -> None:
    row = {"prompt": "a", "chosen": "b", "rejected": "c", column: 2}
    content = json.dumps(row).encode()
    if said is None:
        await client.submit_rows(content, losses=losses)
    else:
        with pytest.raises(DatasetInvalid, match=said):
            await client.submit_rows(content, losses=losses)
