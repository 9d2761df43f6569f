"""JSON over HTTP with deadlines, bounded bodies and bounded retries: for price lists that need no client of a cloud."""

from __future__ import annotations

import http.client
import json
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from email.message import Message
from typing import IO, Any, Final
from urllib.parse import urlsplit

from textnlp_fast.errors import AuthenticationError, InvalidInputError, ProviderUnavailableError
from textnlp_fast.gpu.catalog.refresh.readings import strange

__all__ = ["JsonClient"]

_TRIES: Final = 5
_RETRIED: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
#: A page of Google's list, the largest here, has some MB.
_LIMIT_BYTES: Final = 32 << 20
_LONGEST_PAUSE_S: Final = 30.0


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A price list does not move, and an Authorization header must not follow it."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        return None


class JsonClient:
    """Gets JSON objects from one origin. `headers` are asked for anew for every try: tokens expire."""

    def __init__(
        self,
        what: str,
        origin: str,
        *,
        headers: Callable[[], Mapping[str, str]] = dict,
        timeout_s: float = 30.0,
        total_s: float = 120.0,
        limit_bytes: int = _LIMIT_BYTES,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.origin = origin.rstrip("/")
        self._what = what
        self._headers = headers
        self._timeout_s = timeout_s
        self._total_s = total_s
        self._limit = limit_bytes
        self._sleep = sleep
        self._opener = urllib.request.build_opener(_NoRedirects)

    def get(self, url: str) -> dict[str, Any]:
        """The object at a URL of this origin; all tries together take at most `total_s` and one read.

        Raises AuthenticationError, InvalidInputError for requests that the list refuses, and ProviderUnavailableError.
        """
        if urlsplit(url)[:2] != urlsplit(self.origin)[:2]:
            raise strange(self._what, f"it leads away, to {url[:100]}")
        ends = time.monotonic() + self._total_s
        problem = ""
        for number in range(_TRIES):
            pause = min(0.5 * 2**number, 8.0) * random.uniform(0.5, 1.0)
            try:
                return self._parsed(self._once(url, ends))
            except urllib.error.HTTPError as error:
                with error:
                    if error.code not in _RETRIED:
                        raise self._refused(error) from None
                    problem = f"HTTP {error.code}"
                    pause = max(pause, _retry_after(error.headers))
            except (OSError, http.client.HTTPException) as error:
                problem = str(getattr(error, "reason", None) or error) or type(error).__name__
            if number + 1 == _TRIES or time.monotonic() + pause >= ends:
                break
            self._sleep(pause)
        raise ProviderUnavailableError(
            f"{self._what} did not answer: {problem}",
            hint="Check the network and run the command again; former prices are kept.",
        )

    def _once(self, url: str, ends: float) -> bytes:
        request = urllib.request.Request(url, headers={"Accept": "application/json", **self._headers()})
        left = max(0.1, min(self._timeout_s, ends - time.monotonic()))
        with self._opener.open(request, timeout=left) as answer:
            parts: list[bytes] = []
            size = 0
            # read1: returns with what came, so that one who sends a byte at a time does not outlast the deadline.
            while part := answer.read1(1 << 16):
                parts.append(part)
                size += len(part)
                if size > self._limit:
                    raise strange(self._what, f"it has more than {self._limit >> 20} MiB")
                if time.monotonic() > ends:
                    raise TimeoutError("it went on for too long")
            promised = answer.headers.get("Content-Length")
            if promised is not None and promised != str(size):
                raise http.client.IncompleteRead(b"", 0)
        return b"".join(parts)

    def _parsed(self, data: bytes) -> dict[str, Any]:
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            raise strange(self._what, "it is no JSON") from None
        if not isinstance(document, dict):
            raise strange(self._what, "it is no JSON object")
        return document

    def _refused(self, error: urllib.error.HTTPError) -> Exception:
        try:
            said = error.read1(300).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException):
            said = ""
        message = f"{self._what} refused: HTTP {error.code} {' '.join(said.split())}".rstrip()
        if error.code in (401, 403):
            return AuthenticationError(
                message, hint="Log in with the cloud's own tool, and check that you may read prices."
            )
        return InvalidInputError(message, hint="Check the region's name; former prices are kept.")


def _retry_after(headers: Message) -> float:
    """Seconds that a server asks to wait, within reason; a date is not worth reading."""
    text = headers.get("Retry-After", "")
    return min(float(text), _LONGEST_PAUSE_S) if text.isascii() and text.isdigit() and len(text) < 6 else 0.0
