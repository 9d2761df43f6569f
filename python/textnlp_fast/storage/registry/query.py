"""The small language of searches: comparisons joined by `and`, `or`, `not` and parentheses.

    name = "org/*" and stage = production and tag.team = nlp and version >= 1.2.0 and created >= 2025-01-01

Nothing in it runs anything, nests deeper than a few levels or takes longer than its text is long.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, Protocol

import semver

from textnlp_fast.errors import QueryError
from textnlp_fast.storage.names import is_version
from textnlp_fast.storage.registry.grammar import is_stage

__all__ = ["And", "Comparison", "Not", "Or", "Query", "Searchable", "parse_query"]

_MAX_CHARS: Final = 4000
_DEEPEST: Final = 32
_TOKEN = re.compile(
    r"""\s*(?:(?P<open>\()|(?P<close>\))|(?P<op>!=|>=|<=|=|>|<)|(?P<text>"(?:[^"\\]|\\.)*"|'[^']*')"""
    r"""|(?P<word>[^\s()=!<>"']+))"""
)
_FIELDS: Final = ("name", "version", "stage", "alias", "target", "created")
_KEYED: Final = ("tag.", "meta.")
_DATE = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\dZ)?", re.ASCII)
_WORDS: Final = frozenset({"and", "or", "not"})


class Searchable(Protocol):
    """A version as searches see it."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def stage(self) -> str: ...
    @property
    def aliases(self) -> tuple[str, ...]: ...
    @property
    def targets(self) -> tuple[str, ...]: ...
    @property
    def tags(self) -> Mapping[str, str]: ...
    @property
    def created_at(self) -> str: ...
    @property
    def metadata(self) -> Mapping[str, str]: ...


class Query(Protocol):
    """Something that versions fit or not."""

    def matches(self, row: Searchable) -> bool: ...


@dataclass(frozen=True, slots=True)
class And:
    parts: tuple[Query, ...]

    def matches(self, row: Searchable) -> bool:
        return all(part.matches(row) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Or:
    parts: tuple[Query, ...]

    def matches(self, row: Searchable) -> bool:
        return any(part.matches(row) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Not:
    part: Query

    def matches(self, row: Searchable) -> bool:
        return not self.part.matches(row)


@dataclass(frozen=True, slots=True)
class Comparison:
    """`field` is one of a version's, `tag.KEY` or `meta.KEY`. `!=` is the opposite of `=`."""

    field: str
    op: str
    value: str

    def matches(self, row: Searchable) -> bool:
        if self.op == "!=":
            return not Comparison(self.field, "=", self.value).matches(row)
        if self.field == "version":
            return _version_fits(row.version, self.op, self.value)
        if self.field == "created":
            return _created_fits(row.created_at, self.op, self.value)
        for prefix, texts in (("tag.", row.tags), ("meta.", row.metadata if self.field[0] == "m" else {})):
            if self.field.startswith(prefix):
                return texts.get(self.field.removeprefix(prefix)) == self.value
        if self.field == "stage":
            return row.stage == self.value.lower()
        if self.field == "name":
            return fnmatchcase(row.name, self.value)
        return any(
            fnmatchcase(each, self.value) for each in (row.aliases if self.field == "alias" else row.targets)
        )


def _version_fits(version: str, op: str, value: str) -> bool:
    mine = semver.Version.parse(version)
    if value[0] in "^~":
        low = semver.Version.parse(value[1:])
        return low <= mine < _ceiling(low, value[0])
    order = mine.compare(semver.Version.parse(value))
    return {"=": order == 0, ">": order > 0, ">=": order >= 0, "<": order < 0, "<=": order <= 0}[op]


def _ceiling(low: semver.Version, mark: str) -> semver.Version:
    """The first version beyond what is compatible with `low`: also before its own pre-releases."""
    if mark == "~":
        high = (low.major, low.minor + 1, 0)
    elif low.major:
        high = (low.major + 1, 0, 0)
    elif low.minor:
        high = (0, low.minor + 1, 0)
    else:
        high = (0, 0, low.patch + 1)
    return semver.Version(*high, prerelease="0")


