"""Every route there is, with another project's things, with a viewer's key, and without one. New routes are found."""

import re
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute

from api.app import create_app
from service.clock import utc_now
from service.conversations import service as conversations
from service.conversations.content import Content
from service.db.evaluation_tables import Evaluation, EvaluationVote, Gate
from service.db.serving_tables import CheckpointExport
from service.db.session import Database
from service.db.tables import Sweep, Upload
from service.db.webhook_tables import Webhook, WebhookDelivery
from service.deployments import service as deployments
from service.evaluations.request import EvaluationRequest
from service.evaluations.states import EvaluationState
from service.files import service as files
from service.ids import new_id
from service.jobs.states import ExportState, JobState
from service.keys.roles import Role
from service.keys.service import Caller, create_key
from service.projects import service as projects
from service.promotions import service as promotions
from service.settings import Settings
from service.spec import Storage
from service.webhooks.states import DeliveryState
from tests.api.conftest import key_of
from tests.pairs_file import write_pairs_file
from tests.service.conftest import add_file, add_job

# What a request needs to get past validation, where that is more than {}.
BODIES: dict[str, Any] = {
    "PATCH /v1/projects/{project_id}": {"quota": {}},
    "POST /v1/uploads/{upload_id}/complete": {"part_ids": ["part-0"]},
    "POST /v1/keys": {"name": "more"},
    "PUT /v1/jobs/{job_id}/pairs/{row}/flag": {"action": "drop"},
    "POST /v1/members": {"user": "eve", "role": "viewer"},
    "POST /v1/projects": {"id": "new"},
    "POST /v1/models/{name}/promote": {"job": "job-" + "0" * 21},
}
_EVALUATED: dict[str, Any] = {
    "models": [{"name": name, "model": "job:none"} for name in ("base", "aligned")],
    "prompts": {"type": "inline", "items": [{"prompt": "Hello"}]},
    "judges": [{"type": "human"}],
}
_CONVERSATION: dict[str, Any] = {
    "models": ["job:none"],
    "sampling": {"max_tokens": 9, "temperature": 0, "seed": 0},
    "turns": [{"prompt": "Hello", "answers": [{"text": "Good day."}]}],
}
BODIES |= {
    "POST /v1/conversations": _CONVERSATION,
    "PUT /v1/conversations/{conversation_id}": _CONVERSATION,
    "POST /v1/losses/curves": {"losses": [{"type": "sigmoid"}]},
    "POST /v1/evaluations": _EVALUATED,
    "POST /v1/evaluations/{evaluation_id}/votes": {"vote_id": "vote-0", "choice": "left"},
    "POST /v1/evaluations/{evaluation_id}/replay": {"position": 0, "model": 0},
    "PUT /v1/gates": {"model_name": "helper", "rule": {"min_win_rate": 0.5}},
}
OPEN = {"/healthz", "/readyz", "/metrics", "/docs", "/docs/oauth2-redirect", "/openapi.json"}
ROUTES = sorted(
    (method, route.path)
    for route in create_app(Settings(secret="a secret of this test")).routes
    if isinstance(route, APIRoute) and route.path.startswith("/v1/")
    for method in route.methods
)
NAMING = [(method, path) for method, path in ROUTES if "{" in path]
ASKING = {("POST", "/v1/comparisons"), ("POST", "/v1/chat/completions"), ("POST", "/v1/completions")}
OWN_SESSION = {("POST", "/v1/session"), ("DELETE", "/v1/session")}  # viewers sign in as well
WRITING = [one for one in ROUTES if one[0] not in ("GET", "HEAD", "OPTIONS") and one not in OWN_SESSION | ASKING]


