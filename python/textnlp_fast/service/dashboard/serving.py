"""How the dashboard's files get into a browser: from memory, under a policy that lets nothing else in.

The files are a part of the package and never change while it runs. So they are read once, compressed once and named by
their bytes (ETag): a page that is opened again costs one small answer a file. All that the pages show, they ask the API
for, with the caller's own token; the files themselves say nothing that is not public, and need none.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from textnlp_fast.service.problems import problem_response
from textnlp_fast.service.schemas import Problem

__all__ = ["POLICY", "mount"]

# Not asked of the machine, whose tables differ: a script of another type is refused by browsers.
_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""The content security policy of the pages: their own files, and requests to the service that they came from."""

_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # May be kept, but not used before the service was asked whether it is still this one.
    "Cache-Control": "no-cache",
    "Vary": "Accept-Encoding",
}


@dataclass(frozen=True, slots=True)
class _File:
    plain: bytes
    packed: bytes
    kind: str
    tag: str


def mount(app: FastAPI) -> None:
    """Adds the pages at `/` and their files at `/dashboard/…`. After the routes of the API: those come first."""

    async def page(request: Request) -> Response:
        return _answer(request, "index.html")

    async def file(request: Request) -> Response:
        return _answer(request, request.path_params["path"])

    app.add_route("/", page, methods=["GET", "HEAD"], include_in_schema=False)
    app.add_route("/dashboard/{path:path}", file, methods=["GET", "HEAD"], include_in_schema=False)


def _answer(request: Request, path: str) -> Response:
    found = _files().get(path)
    if found is None:
        return problem_response(
            Problem(
                type="urn:textnlp-fast:problem:not-found",
                title="Not found",
                status=404,
                detail="the dashboard has no such file",
                hint="The dashboard is at /.",
                code="NotFound",
            )
        )
    headers = {**_HEADERS, "ETag": found.tag}
    if found.tag in (each.strip() for each in request.headers.get("if-none-match", "").split(",")):
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(found.packed, headers={**headers, "Content-Encoding": "gzip"}, media_type=found.kind)
    return Response(found.plain, headers=headers, media_type=found.kind)


@cache
def _files() -> Mapping[str, _File]:
    """All files by their path below `static/`. Only these can be asked for, whatever a path looks like."""
    root = Path(__file__).with_name("static")
    found = (each for each in sorted(root.rglob("*")) if each.suffix[1:] in _TYPES)
    return {each.relative_to(root).as_posix(): _read(each) for each in found}


def _read(path: Path) -> _File:
    data = path.read_bytes()
    # Without a time in it: the same bytes in every replica. Weak, for it names both encodings.
    packed = gzip.compress(data, mtime=0)
    return _File(data, packed, _TYPES[path.suffix[1:]], f'W/"{hashlib.sha256(data).hexdigest()[:32]}"')
