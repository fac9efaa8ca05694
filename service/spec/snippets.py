"""The same job as other ways to submit it say it."""

import json
import shlex
from pprint import pformat
from typing import Any

import yaml
from pydantic import BaseModel, Field

from service.spec.job import AlignmentJob


class Snippets(BaseModel):
    """Address and key come from PLUMBLINE_URL and PLUMBLINE_API_KEY in all three."""

    body: dict[str, Any] = Field(description="The body of POST /v1/jobs: what was given, and no defaults.")
    curl: str = Field(description="For a POSIX shell.")
    python: str = Field(description="With the package `plumbline`.")
    yaml: str = Field(description="For `plumbline submit FILE.yaml`.")


def snippets(spec: AlignmentJob) -> Snippets:
    body = _given(spec)
    return Snippets(body=body, curl=_curl(body), python=_python(body), yaml=_yaml(body))


def _given(spec: AlignmentJob) -> dict[str, Any]:
    body = spec.model_dump(mode="json", exclude_unset=True)
    for name in ("model", "reference"):
        if isinstance(model := body.get(name), dict) and model.keys() == {"source"}:
            body[name] = model["source"]
    return body


def _curl(body: dict[str, Any]) -> str:
    return "\n".join(
        [
            'curl --fail-with-body "$PLUMBLINE_URL/v1/jobs" \\',
            '  -H "Authorization: Bearer $PLUMBLINE_API_KEY" \\',
            '  -H "Content-Type: application/json" \\',
            f"  --data-raw {shlex.quote(json.dumps(body, indent=2, ensure_ascii=False))}\n",
        ]
    )


def _python(body: dict[str, Any]) -> str:
    literal = pformat(body, width=100, sort_dicts=False)
    create = "with plumbline.Client() as client:\n    print(client.jobs.create(spec).id)"
    return f"import plumbline\n\nspec = {literal}\n{create}\n"


def _yaml(body: dict[str, Any]) -> str:
    return yaml.safe_dump(body, sort_keys=False, allow_unicode=True, width=100)
