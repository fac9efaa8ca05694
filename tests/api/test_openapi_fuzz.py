"""Every route of the OpenAPI document, with requests that schemathesis makes up, each for one of the two databases: no
5xx, and nothing undocumented.

`make test-fuzz` looks longer, and elsewhere each time.
"""

import asyncio
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

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
from service.spec import Storage
from tests.api.conftest import PAIR, Server, key_of, serve
from tests.databases import KINDS, Postgres
from tests.pairs_file import write_pairs_file
from tests.service.conftest import add_file, add_job, make_model

EXAMPLES = int(os.environ.get("PLUMBLINE_FUZZ_EXAMPLES", "15"))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
ASK_THE_CLUSTER = {"/v1/jobs/{job_id}/logs"}
bounded = hypothesis_settings(
    max_examples=EXAMPLES,
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
        self.file_id = await add_file(database, self.settings, PAIR)
        await database.close()
        self.token = {"Authorization": f"Bearer {attempt_token(self.settings, attempt.id)}"}
        write_pairs_file(Storage(self.settings.storage_root).pairs(job.id))
        self.ids: dict[str, Any] = {"job_id": job.id, "row": 1, "attempt_id": attempt.id, "model": f"job:{job.id}"}
        self.ids["file_id"] = self.file_id

    def headers(self, path: str) -> dict[str, str]:
        return self.token if path.startswith("/internal/") else self.key


@dataclass(frozen=True)
class Fuzzed:
    """The application on one of the databases."""

    known: Known
    server: Server


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory, postgres_server: Postgres) -> Iterator[dict[str, Fuzzed]]:
    """By the kind of the database."""
    options = {"secret": "a secret of this test", "stream_lifetime_s": 0.1}
    name = postgres_server.create()
    urls = {"sqlite": None, "postgresql": postgres_server.url(name)}
    with ExitStack() as stack:
        running = {}
        for kind, url in urls.items():
            known = Known(Settings(home=tmp_path_factory.mktemp(kind), database_url=url, **options))
            server = stack.enter_context(contextmanager(serve)(create_app(known.settings)))
            running[kind] = Fuzzed(known, server)
        yield running
    postgres_server.drop(name)


schema = schemathesis.openapi.from_dict(document)
schema.config.generation.update(allow_x00=True)


@pytest.mark.parametrize(("method", "path", "mode"), OPERATIONS, ids=str)
def test_no_request_breaks_a_route_or_gets_what_is_not_documented(
    fuzzed: dict[str, Fuzzed], method: str, path: str, mode: GenerationMode
) -> None:
    operation = schema[path][method]
    named = [name for name in fuzzed["sqlite"].known.ids if "{" + name + "}" in path]
    exists = {name: f"known-{name}" for name in named}  # in whose place each database's own is put

    @bounded
    @given(
        case=st.one_of(operation.as_strategy(mode, path_parameters=exists), operation.as_strategy(mode)),
        kind=st.sampled_from(KINDS),
    )
    def fuzz(case: schemathesis.Case, kind: str) -> None:
        known = fuzzed[kind].known
        for name in named:
            if case.path_parameters.get(name) == exists[name]:
                case.path_parameters[name] = known.ids[name]
        if method == "POST" and path == "/v1/jobs" and isinstance(case.body, dict) and mode.is_positive:
            case.body = case.body | {"model": known.model, "data": {"train": known.file_id}}
        response = case.call(base_url=fuzzed[kind].server.url, headers=known.headers(path), timeout=120)
        away = path in ASK_THE_CLUSTER and response.status_code == 503  # there is none, and they say so
        case.validate_response(
            response, checks=[check for check in CHECKS if not (away and check is not_a_server_error)]
        )

    fuzz()
