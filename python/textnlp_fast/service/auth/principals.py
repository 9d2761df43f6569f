"""Roles, and who has one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Literal

from textnlp_fast.service.config import RoleName
from textnlp_fast.storage.registry.grammar import MAX_ACTOR_CHARS

__all__ = ["PERMISSIONS", "Principal", "Role", "role_named", "subject_of"]


class Role(IntEnum):
    """From the least to the most; each may do what those below it may."""

    SCRAPE = 0
    READER = 1
    PUBLISHER = 2
    OPERATOR = 3

    @property
    def word(self) -> RoleName:
        """As files and claims write it."""
        return _WORDS[self]


_WORDS: Final[dict[Role, RoleName]] = {
    Role.SCRAPE: "scrape",
    Role.READER: "reader",
    Role.PUBLISHER: "publisher",
    Role.OPERATOR: "operator",
}
PERMISSIONS: Final[dict[Role, tuple[str, ...]]] = {
    Role.SCRAPE: ("metrics",),
    Role.READER: ("read",),
    Role.PUBLISHER: ("publish", "stage", "alias", "tag", "pin", "transfer"),
    Role.OPERATOR: ("deploy", "collect", "verify_audit"),
}
"""What each role may beyond those below it, in the words of `/me`."""


def role_named(word: str) -> Role | None:
    """The role of this name; None if there is none."""
    return next((role for role in Role if role.word == word), None)


def subject_of(text: object) -> str | None:
    """A subject as records of changes take it: printable, of bounded length; None if nothing is left."""
    if not isinstance(text, str):
        return None
    shown = re.sub(r"\s+", " ", "".join(c if c.isprintable() else " " for c in text)).strip()
    return shown[:MAX_ACTOR_CHARS].strip() or None


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. `how` is what was believed: a token of the file, a token of the identity provider, or nothing."""

    subject: str
    role: Role
    how: Literal["token", "oidc", "open"]

    @property
    def permissions(self) -> list[str]:
        return [each for role in Role if role <= self.role for each in PERMISSIONS[role]]
