"""Every route of the OpenAPI document, with requests that schemathesis makes up: no 5xx, and nothing undocumented.

`make test-fuzz` looks longer, and elsewhere each time.
"""

import asyncio
import os
from collections.abc import Iterator

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.generation.modes import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.app import create_app
from service.db.migrate import upgrade
from service.db.session import Database
from service.jobs import attempts
from service.jobs.tokens import attempt_token
from service.settings import Settings
from tests.api.conftest import PAIR, Server, key_of, serve
from tests.service.conftest import add_job, make_model

EXAMPLES = int(os.environ.get("PLUMBLINE_FUZZ_EXAMPLES", "15"))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
is_long = EXAMPLES > 15
bounded = hypothesis_settings(
    max_examples=EXAMPLES,
    derandomize=not is_long,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
document = create_app(Settings(secret="of no account")).openapi()
OPERATIONS = sorted(
    (method.upper(), path, mode)
    for path, item in document["paths"].items()
    for method, operation in item.items()
    for mode in GenerationMode
    if mode.is_positive or {"parameters", "requestBody"} & operation.keys()
)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(home=tmp_path_factory.mktemp("fuzzed"), secret="a secret of this test", stream_lifetime_s=0.1)


class Known:
    """What exists, to get past 404: ids by the name of a path's parameter, and the headers that let one in."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.model = str(make_model(settings.storage_root / "models" / "tiny"))
        asyncio.run(self._fill())

    async def _fill(self) -> None:
        await asyncio.to_thread(upgrade, self.settings.sqlalchemy_url)
        database = Database(self.settings.sqlalchemy_url)
        self.key = await key_of(database, "ada")
        async with database.transaction() as session:
            job = await add_job(session)
            attempt = await attempts.start_attempt(session, job)
        await database.close()
        self.token = {"Authorization": f"Bearer {attempt_token(self.settings, attempt.id)}"}
        self.ids = {"job_id": job.id, "attempt_id": attempt.id, "model": f"job:{job.id}"}

    def headers(self, path: str) -> dict[str, str]:
        return self.token if path.startswith("/internal/") else self.key


@pytest.fixture(scope="module")
def known(settings: Settings) -> Known:
    return Known(settings)


@pytest.fixture(scope="module")
def fuzzed(known: Known) -> Iterator[Server]:
    yield from serve(create_app(known.settings))


@pytest.fixture(scope="module")
def file_id(fuzzed: Server, known: Known) -> str:
    sent = httpx.post(f"{fuzzed.url}/v1/files", files={"file": ("pairs.jsonl", PAIR)}, headers=known.key)
    return str(sent.json()["id"])


schema = schemathesis.openapi.from_dict(document)
schema.config.generation.update(allow_x00=True)


@pytest.mark.parametrize(("method", "path", "mode"), OPERATIONS, ids=str)
def test_no_request_breaks_a_route_or_gets_what_is_not_documented(
    fuzzed: Server, known: Known, file_id: str, method: str, path: str, mode: GenerationMode
) -> None:
    operation = schema[path][method]
    ids = known.ids | {"file_id": file_id}
    exists = {name: value for name, value in ids.items() if "{" + name + "}" in path}

    @bounded
    @given(case=st.one_of(operation.as_strategy(mode, path_parameters=exists), operation.as_strategy(mode)))
    def fuzz(case: schemathesis.Case) -> None:
        if method == "POST" and path == "/v1/jobs" and isinstance(case.body, dict) and mode.is_positive:
            case.body = case.body | {"model": known.model, "data": {"train": file_id}}
        response = case.call(base_url=fuzzed.url, headers=known.headers(path))
        case.validate_response(response, checks=CHECKS)

    fuzz()
