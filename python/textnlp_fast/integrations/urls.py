"""`textnlp://NAME[@SELECTOR[/PATH]][?repo=REPOSITORY]`: a version, or a file of one, where libraries want one text.

SELECTOR is a version, an alias, `stage:NAME` or `latest`; without one the latest is meant. Names of models have
slashes of their own, so that a PATH is only told from a name by the `@` in front of it:
`textnlp://org/model@latest/config.json`. Nothing is percent-decoded: what stands there is what is meant. A repository
that the URL does not name is the caller's, or that of TEXTNLP_FAST_REPO.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Final

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.storage.names import ModelReference, check_name, check_selector
from textnlp_fast.storage.repository import Repository
from textnlp_fast.tensors import check_relative_path

__all__ = [
    "REPOSITORY_VARIABLE",
    "SCHEME",
    "ModelURL",
    "Place",
    "is_model_url",
    "open_repository",
    "parse_model_url",
]

SCHEME: Final = "textnlp"
REPOSITORY_VARIABLE: Final = "TEXTNLP_FAST_REPO"
_PREFIX: Final = f"{SCHEME}://"
_REPOSITORY: Final = "?repo="
_MAX_CHARS: Final = 8192
_HINT: Final = "Write textnlp://name, textnlp://name@1.0.0 or textnlp://org/name@champion/config.json."

Place = str | os.PathLike[str] | Repository
"""A repository: its path, its URL, or itself."""


@dataclass(frozen=True, slots=True)
class ModelURL:
    """What a URL says. Without a `selector` the latest version is meant, without a `path` all of it."""

    name: str
    selector: str | None = None
    path: str | None = None
    repository: str | None = None

    @property
    def reference(self) -> ModelReference:
        """Model and version, as repositories take them."""
        return ModelReference(self.name, self.selector)

    @property
    def exact(self) -> str:
        """The version that is named itself, not by an alias or a stage: what is published is called so.

        Raises InvalidInputError.
        """
        if self.selector is None or not self.reference.is_exact:
            raise InvalidInputError(
                f"{self} does not say which version to publish", hint="Write it out: textnlp://name@1.0.0."
            )
        return self.selector

    def with_path(self, path: str) -> ModelURL:
        """The same version's file at `path`."""
        return replace(self, path=check_relative_path(path))

    def __str__(self) -> str:
        selector = self.selector or "latest"
        at = "" if self.selector is None and self.path is None else f"@{selector}"
        path = "" if self.path is None else f"/{self.path}"
        repository = "" if self.repository is None else _REPOSITORY + self.repository
        return f"{_PREFIX}{self.name}{at}{path}{repository}"


def is_model_url(value: object) -> bool:
    """Whether it is meant as such a URL: libraries pass on paths, names and None as well."""
    return isinstance(value, str) and value.startswith(_PREFIX)


def parse_model_url(url: str) -> ModelURL:
    """Reads a URL. Raises InvalidInputError, UnsafeFileError for a path into `.git`."""
    if not is_model_url(url):
        raise InvalidInputError(f"{_shown(url)} is no textnlp:// URL", hint=_HINT)
    if len(url) > _MAX_CHARS or not url.isprintable():
        raise InvalidInputError(f"{_shown(url)} is too long, or has unprintable characters", hint=_HINT)
    place, asked, repository = url.removeprefix(_PREFIX).partition(_REPOSITORY)
    if asked and not repository:
        raise InvalidInputError(f"{_shown(url)} names an empty repository", hint="Leave ?repo= out.")
    name, at, rest = place.partition("@")
    selector, slash, path = rest.partition("/")
    if "?" in name + selector:
        raise InvalidInputError(
            f"{_shown(url)}: {_shown('?' + place.partition('?')[2])} is nothing that such a URL says",
            hint="Of what may follow a question mark there is ?repo=REPOSITORY alone.",
        )
    try:
        return ModelURL(
            check_name(name),
            check_selector(selector) if at else None,
            check_relative_path(path.rstrip("/")) if slash and path.rstrip("/") else None,
            repository or None,
        )
    except InvalidInputError as error:
        raise type(error)(f"{_shown(url)}: {error.args[0]}", hint=_HINT) from None


def open_repository(url: ModelURL, repository: Place | None = None, *, for_push: bool = False) -> Repository:
    """The repository that the URL or the caller names, or the environment; `for_push` has the first push make it.

    Who is handed URLs by strangers names the repository: one that differs from it in the URL is refused. Raises
    InvalidInputError then, and if nobody names one.
    """
    place = repository if repository is not None else url.repository or os.environ.get(REPOSITORY_VARIABLE)
    if not place:
        raise InvalidInputError(
            f"{url} does not say in which repository",
            hint=f"Pass repository=, set {REPOSITORY_VARIABLE}, or end the URL with ?repo=s3://bucket/models.",
        )
    given = place.url if isinstance(place, Repository) else os.fspath(place)
    if url.repository not in (None, given):
        raise InvalidInputError(
            f"{url} names another repository than {given}", hint="Name the repository once."
        )
    if isinstance(place, Repository):
        return place
    return Repository.open(given, create="at push" if for_push else False)


def _shown(url: object) -> str:
    return ascii(url if not isinstance(url, str) or len(url) < 200 else url[:200] + "...")