@pytest.fixture
async def ids(database: Database, settings: Settings, ada: dict[str, str]) -> dict[str, str]:
    """Ada's things, by the name that paths give them."""
    async with database.transaction() as session:
        job = await add_job(session, state=JobState.SUCCEEDED)
        user = await projects.find_or_make_user(session, "ada")
        await projects.set_member(session, "ada", user, Role.ADMIN)
        key, _ = await create_key(session, project_id="ada", name="other")
        running = await add_job(session, state=JobState.RUNNING)
        write_pairs_file(Storage(settings.storage_root).pairs(job.id))
        upload = Upload(
            id=new_id("upload"), project_id="ada", filename="a", bytes=9, created_at=utc_now(), expires_at=utc_now()
        )
        webhook = Webhook(
            id=new_id("webhook"),
            project_id="ada",
            name="",
            url="https://example.org/",
            event_types=[],
            secret_version=1,
            oldest_version=1,
            created_at=utc_now(),
        )
        delivery = WebhookDelivery(
            id=new_id("delivery"),
            webhook_id=webhook.id,
            type="test",
            state=DeliveryState.SUCCEEDED,
            attempts=1,
            failures=0,
            created_at=utc_now(),
        )
        sweep = Sweep(id=new_id("sweep"), project_id="ada", body_sha256="0" * 64, changes=[], created_at=utc_now())
        evaluation = Evaluation(
            id=new_id("eval"),
            project_id="ada",
            body_sha256="0" * 64,
            spec=EvaluationRequest.model_validate(_EVALUATED).model_dump(mode="json"),
            state=EvaluationState.VOTING,
            num_items=1,
            created_at=utc_now(),
        )
        session.add_all([upload, webhook, delivery, sweep, evaluation])
        await session.flush()
        vote = EvaluationVote(
            id=new_id("vote"),
            evaluation_id=evaluation.id,
            judge=0,
            voter="ada",
            position=0,
            model=1,
            baseline=0,
            model_left=True,
            dealt_at=utc_now(),
        )
        session.add_all(
            [vote, Gate(project_id="ada", model_name="helper", rule={"min_votes": 1}, updated_at=utc_now())]
        )
        export = CheckpointExport(
            job_id=job.id,
            step=987654,
            state=ExportState.READY,
            generation=1,
            failures=0,
            created_at=utc_now(),
            updated_at=utc_now(),
        )
        session.add(export)
        await session.flush()
        owner = Caller(project_id="ada", key_id=key.id, user_id=user.id, role=Role.MEMBER, name="ada")
        await deployments.want(session, job, export.step)
        await promotions.promote(session, "ada", "kind-helper", job.id)
    conversation, _ = await conversations.create(database, owner, Content.model_validate(_CONVERSATION))
    file_id = await add_file(database, settings, b"{}\n")
    return {
        "job_id": job.id,
        "sweep_id": sweep.id,
        "model": f"job:{job.id}",
        "file_id": file_id,
        "key_id": key.id,
        "user_id": user.id,
        "project_id": "ada",
        "upload_id": upload.id,
        "webhook_id": webhook.id,
        "delivery_id": delivery.id,
        "running": running.id,
        "step": str(export.step),
        "name": "kind-helper",
        "conversation_id": conversation.id,
        "evaluation_id": evaluation.id,
        "vote_id": vote.id,
        "model_name": "helper",
        "row": "1",
    }


async def admin_of(database: Database, project_id: str, role: Role = Role.ADMIN) -> dict[str, str]:
    async with database.transaction() as session:
        _, key = await create_key(session, project_id=project_id, name="test", role=role)
    return {"Authorization": f"Bearer {key}"}


async def send(
    client: httpx.AsyncClient, method: str, path: str, ids: dict[str, str], **headers: str
) -> httpx.Response:
    missing = set(re.findall(r"{(\w+)}", path)) - ids.keys()
    assert not missing, f"tell the fixture `ids` what {missing} of {path} may be"
    body = BODIES.get(f"{method} {path}", {}) if method in ("POST", "PUT", "PATCH") else None
    return await client.request(method, path.format(**ids), json=body, headers=headers)


async def test_what_belongs_to_another_project_is_not_there(
    client: httpx.AsyncClient, database: Database, ids: dict[str, str]
) -> None:
    bob = await admin_of(database, "bob")
    unknown = {name: _unknown(value) for name, value in ids.items()}
    assert NAMING
    for method, path in NAMING:
        answer = await send(client, method, path, ids, **bob)
        assert answer.status_code == 404, f"{method} {path}: {answer.text}"
        same = await send(client, method, path, unknown, **bob)
        assert _without_ids(same.text) == _without_ids(answer.text), f"{method} {path} tells whether it is there"


async def test_a_viewer_writes_nothing(client: httpx.AsyncClient, database: Database, ids: dict[str, str]) -> None:
    viewer = await admin_of(database, "ada", Role.VIEWER)
    assert WRITING
    for method, path in WRITING:
        answer = await send(client, method, path, ids, **viewer)
        assert answer.status_code == 403, f"{method} {path}: {answer.text}"
        assert "forbidden" in answer.text


