"""Pairs of a job over HTTP: pages, tokens, flags, the corrected file and the job that differs in it alone."""

import json
from typing import Any

import httpx
import pytest

from service import audit
from service.db.session import Database
from service.jobs import deletion
from service.jobs.repository import JobRepository
from service.jobs.states import JobState
from service.settings import Settings
from service.spec import Storage
from tests.api.conftest import key_of, problem
from tests.pairs_file import PAIRS, write_pairs_file
from tests.service.conftest import add_file, add_job, make_model

ROWS = [{"prompt": prompt, "chosen": chosen, "rejected": rejected} for prompt, chosen, rejected in PAIRS]
LINES = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)


async def measured(database: Database, settings: Settings, content: bytes = LINES, **spec: Any) -> str:
    """A job that has succeeded, with a file of its pairs."""
    file_id = await add_file(database, settings, content)
    async with database.transaction() as session:
        job = await add_job(session, state=JobState.SUCCEEDED)
        job.spec = job.spec | {"data": job.spec["data"] | {"train": file_id}} | spec
    write_pairs_file(Storage(settings.storage_root).pairs(job.id))
    return job.id


@pytest.fixture
async def job_id(database: Database, settings: Settings, ada: dict[str, str]) -> str:
    return await measured(database, settings)


@pytest.fixture
def path(job_id: str) -> str:
    return f"/v1/jobs/{job_id}/pairs"


