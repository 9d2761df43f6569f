"""The tensors of one version as its headers name them, and the means to make their bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass

from textnlp_fast.contents.entries import content_names
from textnlp_fast.contents.inventory import Held
from textnlp_fast.contents.windows import OpenFiles
from textnlp_fast.delta.making import Maker
from textnlp_fast.errors import CorruptDataError
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage.config import TransferOptions
from textnlp_fast.storage.decoding import Decoder
from textnlp_fast.storage.headers import read_tensors
from textnlp_fast.storage.manifest import Content, Manifest, closure
from textnlp_fast.storage.object_windows import new_maker
from textnlp_fast.storage.planning import PullStep, pull_step
from textnlp_fast.tensors import TensorInfo

__all__ = ["StoredTensor", "StoredTensors"]


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor of a version: ``file`` is where it is in the model, ``digest`` the name of its bytes."""

    info: TensorInfo
    file: str
    digest: str


class StoredTensors:
    """A version, opened for reading tensors. Thread-safe."""

    def __init__(self, store: ObjectStore, manifest: Manifest, options: TransferOptions) -> None:
        self.store = store
        self.manifest = manifest
        self.options = options
        self.names = content_names(manifest.files)

    def with_options(self, options: TransferOptions) -> StoredTensors:
        """The same version, read with other memory and threads."""
        return StoredTensors(self.store, self.manifest, options)

    @property
    def contents(self) -> Mapping[str, Content]:
        return self.manifest.contents

    @property
    def window_bytes(self) -> int:
        return self.manifest.window_bytes

    def read(self) -> list[StoredTensor]:
        """What the headers say of each, in the order of the files.

        Raises CorruptDataError if a header is damaged or does not agree with the manifest.
        """
        by_file = read_tensors(self.store, self.manifest, self.options)
        tensors: list[StoredTensor] = []
        for entry in self.manifest.files:
            for name, digest in zip(entry.names, entry.parts[1:], strict=bool(entry.names)):
                info = by_file[entry.path][name]
                if self.contents[digest].size != info.size_bytes:
                    raise CorruptDataError(
                        f"tensor {name!r} of {entry.path!r} has {info.size_bytes} bytes by its header, "
                        f"{self.contents[digest].size} by the manifest"
                    )
                tensors.append(StoredTensor(info, entry.path, digest))
        return tensors

    def decoder(self) -> Decoder:
        """Makes whole tensors, each verified."""
        return Decoder(self.store, self.contents, self.window_bytes, self.options, self.names)

    def maker(self, files: OpenFiles, held: MutableMapping[str, Held], *, threads: int) -> Maker:
        """Makes stretches of tensors, which nobody verifies."""
        budget = self.options.memory_budget_bytes
        return new_maker(
            self.store, self.contents, self.window_bytes, files, held, budget_bytes=budget, threads=threads
        )

    def step(self, digest: str, held: Mapping[str, Held]) -> PullStep:
        """The road to one content."""
        return pull_step(self.contents, digest, held)

    def needed(self, digests: Iterable[str]) -> dict[str, Content]:
        """These contents and all that they are made of."""
        return closure(self.contents, digests)
