"""What models and versions are called, which version is the latest, and what a reference means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import lru_cache
from typing import Final

import semver

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.storage.registry.grammar import check_alias, check_stage

__all__ = [
    "BUILD_KEY",
    "STAGE_PREFIX",
    "ModelReference",
    "check_name",
    "check_selector",
    "check_version",
    "is_version",
    "latest_of",
    "manifest_key",
    "now_utc",
    "parse_reference",
    "precedence",
    "split_build",
]

STAGE_PREFIX: Final = "stage:"
BUILD_KEY: Final = "build"
"""In the metadata of a version that was pushed with build metadata."""
_URL_PREFIX: Final = "models:/"
_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}", re.ASCII)
# Below a model's name they are keys of the repository's own.
_RESERVED_WORDS: Final = frozenset({"versions", "refs.json"})


@dataclass(frozen=True, slots=True)
class ModelReference:
    """`NAME@VERSION`, or `NAME` for its latest version (`version` is None).

    `version` may also be an alias of one (`champion`) or a stage (`stage:production`): see `is_exact`.
    """

    name: str
    version: str | None = None

    @property
    def is_exact(self) -> bool:
        """Whether it names a version itself, which never changes its meaning."""
        return self.version is not None and is_version(split_build(self.version)[0])

    def __str__(self) -> str:
        return self.name if self.version is None else f"{self.name}@{self.version}"


def check_name(name: str) -> str:
    """Returns a model's name, one to four words joined by '/', or raises InvalidInputError."""
    segments = name.split("/")
    if len(segments) > 4 or any(not _SEGMENT.fullmatch(part) or part in _RESERVED_WORDS for part in segments):
        raise InvalidInputError(
            f"{name!r} is not a model name",
            hint="Use letters, digits, '.', '_' and '-', up to four words joined by '/': org/my-model.",
        )
    return name


def check_version(version: str) -> str:
    """Returns a semantic version without build metadata (which has no order), or raises InvalidInputError."""
    if not is_version(version):
        raise InvalidInputError(
            f"{version!r} is not a version", hint="Use MAJOR.MINOR.PATCH: 1.0.0 or 2.1.0-rc.1."
        )
    return version


def is_version(version: str) -> bool:
    """Whether the text is a version as repositories name them."""
    if len(version) > 128 or not version.isascii() or "+" in version:
        return False
    try:
        precedence(version)
    except ValueError:
        return False
    return True


# A run of training makes thousands of versions, and every push looks at all of them: each is parsed once.
@lru_cache(maxsize=1 << 16)
def precedence(version: str) -> tuple[tuple[int, int, int], bool, tuple[tuple[bool, int, str], ...]]:
    """What versions are sorted by, as Semantic Versioning 2.0.0 has it (its point 11).

    Versions that differ in build metadata only are alike. Raises ValueError for what is none.
    """
    parsed = semver.Version.parse(version)
    words = parsed.prerelease.split(".") if parsed.prerelease else ()
    # Numbers come before words, and what has more words after what it begins with.
    order = tuple((not word.isdigit(), int(word) if word.isdigit() else 0, word) for word in words)
    return (parsed.major, parsed.minor, parsed.patch), not words, order


def split_build(version: str) -> tuple[str, str]:
    """A version and its build metadata, "" if it has none: `1.0.0+cuda13` is version 1.0.0, of build `cuda13`.

    Build metadata has no order: two builds of one version cannot be told apart by it, so a repository has one of them.
    """
    core, plus, build = version.partition("+")
    if plus and not (len(version) <= 128 and version.isascii() and semver.Version.is_valid(version)):
        return version, ""
    return core, build


def check_selector(text: str) -> str | None:
    """What stands for a version: itself, an alias, `stage:NAME`, or `latest`, which gives None.

    A version may have build metadata.

    Raises InvalidInputError.
    """
    if text == "latest":
        return None
    if text.startswith(STAGE_PREFIX):
        return STAGE_PREFIX + check_stage(text.removeprefix(STAGE_PREFIX))
    if text[:1].isalpha():
        return check_alias(text)
    check_version(split_build(text)[0])
    return text


def latest_of(versions: Sequence[str]) -> str:
    """The latest of versions in their order: the highest that is no pre-release, if there is one."""
    stable = (version for version in reversed(versions) if not semver.Version.parse(version).prerelease)
    return next(stable, versions[-1])


def parse_reference(text: str) -> ModelReference:
    """Reads `NAME`, `NAME@VERSION`, `NAME@ALIAS` and `NAME@stage:STAGE`.

    With `models:/` in front, as other registries write it, also `models:/NAME/VERSION` and `models:/NAME/STAGE`.
    Raises InvalidInputError.
    """
    url = text.startswith(_URL_PREFIX)
    name, at, version = text.removeprefix(_URL_PREFIX).partition("@")
    if url and not at:
        name, at, version = name.rpartition("/")
        if not at:
            raise InvalidInputError(
                f"{text!r} names no version",
                hint=f"Write models:/{version}/1.0.0, models:/{version}/Production or models:/{version}@alias.",
            )
        if version[:1].isalpha() and version.lower() != "latest":
            version = STAGE_PREFIX + version
        version = version.lower() if version.lower() == "latest" else version
    return ModelReference(check_name(name), check_selector(version) if at else None)


def manifest_key(name: str, version: str) -> str:
    """Key of a version's manifest."""
    return f"models/{check_name(name)}/versions/{check_version(version)}.json"


def now_utc() -> str:
    """The time, ISO 8601, UTC, whole seconds."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
