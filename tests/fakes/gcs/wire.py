"""Requests and answers of the fake, and the small grammars inside them: ranges, field masks, multipart bodies."""

from __future__ import annotations

import email.parser
import email.policy
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fakes.gcs.state import ApiError
from faults.server import Request

__all__ = [
    "Answer",
    "content_range",
    "json_answer",
    "masked",
    "media_range",
    "parse_json",
    "split_related",
]


@dataclass
class Answer:
    """One answer."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def json_answer(resource: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(
        status,
        {"Content-Type": "application/json; charset=UTF-8", **(headers or {})},
        json.dumps(resource).encode(),
    )


def parse_json(body: bytes) -> dict[str, Any]:
    """The body as an object; an empty body is an empty one."""
    try:
        resource = json.loads(body or b"{}")
    except ValueError:
        raise ApiError(400, "parseError", "Parse Error") from None
    if not isinstance(resource, dict):
        raise ApiError(400, "parseError", "Parse Error")
    return resource


def split_related(request: Request) -> tuple[dict[str, Any], str, bytes]:
    """Metadata, content type and content of a ``multipart/related`` upload."""
    found = re.search(r'boundary="?([^";]+)"?', request.headers.get("content-type", ""))
    if not found:
        raise ApiError(400, "badContent", "Multipart upload without a boundary.")
    edge = b"--" + found[1].encode()
    # The content may hold anything but the boundary.
    parts = [part.removeprefix(b"\r\n") for part in request.body.split(edge)[1:]]
    if len(parts) != 3 or not parts[2].startswith(b"--"):
        raise ApiError(400, "badContent", f"Multipart upload of {len(parts) - 1} parts, not two.")
    split = []
    for part in parts[:2]:
        head, _, body = part.partition(b"\r\n\r\n")
        headers = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + b"\r\n\r\n")
        split.append(
            (str(headers.get("content-type", "application/octet-stream")), body.removesuffix(b"\r\n"))
        )
    return parse_json(split[0][1]), split[1][0], split[1][1]


def content_range(header: str) -> tuple[int | None, int | None, int | None]:
    """First byte, last byte and total of a ``Content-Range``; ``None`` where it has a star."""
    found = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", header)
    if not found:
        raise ApiError(400, "badRequest", f"Failed to parse Content-Range header: {header}")
    first, last, total = (None if part in {None, "*"} else int(part) for part in found.groups())
    if first is not None and last is not None and (last < first or (total is not None and last >= total)):
        raise ApiError(400, "badRequest", f"Invalid Content-Range header: {header}")
    return first, last, total


def media_range(header: str, size: int) -> tuple[int, int] | None:
    """Begin and end of a ``Range`` of ``size`` bytes; None for one that does not count; 416 for one behind the end."""
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", header.strip())
    if not found or found.groups() == ("", ""):
        return None
    if not found[1]:
        return max(0, size - int(found[2])), size
    begin, end = int(found[1]), int(found[2]) + 1 if found[2] else size
    if end <= begin:
        return None
    if begin >= size:
        raise ApiError(416, "requestedRangeNotSatisfiable", "Request range not satisfiable")
    return begin, min(end, size)


def masked(resource: Any, mask: str) -> Any:
    """What a ``fields`` mask leaves: ``a,b(c,d),e/f``."""
    wanted = _parse_mask(mask)
    return _apply(resource, wanted)


def _parse_mask(mask: str) -> dict[str, Any]:
    if not re.fullmatch(r"[A-Za-z0-9_*,()/]+", mask):
        raise ApiError(400, "invalidParameter", f"Invalid field selection {mask}")
    tree: dict[str, Any] = {}
    depth, start = 0, 0
    for at, letter in enumerate(f"{mask},"):
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            item = mask[start:at]
            start = at + 1
            found = re.fullmatch(r"([A-Za-z0-9_*]+)(?:/(.+)|\((.+)\))?", item)
            if not found:
                raise ApiError(400, "invalidParameter", f"Invalid field selection {item}")
            inner = found[2] or found[3]
            tree[found[1]] = _parse_mask(inner) if inner else None
    return tree


def _apply(resource: Any, tree: dict[str, Any] | None) -> Any:
    if tree is None or "*" in tree:
        return resource
    if isinstance(resource, list):
        return [_apply(item, tree) for item in resource]
    return {name: _apply(resource[name], inner) for name, inner in tree.items() if name in resource}
