"""A NUL character, which PostgreSQL's text cannot hold, wherever a route takes text outside of a body."""

from typing import Any

import httpx
import pytest

from api.app import create_app
from service.db.session import Database
from service.settings import Settings
from tests.service.conftest import add_job

OPERATIONS = [
    (method.upper(), path, operation.get("parameters", []))
    for path, item in create_app(Settings(secret="of no account")).openapi()["paths"].items()
    for method, operation in item.items()
    if path.startswith("/v1/")
]


def takes_text(parameter: dict[str, Any]) -> bool:
    kinds = [parameter["schema"], *parameter["schema"].get("anyOf", [])]
    kinds += [kind["items"] for kind in kinds if "items" in kind]
    return any(kind.get("type") == "string" for kind in kinds)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_nul_in_a_path_or_a_query_is_refused_or_not_found(client: httpx.AsyncClient, database: Database) -> None:
    async with database.transaction() as session:
        exists = {"job_id": (await add_job(session)).id, "project_id": "ada"}
    broken = []
    for method, path, parameters in OPERATIONS:
        texts = [one for one in parameters if takes_text(one)]
        for parameter in texts:
            nul = {parameter["name"]: "\0"}
            values = {one["name"]: exists.get(one["name"], "1") for one in parameters if one["in"] == "path"}
            where = path.format_map(values | {name: "%00" for name in nul if parameter["in"] == "path"})
            query = nul if parameter["in"] == "query" else {}
            if parameter["in"] != "header":
                answer = await client.request(method, where, params=query, json={} if method != "GET" else None)
                broken += [(method, where, query)] if answer.status_code >= 500 else []
    assert broken == []
