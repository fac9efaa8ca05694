from pathlib import Path
from typing import Any

import pytest

from service.db.session import Database
from service.errors import IdempotencyConflict, InvalidRequest, NotFound
from service.jobs.clone import clone
from service.jobs.merge_patch import merge_patch
from service.jobs.service import submit
from service.settings import Settings
from service.spec import AlignmentJob
from tests.service.conftest import add_file, make_model

# Appendix A of RFC 7396
CASES: list[tuple[Any, Any, Any]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("target", "patch", "merged"), CASES)
def test_patches_merge_as_the_rfc_says(target: Any, patch: Any, merged: Any) -> None:
    assert merge_patch(target, patch) == merged


@pytest.fixture
async def spec(database: Database, settings: Settings, tmp_path: Path) -> AlignmentJob:
    model = make_model(settings.storage_root / "models" / "tiny")
    file_id = await add_file(database, settings, b'{"prompt": "Hello", "chosen": "Good day.", "rejected": "What."}\n')
    training = {"batch_size": 4, "seed": 7}
    return AlignmentJob.model_validate({"model": str(model), "data": {"train": file_id}, "training": training})


async def test_a_clone_has_the_changes_and_all_else_of_the_first(
    database: Database, settings: Settings, spec: AlignmentJob
) -> None:
    first, _ = await submit(database, settings, "ada", spec)
    patch = {"losses": [{"type": "ipo"}], "training": {"seed": None, "epochs": 3}}
    made, _ = await clone(database, settings, "ada", first.id, patch)
    assert (made.cloned_from, made.id != first.id) == (first.id, True)
    assert made.spec["losses"][0]["type"] == "ipo"
    expected = first.spec["training"] | {"seed": 0, "epochs": 3}
    assert made.spec["training"] == expected
    assert (made.spec["data"], made.spec["model"]) == (first.spec["data"], first.spec["model"])


async def test_a_repeated_key_clones_once(database: Database, settings: Settings, spec: AlignmentJob) -> None:
    first, _ = await submit(database, settings, "ada", spec)
    made, replayed = await clone(database, settings, "ada", first.id, {"name": "b"}, "once")
    again, replayed_again = await clone(database, settings, "ada", first.id, {"name": "b"}, "once")
    assert (made.id, replayed, replayed_again) == (again.id, False, True)
    with pytest.raises(IdempotencyConflict):
        await clone(database, settings, "ada", first.id, {"name": "c"}, "once")


async def test_a_patch_that_leaves_no_job_names_its_field(
    database: Database, settings: Settings, spec: AlignmentJob
) -> None:
    first, _ = await submit(database, settings, "ada", spec)
    with pytest.raises(InvalidRequest, match=r"training\.batch_size"):
        await clone(database, settings, "ada", first.id, {"training": {"batch_size": 0}})
    with pytest.raises(InvalidRequest, match="model: this field is required"):
        await clone(database, settings, "ada", first.id, {"model": None})
    with pytest.raises(NotFound):
        await clone(database, settings, "bob", first.id, {})
