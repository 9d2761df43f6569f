"""Where a version comes from: typed when it is published, kept in its manifest, walked afterwards."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Final

from textnlp_fast.errors import CorruptDataError, InvalidInputError, VersionNotFoundError
from textnlp_fast.storage.manifest import Manifest
from textnlp_fast.storage.names import ModelReference, parse_reference
from textnlp_fast.storage.repository import Repository
from textnlp_fast.telemetry import operation

__all__ = ["Ancestor", "Lineage", "exact_lineage", "lineage_of", "walk"]

_PREFIX: Final = "lineage."
_MAX_CHARS: Final = 500
_MOST_ANCESTORS: Final = 10_000
_DIGEST = re.compile(r"[a-z0-9]{1,16}:[0-9a-f]{32,128}", re.ASCII)
_RELATIONS: Final = ("base_model", "parent", "adapter")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """What a version was made of and by what.

    `base_model`, `parent` (what training went on from) and `adapter` (what was merged in) are NAME@VERSION in the same
    repository, or the name of something elsewhere, such as a URL. `dataset_digest` is like `sha256:9f86...`,
    `training_run` whatever finds the run again.
    """

    base_model: str | None = None
    parent: str | None = None
    adapter: str | None = None
    dataset_digest: str | None = None
    training_run: str | None = None

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not None and (not value or len(value) > _MAX_CHARS or not value.isprintable()):
                raise InvalidInputError(f"{each.name} of a lineage is 1 to {_MAX_CHARS} printable characters")
        if self.dataset_digest is not None and _DIGEST.fullmatch(self.dataset_digest) is None:
            raise InvalidInputError(
                f"{self.dataset_digest!r} is not a digest", hint="Write ALGORITHM:HEX, as sha256:9f86d081..."
            )

    def metadata(self) -> dict[str, str]:
        """As entries of a manifest's metadata."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {_PREFIX + name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Ancestor:
    """A version, or something elsewhere (`version` None), and what its descendant says of it.

    `depth` counts steps from the version that was asked about, which is the first and has relation "".
    """

    name: str
    version: str | None
    relation: str
    of: str
    depth: int
    lineage: Lineage = Lineage()

    def __str__(self) -> str:
        return self.name if self.version is None else f"{self.name}@{self.version}"


def lineage_of(manifest: Manifest) -> Lineage:
    """What a manifest says; a parent that nobody named is the version that it follows. Raises CorruptDataError."""
    told = {
        each.name: manifest.metadata[_PREFIX + each.name]
        for each in fields(Lineage)
        if _PREFIX + each.name in manifest.metadata
    }
    try:
        lineage = Lineage(**told)
    except InvalidInputError as error:
        raise CorruptDataError(
            f"the lineage of {manifest.model}@{manifest.version} is not valid: {error.args[0]}"
        ) from None
    if lineage.parent is None and manifest.parent is not None:
        return replace(lineage, parent="@".join(manifest.parent))
    return lineage


def exact_lineage(repository: Repository, name: str, version: str, lineage: Lineage) -> Lineage:
    """The lineage to publish a version with: references that name versions here are looked up and made exact.

    Raises VersionNotFoundError for one that is not there, InvalidInputError if the version would be its own ancestor.
    """
    exact = {
        relation: _exact(repository, relation, value)
        for relation in _RELATIONS
        if (value := getattr(lineage, relation)) is not None
    }
    itself = f"{name}@{version}"
    for relation, value in exact.items():
        for ancestor in [] if _inside(value) is None else _walk_from(repository, value):
            if str(ancestor) == itself:
                raise InvalidInputError(
                    f"{itself} cannot have {value} as {relation}, which comes from {itself} itself"
                )
        if value == itself:
            raise InvalidInputError(f"{itself} cannot be its own {relation}")
    return replace(lineage, **exact)


def walk(repository: Repository, name: str, version: str | None = None) -> list[Ancestor]:
    """A version (None: the latest) and all that it comes from, nearest first; each ancestor once.

    A version that is gone, or of which the manifest cannot be read, is listed without its own lineage. Raises
    CorruptDataError if versions are their own ancestors.
    """
    with operation("lineage", model=name, version=version, repository=repository.url):
        manifest = repository.manifest(name, version)
        return _walk_from(repository, f"{manifest.model}@{manifest.version}")


def _walk_from(repository: Repository, reference: str) -> list[Ancestor]:
    found: dict[str, Ancestor] = {}
    edges: dict[str, list[str]] = {}
    queue = [(reference, "", "", 0)]
    while queue:
        text, relation, of, depth = queue.pop(0)
        if of:
            edges.setdefault(of, []).append(text)
        if text in found:
            continue
        if len(found) >= _MOST_ANCESTORS:
            raise CorruptDataError(f"{reference} has more than {_MOST_ANCESTORS} ancestors")
        inside = _inside(text)
        lineage = Lineage()
        if inside is not None:
            lineage = _lineage_if_there(repository, inside)
        found[text] = Ancestor(
            inside.name if inside is not None else text,
            inside.version if inside is not None else None,
            relation,
            of,
            depth,
            lineage,
        )
        queue += [
            (value, each, text, depth + 1)
            for each in _RELATIONS
            if (value := getattr(lineage, each)) is not None
        ]
    _check_ends(edges)
    return list(found.values())


def _lineage_if_there(repository: Repository, reference: ModelReference) -> Lineage:
    try:
        return lineage_of(repository.manifest(reference.name, reference.version))
    except VersionNotFoundError:
        return Lineage()
    except InvalidInputError:  # the model is not there at all
        return Lineage()


def _check_ends(edges: Mapping[str, list[str]]) -> None:
    """Raises CorruptDataError if some chain comes back to where it was.

    What nothing is left to come from is taken away, again and again (Kahn); what remains runs in circles.
    """
    left = {node: len(sources) for node, sources in edges.items()}
    used_by: dict[str, list[str]] = {}
    for node, sources in edges.items():
        for source in sources:
            used_by.setdefault(source, []).append(node)
    ends = [source for source in used_by if source not in left]
    while ends:
        for node in used_by.get(ends.pop(), []):
            left[node] -= 1
            if left[node] == 0:
                del left[node]
                ends.append(node)
    if left:
        raise CorruptDataError(f"a lineage runs in a circle, through {', '.join(sorted(left)[:5])}")


def _exact(repository: Repository, relation: str, value: str) -> str:
    if "@" not in value:
        return value
    try:
        reference = parse_reference(value)
    except InvalidInputError:
        return value  # something elsewhere: a URL, a hub's name with a revision
    name, version = repository.resolve(reference)
    try:
        repository.manifest(name, version)
    except VersionNotFoundError as error:
        error.hint = f"{relation} names a version of this repository; for something elsewhere give its URL."
        raise
    return f"{name}@{version}"


def _inside(text: str) -> ModelReference | None:
    """The version of this repository that a text names, if it does."""
    if "@" not in text:
        return None
    try:
        reference = parse_reference(text)
    except InvalidInputError:
        return None
    return reference if reference.is_exact else None
