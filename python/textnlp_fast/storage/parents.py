"""Which version comes before the one that is pushed, and the repository that both are in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from textnlp_fast.contents.windows import DATA_ERRORS
from textnlp_fast.errors import (
    InvalidInputError,
    ModelNotFoundError,
    RepositoryNotFoundError,
    VersionNotFoundError,
)
from textnlp_fast.storage.manifest import Manifest
from textnlp_fast.storage.version_manager import RepositoryInfo, VersionManager, check_version

if TYPE_CHECKING:
    from textnlp_fast.storage.push import PushRequest

__all__ = ["parent_of", "repository_for"]


def repository_for(versions: VersionManager, request: PushRequest) -> RepositoryInfo:
    """What the repository says of itself. The first push makes it, but not one that cannot succeed."""
    try:
        return versions.info()
    except RepositoryNotFoundError:
        parent = _named_parent(request)
        if parent is not None:
            with _naming_the_way_out():
                versions.require(*parent)
        return versions.info(create=True)


@contextmanager
def _naming_the_way_out() -> Iterator[None]:
    """What is not there was asked for as a parent: the caller may do without one."""
    try:
        yield
    except (ModelNotFoundError, VersionNotFoundError) as error:
        error.hint = (
            f"{error.hint} --parent none (parent=None in Python) stores the version by itself.".lstrip()
        )
        raise


def _named_parent(request: PushRequest) -> tuple[str, str] | None:
    """The parent that the caller named, if one was."""
    if isinstance(request.parent, tuple):
        return request.parent
    if request.parent is None or request.parent == "auto":
        return None
    return request.name, check_version(request.parent)


def parent_of(
    versions: VersionManager, request: PushRequest, existing: Manifest | None, passed_over: list[str]
) -> Manifest | None:
    """The version before. For an existing one what it was coded against, so that a repeated push repeats it.

    Versions that "auto" could not read are added to `passed_over`.
    """
    if existing is not None:
        before = existing.coded_against
        with suppress(*DATA_ERRORS, InvalidInputError):  # of use only where objects were lost; that will show
            return versions.find(*before) if before is not None else None
        return None
    if request.parent is None:
        return None
    named = _named_parent(request)
    if named is not None:
        with _naming_the_way_out():
            return versions.manifest(*named)
    for version in versions.parents_for(request.name, request.version):
        try:
            return versions.manifest(request.name, version)
        except DATA_ERRORS:
            passed_over.append(version)  # the caller hears of it, and `verify` says what is wrong
        except VersionNotFoundError:
            continue  # deleted since it was listed
    return None
