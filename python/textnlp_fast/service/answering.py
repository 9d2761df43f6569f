"""Answers as bytes that are kept: made once, checked against the schema there, and sent with their ETag."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Final

from fastapi import Request
from pydantic import BaseModel
from starlette.responses import Response

from textnlp_fast.errors import TextnlpFastError
from textnlp_fast.hashing import blake3_hex
from textnlp_fast.service.problems import ServiceTimeoutError
from textnlp_fast.service.state import Service

__all__ = ["Kept", "answer", "kept_answer", "kept_answer_later"]


# What takes a millisecond or two.
_AT_ONCE: Final = 1000


@dataclass(frozen=True, slots=True)
class Kept:
    """The bytes of an answer and their ETag."""

    body: bytes
    etag: str


def _kept(document: BaseModel) -> Kept:
    body = document.model_dump_json(by_alias=True).encode()
    return Kept(body, f'"{blake3_hex(body)[:32]}"')


def answer(request: Request, kept: Kept) -> Response:
    """The answer, or 304 where the caller has it already."""
    headers = {"ETag": kept.etag, "Cache-Control": "private, no-cache"}
    wanted = request.headers.get("if-none-match")
    if wanted is not None and (
        wanted.strip() == "*" or kept.etag in [each.strip().removeprefix("W/") for each in wanted.split(",")]
    ):
        return Response(status_code=304, headers=headers)
    return Response(kept.body, media_type="application/json", headers=headers)


async def kept_answer(
    request: Request, service: Service, key: Hashable, build: Callable[[], BaseModel], *, of: int
) -> Response:
    """The answer under `key`, which names all that it is made of; `build` makes it of what is in memory.

    `of` is how many things it looks at for that: of many, it does so on a thread.
    """
    kept = service.answers.get(key)
    if isinstance(kept, Kept):
        return answer(request, kept)

    def made() -> Kept:
        return _kept(build())

    async def made_elsewhere() -> Kept:
        return await service.blocking.run(made)

    new = made() if of <= _AT_ONCE else await service.flights.run(("answer", key), made_elsewhere)
    service.answers.put(key, new, len(new.body) + 500)
    return answer(request, new)


async def kept_answer_later(
    request: Request,
    service: Service,
    key: Hashable,
    build: Callable[[], Awaitable[BaseModel]],
    *,
    wait_s: float | None = None,
) -> Response:
    """The same of what has to be waited for: however many ask for it, it is made once.

    After `wait_s` it raises ServiceTimeoutError, while the work goes on for whoever asks again.
    """
    kept = service.answers.get(key)
    if isinstance(kept, Kept):
        return answer(request, kept)

    async def made() -> Kept:
        new = _kept(await build())
        service.answers.put(key, new, len(new.body) + 500)
        return new

    try:
        return answer(request, await asyncio.wait_for(service.flights.run(("answer", key), made), wait_s))
    except TextnlpFastError:
        raise  # among them some that are timeouts of the work itself
    except asyncio.TimeoutError:
        raise ServiceTimeoutError(f"the answer is not there after {wait_s:g} s; it is being made") from None
