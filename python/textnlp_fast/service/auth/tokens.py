"""The tokens file: who has which role, known by the digest of a token that is nowhere else than with its owner.

One entry a line, each YAML by itself, so that a new one is appended in one write:

    - {subject: ci-release, role: publisher, sha256: 2c26b46b..., created_at: 2026-01-31T12:00:00Z}

A token is 256 bits by chance: nobody finds it by its digest, salted or not.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

import yaml

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.service.auth.principals import Principal, Role, role_named, subject_of
from textnlp_fast.service.blocking import Blocking
from textnlp_fast.service.config import ROLES
from textnlp_fast.service.problems import UnauthenticatedError
from textnlp_fast.storage.names import now_utc

__all__ = ["TokenEntry", "TokenFile", "new_token", "read_tokens"]

_log = logging.getLogger(__name__)
PREFIX: Final = "tnf_"
_LIMIT_BYTES: Final = 1 << 20
_LOOK_AGAIN_S: Final = 1.0
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_KEYS: Final = frozenset({"subject", "role", "sha256", "created_at", "expires_at"})


@dataclass(frozen=True, slots=True)
class TokenEntry:
    """Who has a token. `expires_s` since the epoch; None: never."""

    subject: str
    role: Role
    digest: bytes
    expires_s: float | None = None


class TokenFile:
    """Knows bearers by their tokens. A file that changes is read again within a second.

    A file that is gone lets nobody in. One that cannot be read is told of, and the tokens before stay: whoever edits a
    file leaves half of it there for a moment.
    """

    def __init__(self, path: Path, blocking: Blocking) -> None:
        self._path = path
        self._blocking = blocking
        self._entries = read_tokens(path)
        self._state = _state_of(path)
        self._looked_s = time.monotonic()

    async def principal(self, token: str) -> Principal | None:
        """Who bears the token; None if it is none of these."""
        now = time.monotonic()
        if now - self._looked_s >= _LOOK_AGAIN_S:
            self._looked_s = now
            await self._blocking.run(self._look)
        return self.bearer(token)

    def bearer(self, token: str) -> Principal | None:
        """The same of what was read last. Compares with every entry, so that time tells nothing.

        Raises UnauthenticatedError for a token that has expired.
        """
        digest = hashlib.sha256(token.encode()).digest()
        found: TokenEntry | None = None
        for entry in self._entries:
            if hmac.compare_digest(entry.digest, digest):
                found = entry
        if found is None:
            return None
        if found.expires_s is not None and found.expires_s <= time.time():
            raise UnauthenticatedError(
                f"the token of {found.subject} has expired", hint="Ask an operator for another."
            )
        return Principal(found.subject, found.role, "token")

    def _look(self) -> None:
        state = _state_of(self._path)
        if state == self._state:
            return
        if state is None:
            self._entries, self._state = (), None
            _log.error("the tokens file is gone: nobody is let in by a token")
            return
        try:
            self._entries = read_tokens(self._path)
        except InvalidInputError as error:
            _log.error("the tokens file cannot be read, the tokens before stay: %s", error.args[0])
        self._state = state


def read_tokens(path: Path) -> tuple[TokenEntry, ...]:
    """The entries of a tokens file. Raises InvalidInputError."""
    try:
        with path.open("rb") as file:
            data = file.read(_LIMIT_BYTES + 1)
    except OSError as error:
        raise InvalidInputError(
            f"cannot read tokens from {path}: {error.strerror}",
            hint="`textnlp-fast serve --new-token NAME --role reader --tokens FILE` makes the file.",
        ) from error
    if len(data) > _LIMIT_BYTES:
        raise InvalidInputError(f"{path} has more than {_LIMIT_BYTES} bytes: it is no file of tokens")
    try:
        document = yaml.safe_load(data.decode())
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        raise InvalidInputError(f"{path} is not YAML") from None
    if document is None:
        return ()
    if not isinstance(document, list):
        raise InvalidInputError(f"{path} is not a list of tokens")
    return tuple(_entry(each, f"{path}, token {number}") for number, each in enumerate(document, 1))


def _entry(value: object, where: str) -> TokenEntry:
    if not isinstance(value, dict):
        raise InvalidInputError(f"{where} is no object of subject, role and sha256")
    unknown = sorted(str(key) for key in value.keys() - _KEYS)
    if unknown:
        raise InvalidInputError(
            f"{where} has an entry {unknown[0]!r}",
            hint=f"It may have: {', '.join(sorted(_KEYS))}. The token itself is never written here.",
        )
    subject, digest, word = value.get("subject"), value.get("sha256"), value.get("role")
    role = role_named(word) if isinstance(word, str) else None
    if role is None:
        raise InvalidInputError(f"{where} has no role of {', '.join(ROLES)}")
    if not isinstance(subject, str) or subject_of(subject) != subject:
        raise InvalidInputError(f"{where} has no subject of up to 128 printable characters")
    if not isinstance(digest, str) or _DIGEST.fullmatch(digest) is None:
        raise InvalidInputError(f"{where} has no sha256 of 64 lower-case hex digits")
    return TokenEntry(subject, role, bytes.fromhex(digest), _moment(value.get("expires_at"), where))


def _moment(value: Any, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.replace("Z", "+00:00"))
        except ValueError:
            value = None
    if not isinstance(value, datetime):
        raise InvalidInputError(f"{where} has an expires_at that is no time like 2026-01-31T12:00:00Z")
    return (value if value.tzinfo else value.replace(tzinfo=timezone.utc)).timestamp()


def new_token(path: Path, subject: str, role: Role, *, expires_at: str | None = None) -> str:
    """Makes a token, appends its digest to the file (which it makes, for the owner alone to read), and returns it.

    Raises InvalidInputError for a subject that is none, or one that has a token of another role.
    """
    if subject_of(subject) != subject:
        raise InvalidInputError(
            f"{subject!r} does not say who this is", hint="Give a name: alice, ci-release."
        )
    expires_s = _moment(expires_at, "the new token")
    if expires_s is not None and expires_s <= time.time():
        raise InvalidInputError(f"the token would have expired at {expires_at}", hint="Give a time to come.")
    token = PREFIX + secrets.token_urlsafe(32)
    fields = {
        "subject": subject,
        "role": role.word,
        "sha256": hashlib.sha256(token.encode()).hexdigest(),
        "created_at": now_utc(),
        **({"expires_at": expires_at} if expires_at else {}),
    }
    line = "- {" + ", ".join(f"{key}: {json.dumps(value)}" for key, value in fields.items()) + "}\n"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            known = read_tokens(path)  # nothing is appended to what is no tokens file
            if any(each.subject == subject and each.role is not role for each in known):
                raise InvalidInputError(
                    f"{subject} has a token of another role",
                    hint="Take that entry out first, or choose a name.",
                )
            size = os.fstat(descriptor).st_size
            ends = size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"
            os.write(descriptor, (line if ends else "\n" + line).encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise InvalidInputError(f"cannot write {path}: {error.strerror}") from error
    return token


def _state_of(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