def _created_fits(created_at: str, op: str, value: str) -> bool:
    # A day is all of its seconds: what was created on it is neither before nor after it.
    mine = created_at[: len(value)]
    return {
        "=": mine == value,
        ">": mine > value,
        ">=": mine >= value,
        "<": mine < value,
        "<=": mine <= value,
    }[op] and bool(created_at)


# --- reading ------------------------------------------------------------------------------------------------


def parse_query(text: str) -> Query:
    """Reads a query; the empty one fits everything. Raises QueryError, with the place of what is wrong."""
    if len(text) > _MAX_CHARS:
        raise QueryError(
            f"the query has {len(text)} characters; at most {_MAX_CHARS} are read", position=_MAX_CHARS
        )
    parser = _Parser(text)
    if parser.kind == "end":
        return And(())
    query = parser.alternatives(0)
    if parser.kind != "end":
        raise parser.wrong("'and' or 'or' is missing")
    return query


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.end = 0
        self.kind = self.token = ""
        self.advance()

    def wrong(self, what: str) -> QueryError:
        return QueryError(f"character {self.at + 1} of the query: {what}", position=self.at)

    def advance(self) -> None:
        stripped = len(self.text) - len(self.text[self.end :].lstrip())
        self.at = stripped
        if stripped >= len(self.text):
            self.kind, self.token, self.at = "end", "", len(self.text)
            return
        match = _TOKEN.match(self.text, self.end)
        if match is None:
            raise self.wrong(f"{self.text[stripped]!r} is nothing that can stand here")
        self.end = match.end()
        self.kind = match.lastgroup or ""
        self.token = match[self.kind]
        if self.kind == "word" and self.token.lower() in _WORDS:
            self.kind = self.token = self.token.lower()

    def alternatives(self, depth: int) -> Query:
        if depth > _DEEPEST:
            raise self.wrong(f"it is nested more than {_DEEPEST} deep")
        parts = [self.conjunction(depth)]
        while self.kind == "or":
            self.advance()
            parts.append(self.conjunction(depth))
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def conjunction(self, depth: int) -> Query:
        parts = [self.factor(depth)]
        while self.kind == "and":
            self.advance()
            parts.append(self.factor(depth))
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def factor(self, depth: int) -> Query:
        negated = False
        while self.kind == "not":
            negated = not negated
            self.advance()
        if self.kind == "open":
            self.advance()
            inner = self.alternatives(depth + 1)
            if self.kind != "close":
                raise self.wrong("a closing parenthesis is missing")
            self.advance()
        else:
            inner = self.comparison()
        return Not(inner) if negated else inner

    def comparison(self) -> Query:
        field = self.token
        if self.kind != "word" or not (field in _FIELDS or any(self._keyed(field, each) for each in _KEYED)):
            known = ", ".join((*_FIELDS, "tag.KEY", "meta.KEY"))
            raise self.wrong(f"{field or 'the end'!r} is none of {known}")
        self.advance()
        if self.kind != "op":
            raise self.wrong("one of = != > >= < <= is missing")
        op = self.token
        if op not in ("=", "!=") and field not in ("version", "created"):
            raise self.wrong(f"{field} has no order: only = and != compare it")
        self.advance()
        if self.kind not in ("word", "text", *_WORDS):
            raise self.wrong(f"the value to compare {field} with is missing")
        value = self.token if self.kind != "text" else _unquoted(self.token)
        self.check_value(field, op, value)
        self.advance()
        return Comparison(field, op, value)

    @staticmethod
    def _keyed(field: str, prefix: str) -> bool:
        return field.startswith(prefix) and len(field) > len(prefix)

    def check_value(self, field: str, op: str, value: str) -> None:
        if field == "version":
            ranged = value[:1] in ("^", "~")
            if not is_version(value[1:] if ranged else value) or (ranged and op not in ("=", "!=")):
                raise self.wrong(f"{value!r} is no version like 1.2.0, nor a range like = ^1.2.0 or = ~1.2.0")
        elif field == "created" and _DATE.fullmatch(value) is None:
            raise self.wrong(f"{value!r} is no date like 2025-01-31 or 2025-01-31T12:00:00Z")
        elif field == "stage" and not is_stage(value.lower()):
            raise self.wrong(f"{value!r} is no stage")


def _unquoted(token: str) -> str:
    inner = token[1:-1]
    return re.sub(r"\\(.)", r"\1", inner) if token[0] == '"' else inner
