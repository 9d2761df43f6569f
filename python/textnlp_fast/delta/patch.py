"""What a patch says: both ends of it, every content of the target, and how each is made.

Chapter *Patches* of `docs/format.md` states the file. This module holds its types and the writer of its index; the
reader, which trusts nothing, is `patch_reading`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal

from textnlp_fast.contents.documents import canonical, seal_document
from textnlp_fast.contents.entries import FileEntry, file_document
from textnlp_fast.delta.patch_promise import PatchPromise, promise_document
from textnlp_fast.delta.recipe import Recipe
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.hashing import blake3_hex

__all__ = [
    "FACTOR_STRATEGIES",
    "LONE_FILE",
    "MAGIC",
    "PATCH_FORMAT",
    "STRATEGIES",
    "End",
    "HeldContent",
    "Patch",
    "Stored",
    "Strategy",
    "check_version_name",
    "index_document",
    "model_digest",
]

MAGIC: Final = b"TNPATCH"
PATCH_FORMAT: Final = 1
# What a model of one file is called, so that its own name can change.
LONE_FILE: Final = "model.safetensors"
MAX_VERSION_CHARACTERS: Final = 128

Strategy = Literal["auto", "dense", "sparse", "low_rank"]
STRATEGIES: Final[tuple[Strategy, ...]] = ("auto", "dense", "sparse", "low_rank")
#: Those that look for merged adapters.
FACTOR_STRATEGIES: Final = ("auto", "low_rank")


@dataclass(frozen=True, slots=True)
class HeldContent:
    """A content of the source: its size in bytes, and its element type for the codec."""

    size: int
    dtype: str


@dataclass(frozen=True, slots=True)
class Stored:
    """A content that the patch makes.

    Window number i lies at `extents[i]`, (offset, length) in the payload, and decodes to bytes
    [i * window, (i + 1) * window), against the same bytes of what `base` makes.
    """

    digest: str
    size: int
    dtype: str
    base: Recipe | None
    extents: tuple[tuple[int, int], ...]
    codec: ClassVar[Literal["frames"]] = "frames"

    @property
    def stored_bytes(self) -> int:
        return sum(length for _, length in self.extents)


@dataclass(frozen=True, slots=True)
class End:
    """One of the two models: its version, if it has one, and its files by path."""

    version: str | None
    files: tuple[FileEntry, ...]

    @property
    def digest(self) -> str:
        """The model's digest."""
        return model_digest(self.files)

    @property
    def raw_bytes(self) -> int:
        return sum(entry.size for entry in self.files)

    @property
    def label(self) -> str:
        """For people: the version, or the digest's beginning."""
        return self.version or self.digest[:12]

    def parts(self) -> dict[str, None]:
        """Digests of the contents, each once, in the order of the files."""
        return dict.fromkeys(digest for entry in self.files for digest in entry.parts)


@dataclass(frozen=True, slots=True)
class Patch:
    """The index of a patch; `promise` is None if the target is exact.

    `held` are the contents of the source, `contents` those that the patch makes; together they have every content
    of the target and every source of a recipe. `payload_digest` is that of all coded windows.
    """

    source: End
    target: End
    held: Mapping[str, HeldContent]
    contents: Mapping[str, Stored]
    window_bytes: int
    payload_bytes: int
    payload_digest: str
    strategy: str = "auto"
    metadata: Mapping[str, str] = field(default_factory=dict)
    promise: PatchPromise | None = None

    def size_of(self, digest: str) -> int:
        """Bytes of a content of either end."""
        held = self.held.get(digest)
        return held.size if held is not None else self.contents[digest].size


def model_digest(files: Iterable[FileEntry]) -> str:
    """Digest of a model: that of the canonical list of [path, file digest], by path."""
    return blake3_hex(canonical(sorted([entry.path, entry.digest] for entry in files)))


def check_version_name(version: str | None) -> str | None:
    """The version if it can stand in a patch. Raises InvalidInputError."""
    if version is not None and not (
        0 < len(version) <= MAX_VERSION_CHARACTERS and version.isprintable() and not set(version) & set("/\\")
    ):
        raise InvalidInputError(
            f"{version[:MAX_VERSION_CHARACTERS]!a} is not a version",
            hint=f"Versions are 1 to {MAX_VERSION_CHARACTERS} printable characters without slashes: 1.2.0.",
        )
    return version


def index_document(patch: Patch) -> bytes:
    """The sealed index; `patch_reading.parse_index` of it gives the patch back."""
    return seal_document(
        {
            "contents": {
                digest: {
                    "base": None if stored.base is None else stored.base.to_json(),
                    "codec": "frames",
                    "dtype": stored.dtype,
                    "extents": [list(extent) for extent in stored.extents],
                    "size": stored.size,
                }
                for digest, stored in patch.contents.items()
            },
            "format": PATCH_FORMAT,
            "held": {digest: [content.size, content.dtype] for digest, content in patch.held.items()},
            "metadata": dict(patch.metadata),
            "payload": [patch.payload_digest, patch.payload_bytes],
            "source": _end_document(patch.source),
            "strategy": patch.strategy,
            "target": _end_document(patch.target),
            "window_bytes": patch.window_bytes,
            **({} if patch.promise is None else {"promise": promise_document(patch.promise)}),
        }
    )


def _end_document(end: End) -> dict[str, Any]:
    return {
        "digest": end.digest,
        "files": [file_document(entry) for entry in end.files],
        "version": end.version,
    }