async def got(client: httpx.AsyncClient, path: str, **params: Any) -> Any:
    answer = await client.get(path, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("sort", ["row", "most_wrong", "margin_before", "margin_after", "margin_change"])
@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_pages_of_any_order_hold_every_pair_once(
    client: httpx.AsyncClient, path: str, sort: str, order: str
) -> None:
    pages, cursor = [], None
    while not pages or cursor:
        params = {"sort": sort, "order": order, "limit": 3} | ({"cursor": cursor} if cursor else {})
        page = await got(client, path, **params)
        pages.append(page["data"])
        cursor = page["next_cursor"]
    assert [len(page) for page in pages] == [3, 1]
    values = [pair["margin_per_token" if sort == "most_wrong" else sort] for page in pages for pair in page]
    assert values == sorted(values, reverse=order == "desc")
    assert len(set(values)) == len(PAIRS)


async def test_margins_and_changes_are_sums_of_the_tokens_own(client: httpx.AsyncClient, path: str) -> None:
    for pair in (await got(client, path))["data"]:
        detail = await got(client, f"{path}/{pair['row']}")
        assert {name: detail[name] for name in pair} == pair
        assert detail["prompt"] == PAIRS[pair["row"] - 1][0]
        for name, text in zip(("chosen", "rejected"), PAIRS[pair["row"] - 1][1:], strict=True):
            tokens = detail[name]
            assert "".join(token["text"] for token in tokens) == text
            for when in ("before", "after"):
                assert sum(token[when] for token in tokens) == pytest.approx(pair[f"{name}_{when}"])
            assert all(token["change"] == pytest.approx(token["after"] - token["before"]) for token in tokens)
        assert pair["margin_change"] == pytest.approx(pair["margin_after"] - pair["margin_before"])
    points = await got(client, f"{path}/margins")
    assert points["row"] == [1, 2, 3, 4]
    page = await got(client, path, sort="row")
    assert points["after"] == [pair["margin_after"] for pair in page["data"]]


async def test_of_many_points_a_plot_gets_some_from_everywhere(
    client: httpx.AsyncClient, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.pairs.artifact.MAX_POINTS", 2)
    ordered = [pair["row"] for pair in (await got(client, path, sort="margin_after"))["data"]]
    assert set((await got(client, f"{path}/margins"))["row"]) == {ordered[1], ordered[3]}


async def test_of_a_text_without_end_a_part_is_given_and_said_to_be_one(
    client: httpx.AsyncClient, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await got(client, f"{path}/1"))["cut"] is False
    monkeypatch.setattr("service.pairs.artifact.MAX_TOKENS", 3)
    monkeypatch.setattr("service.pairs.artifact.MAX_CHARACTERS", 7)
    cut = await got(client, f"{path}/1")
    assert (cut["cut"], cut["prompt"], len(cut["chosen"])) == (True, PAIRS[0][0][-7:], 3)


async def test_a_row_that_was_not_measured_and_a_strange_cursor_are_refused(
    client: httpx.AsyncClient, path: str
) -> None:
    assert "held out" in problem(await client.get(f"{path}/99"), 404, "not_found")["detail"]
    assert problem(await client.get(path, params={"cursor": "x"}), 422, "invalid_request")["field"] == "cursor"


@pytest.mark.parametrize(
    ("columns", "spec", "said"),
    [
        ({"state": JobState.RUNNING}, {}, "when training ends"),
        ({"state": JobState.SUCCEEDED}, {"losses": [{"type": "sft"}]}, "not from pairs"),
        ({"state": JobState.SUCCEEDED}, {"evaluation": {"pairs": 0}}, "asked for no measure"),
        ({"state": JobState.FAILED}, {}, "left no measure"),
    ],
)
async def test_a_job_without_a_measure_says_why(
    client: httpx.AsyncClient, database: Database, columns: dict[str, Any], spec: dict[str, Any], said: str
) -> None:
    async with database.transaction() as session:
        job = await add_job(session, **columns)
        job.spec = job.spec | spec
    for path in ("pairs", "pairs/1", "pairs/margins"):
        assert said in problem(await client.get(f"/v1/jobs/{job.id}/{path}"), 404, "pairs_missing")["detail"]


async def test_a_damaged_file_is_said_to_be_one(
    client: httpx.AsyncClient, settings: Settings, job_id: str, path: str
) -> None:
    Storage(settings.storage_root).pairs(job_id).write_bytes(b"not a database" * 100)
    assert "damaged" in problem(await client.get(path), 404, "pairs_missing")["detail"]


async def test_a_flag_is_set_replaced_listed_and_taken_back(
    client: httpx.AsyncClient, database: Database, path: str
) -> None:
    for action, note in (("swap", "they were mixed up"), ("drop", ""), ("drop", "")):
        answer = await client.put(f"{path}/2/flag", json={"action": action, "note": note})
        assert (answer.status_code, answer.json()["action"], answer.json()["note"]) == (200, action, note)
    page = await got(client, path, flagged="true")
    assert page["flags"] == {"swap": 0, "drop": 1}
    assert [(pair["row"], pair["flag"]["action"]) for pair in page["data"]] == [(2, "drop")]
    assert (await got(client, f"{path}/2"))["flag"]["key_id"].startswith("key-")
    for _ in range(2):
        assert (await client.delete(f"{path}/2/flag")).json() == {"row": 2, "object": "pair_flag", "deleted": True}
    assert (await got(client, path, flagged="true"))["data"] == []
    async with database.reading() as session:
        entries, _ = await audit.page(session, "ada", limit=9, cursor=None)
    acts = [entry.action.split()[0] for entry in entries if "flag" in entry.action]
    assert acts.count("PUT") == 3
    assert acts.count("DELETE") == 2


async def test_what_cannot_be_flagged_is_refused(
    client: httpx.AsyncClient, settings: Settings, job_id: str, path: str
) -> None:
    problem(await client.put(f"{path}/99/flag", json={"action": "drop"}), 404, "not_found")
    problem(await client.put(f"{path}/1/flag", json={"action": "burn"}), 422, "invalid_request")
    problem(await client.put(f"{path}/1/flag", json={"action": "drop", "note": "a\0b"}), 422, "invalid_request")
    write_pairs_file(Storage(settings.storage_root).pairs(job_id), [("How?", "well", "so-so", "badly")])
    refused = problem(await client.put(f"{path}/1/flag", json={"action": "swap"}), 422, "invalid_request")
    assert "ranking of 3" in refused["detail"]
    assert (await client.put(f"{path}/1/flag", json={"action": "drop"})).status_code == 200


async def test_the_corrected_file_has_flagged_rows_swapped_or_gone_and_is_made_once(
    client: httpx.AsyncClient, job_id: str, path: str
) -> None:
    problem(await client.post(f"{path}/export"), 409, "invalid_state")
    await client.put(f"{path}/1/flag", json={"action": "swap"})
    await client.put(f"{path}/3/flag", json={"action": "drop"})
    made = await client.post(f"{path}/export")
    assert made.status_code == 201, made.text
    file = made.json()
    assert file["filename"] == "pairs-corrected.jsonl"
    assert file["derived_from"]["job_id"] == job_id
    assert (file["derived_from"]["swapped"], file["derived_from"]["dropped"]) == ([1], [3])
    content = (await client.get(f"/v1/files/{file['id']}/content")).content
    first = ROWS[0] | {"chosen": ROWS[0]["rejected"], "rejected": ROWS[0]["chosen"]}
    assert [json.loads(line) for line in content.splitlines()] == [first, ROWS[1], ROWS[3]]

    again = await client.post(f"{path}/export")
    assert (again.status_code, again.json()["id"]) == (200, file["id"])
    assert len((await got(client, "/v1/files"))["data"]) == 2


async def test_the_job_that_differs_is_a_clone_on_the_corrected_file(
    client: httpx.AsyncClient, database: Database, settings: Settings
) -> None:
    model = make_model(settings.storage_root / "models" / "tiny")
    job_id = await measured(database, settings, model={"source": str(model), "weights": "pretrained"})
    await client.put(f"/v1/jobs/{job_id}/pairs/2/flag", json={"action": "swap"})
    file_id = (await client.post(f"/v1/jobs/{job_id}/pairs/export")).json()["id"]
    answer = await client.post(f"/v1/jobs/{job_id}/clone", json={"data": {"train": file_id}})
    assert answer.status_code == 201, answer.text
    clone, original = answer.json(), await got(client, f"/v1/jobs/{job_id}")
    assert clone["spec"]["data"].pop("train") == file_id
    original["spec"]["data"].pop("train")
    assert clone["spec"] == original["spec"]
    assert clone["cloned_from"] == job_id


async def test_what_cannot_be_exported_says_why(
    client: httpx.AsyncClient, database: Database, settings: Settings, path: str, job_id: str
) -> None:
    for row in range(1, 5):
        await client.put(f"{path}/{row}/flag", json={"action": "drop"})
    assert "Every row" in problem(await client.post(f"{path}/export"), 409, "invalid_state")["detail"]
    async with database.transaction() as session:
        job = await JobRepository(session).get(job_id)
        job.spec = job.spec | {"data": job.spec["data"] | {"train": "s3://team/pairs.parquet"}}
    assert "were not uploaded" in problem(await client.post(f"{path}/export"), 409, "invalid_state")["detail"]
    assert len(list(Storage(settings.storage_root).files.iterdir())) == 1


async def test_flags_and_pairs_go_with_the_job_and_the_corrected_file_stays(
    client: httpx.AsyncClient, database: Database, settings: Settings, path: str, job_id: str
) -> None:
    await client.put(f"{path}/1/flag", json={"action": "drop"})
    file_id = (await client.post(f"{path}/export")).json()["id"]
    await deletion.delete(database, settings, "ada", job_id)
    problem(await client.get(path), 404, "not_found")
    assert (await client.get(f"/v1/files/{file_id}")).status_code == 200
    assert not Storage(settings.storage_root).pairs(job_id).exists()


async def test_another_project_sees_and_flags_nothing(client: httpx.AsyncClient, database: Database, path: str) -> None:
    bob = await key_of(database, "bob")
    problem(await client.get(path, headers=bob), 404, "not_found")
    problem(await client.put(f"{path}/1/flag", json={"action": "drop"}, headers=bob), 404, "not_found")