async def test_a_viewer_asks_the_models(client: httpx.AsyncClient, database: Database, ids: dict[str, str]) -> None:
    viewer = await admin_of(database, "ada", Role.VIEWER)
    model = f"job:{ids['job_id']}"
    bodies = {
        "/v1/comparisons": {"job_id": ids["job_id"], "prompt": "Hello"},
        "/v1/chat/completions": {"model": model, "messages": [{"role": "user", "content": "Hello"}]},
        "/v1/completions": {"model": model, "prompt": "Hello"},
    }
    for method, path in ASKING:
        answer = await client.request(method, path, json=bodies[path], headers=viewer)
        assert answer.status_code in (409, 503), f"{path}: {answer.text}"  # it was let in, and nothing is deployed


async def test_nothing_is_there_without_a_key(client: httpx.AsyncClient, ids: dict[str, str]) -> None:
    for method, path in ROUTES:
        answer = await send(client, method, path, ids, Authorization="Bearer pk-" + "a" * 43)
        assert answer.status_code == 401, f"{method} {path}: {answer.text}"


def test_every_other_route_is_open_on_purpose() -> None:
    app = create_app(Settings(secret="a secret of this test"))
    others = {getattr(route, "path", "") for route in app.routes if not getattr(route, "path", "").startswith("/v1/")}
    assert {path for path in others if not path.startswith(("/internal/attempts/{attempt_id}", "/static-"))} <= OPEN


async def test_a_body_names_nothing_of_another_project(
    client: httpx.AsyncClient, database: Database, ids: dict[str, str]
) -> None:
    job, file, model = ids["job_id"], ids["file_id"], ids["model"]
    for path, body in [
        ("/v1/comparisons", {"job_id": job, "prompt": "Hello"}),
        ("/v1/comparisons", {"job_id": "kind-helper", "prompt": "Hello"}),
        ("/v1/models/mine/promote", {"job": job}),
        ("/v1/chat/completions", {"model": "kind-helper", "messages": [{"role": "user", "content": "Hello"}]}),
        ("/v1/jobs", {"model": f"{model}@{ids['step']}", "data": {"train": "hf:team/rows"}}),
        ("/v1/evaluations", _EVALUATED | {"models": [{"name": "theirs", "model": model}, {"name": "b", "model": "b"}]}),
        ("/v1/jobs", {"model": model, "data": {"train": "hf:team/rows"}}),
        ("/v1/jobs", {"model": "hf:team/model", "data": {"train": file}}),
        ("/v1/data-previews", {"data": {"train": file}}),
        ("/v1/data-previews", {"model": model, "data": {"train": file}}),
        ("/v1/fine_tuning/jobs", {"model": "hf:team/model", "training_file": file, "method": {"type": "dpo"}}),
    ]:
        answer = await client.post(path, json=body, headers=await key_of(database, "bob"))
        assert answer.status_code in (400, 404, 422), path
        assert "among yours" in answer.text, f"{path}: {answer.text}"


async def test_lists_show_nothing_of_another_project(
    client: httpx.AsyncClient, database: Database, ids: dict[str, str]
) -> None:
    bob = await admin_of(database, "bob")
    for method, path in ROUTES:
        if method == "GET" and "{" not in path:
            answer = await client.get(path, headers=bob)
            assert answer.status_code == 200, path
            named = [value for value in ids.values() if value not in ("ada", "1") and value in answer.text]
            assert not named, f"{path} shows {named}"


async def test_a_file_of_another_project_stays(
    client: httpx.AsyncClient, database: Database, settings: Settings, ids: dict[str, str]
) -> None:
    await client.delete(f"/v1/files/{ids['file_id']}", headers=await key_of(database, "bob"))
    _, content = await files.open_content(database, settings, "ada", ids["file_id"])
    with content:
        assert content.read() == b"{}\n"


def _unknown(value: str) -> str:
    if value.isdigit():
        return "999"
    prefix = value.rpartition("-")[0]
    return new_id(prefix) if "-" in value and ":" not in value else f"job:{new_id('job')}" if ":" in value else "nobody"


def _without_ids(text: str) -> str:
    return re.sub(r"(job|file|key|user|req|upload|webhook|delivery|sweep|eval|vote|conv)-[0-9a-f]{21}", "ID", text)
