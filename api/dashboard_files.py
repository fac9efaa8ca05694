"""The dashboard's files, and what a browser may do with its page.

Pages have addresses of their own (`/jobs/ID`), which no file answers: a browser that opens one gets `index.html`, and
the router in it finds the page.
"""

import base64
import hashlib
import re
from pathlib import Path

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

DASHBOARD = Path(__file__).parent / "dashboard"
_PAGE = "/index.html"
_IMPORT_MAP = re.compile(rb'<script type="importmap">(.*?)</script>', re.DOTALL)


class DashboardFiles:
    """For paths that no route knows: the dashboard's files, except under the API's own prefixes.

    Not a mount at `/`, which would answer for a wrong method on a known path too.
    """

    def __init__(self) -> None:
        self._files: ASGIApp | None = StaticFiles(directory=DASHBOARD, html=True) if DASHBOARD.is_dir() else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._files is None or scope["path"].startswith(("/v1/", "/internal/")):
            raise HTTPException(404)
        await self._files({**scope, "path": _PAGE} if _is_page(scope) else scope, receive, send)


def script_sources() -> str:
    """For `script-src`: files of this origin, and the import map of the page by its hash. An import map cannot be a
    file of its own."""
    page = DASHBOARD / "index.html"
    maps = _IMPORT_MAP.findall(page.read_bytes()) if page.is_file() else []
    hashes = [base64.b64encode(hashlib.sha256(one).digest()).decode() for one in maps]
    return " ".join(["'self'", *(f"'sha256-{one}'" for one in hashes)])


def _is_page(scope: Scope) -> bool:
    """Whether a person has opened an address in a browser. Scripts and tools that ask for a path get 404."""
    asks_for_page = "text/html" in Headers(scope=scope).get("accept", "")
    return scope["method"] in ("GET", "HEAD") and asks_for_page and "." not in scope["path"].rpartition("/")[2]
