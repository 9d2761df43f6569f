"""The repository that a writer or reader was given."""

from __future__ import annotations

import os

from textnlp_fast.storage.repository import Repository

__all__ = ["opened"]


def opened(given: str | os.PathLike[str] | Repository, *, create: bool) -> Repository:
    """The repository at a path or URL; with `create` it may have to be made, by the first save."""
    if isinstance(given, Repository):
        return given
    return Repository.open(given, create="at push" if create else False)
