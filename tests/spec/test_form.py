"""What a form is told about a job."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from service.spec.base import title_of
from service.spec.form import job_schema

SCHEMA = job_schema().json_schema


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    if reference := schema.get("$ref"):
        return dict(SCHEMA["$defs"][reference.rpartition("/")[2]])
    return schema


def leaves(schema: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Fields that hold a value; one of an object alone is its own fields, and a union is one value."""
    for name, field in schema["properties"].items():
        inner = resolved(field)
        whole = prefix + name in ("model", "reference")  # written as one string
        if "properties" in inner and not whole:
            yield from leaves(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def test_a_form_asks_for_every_field_once() -> None:
    asked = Counter(path for group in job_schema().groups for path in (*group.fields, *group.advanced))
    assert asked == Counter(path for path, _ in leaves(SCHEMA))


def test_every_field_says_what_it_is() -> None:
    assert [path for path, field in leaves(SCHEMA) if not (resolved(field) | field).get("description")] == []
    assert all(field.get("title") or "$ref" in field for path, field in leaves(SCHEMA))


def test_titles_are_words_and_units_stand_apart() -> None:
    assert title_of("start_timeout_s") == "Start timeout"
    assert title_of("gpus_per_worker") == "GPUs per worker"
    timeout = SCHEMA["$defs"]["Resources"]["properties"]["start_timeout_s"]
    assert (timeout["title"], timeout["unit"]) == ("Start timeout", "s")


def test_every_count_has_a_unit() -> None:
    bare = [path for path, field in leaves(SCHEMA) if kind(field) == "integer" and not field.get("unit")]
    assert sorted(bare) == ["priority", "training.seed"]  # they count nothing


def kind(field: dict[str, Any]) -> Any:
    return field.get("type") or next((one.get("type") for one in field.get("anyOf", ())), None)
