"""Model cards: the README that a version was pushed with, read without pulling the version.

A card is as immutable as its version. What becomes known later goes into tags.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.storage.registry.front_matter import Value, split_front_matter
from textnlp_fast.storage.repository import Repository
from textnlp_fast.storage.small_files import read_small_file
from textnlp_fast.telemetry import operation

__all__ = ["ModelCard", "read_card"]

_README: Final = "README.md"
_MAX_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class ModelCard:
    """`metadata` is the front matter, `text` what is below it.

    Where the front matter cannot be read, `problem` says why, and it is part of the text.
    """

    model: str
    version: str
    metadata: Mapping[str, Value] = field(default_factory=dict)
    text: str = ""
    problem: str = ""


def read_card(repository: Repository, name: str, version: str | None = None) -> ModelCard | None:
    """The card of a version (None: of the latest); None if it was pushed without a README.md.

    Raises what `Repository.manifest` and reading its contents do.
    """
    with operation("card", model=name, version=version, repository=repository.url):
        manifest = repository.manifest(name, version)
        data = read_small_file(
            repository.store, manifest, _README, repository.options, limit_bytes=_MAX_BYTES
        )
    if data is None:
        return None
    text = data.decode(errors="replace")
    try:
        metadata, body = split_front_matter(text)
    except InvalidInputError as error:
        return ModelCard(manifest.model, manifest.version, {}, text, str(error.args[0]))
    return ModelCard(manifest.model, manifest.version, metadata, body)
