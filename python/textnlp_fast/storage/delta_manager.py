"""The asynchronous face of patches: the functions of `textnlp_fast.delta`, each on a thread of its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from textnlp_fast.contents.windows import ProgressCallback
from textnlp_fast.delta import (
    ApplyReport,
    PatchReport,
    PatchSummary,
    apply_patch,
    create_patch,
    inspect_patch,
    squash_patches,
)
from textnlp_fast.delta.patch import Strategy, check_version_name
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.storage.config import StorageConfig, TransferOptions
from textnlp_fast.storage.unified_storage import UnifiedModelStorage

__all__ = ["DeltaUpdateManager"]

Place = str | os.PathLike[str]


class DeltaUpdateManager:
    """Patches between models on this machine.

    `storage_backend` says what memory and threads to use: a `UnifiedModelStorage`, a `StorageConfig`, or nothing.
    Errors are those of the functions in `textnlp_fast.delta`. A call that is cancelled goes on in its thread until
    it is done, and is complete or void like any other.
    """

    def __init__(self, storage_backend: UnifiedModelStorage | StorageConfig | None = None) -> None:
        if isinstance(storage_backend, UnifiedModelStorage):
            storage_backend = storage_backend.config
        if storage_backend is not None and not isinstance(storage_backend, StorageConfig):
            raise InvalidInputError(
                f"storage_backend is a {type(storage_backend).__name__}",
                hint="Pass a UnifiedModelStorage, a StorageConfig, or nothing.",
            )
        options = TransferOptions() if storage_backend is None else storage_backend.transfer
        self._threads = options.threads
        self._memory_bytes = options.memory_budget_bytes

    async def create_delta_patch(
        self,
        old_model_path: Place,
        new_model_path: Place,
        source_version: str | None = None,
        target_version: str | None = None,
        *,
        strategy: Strategy = "auto",
        adapter_path: Place | None = None,
        effort: str = "default",
        approximate: str | None = None,
        output_path: Place | None = None,
        metadata: Mapping[str, str] | None = None,
        progress: ProgressCallback | None = None,
    ) -> PatchReport:
        """Makes a patch from the old model to the new one; `path` of the result says where it is.

        Without `output_path` it is `<source version>-to-<target version>.tnpatch` beside the new model.
        """
        out = output_path or _default_output(new_model_path, source_version, target_version)
        return await asyncio.to_thread(
            create_patch,
            old_model_path,
            new_model_path,
            out,
            source_version=source_version,
            target_version=target_version,
            strategy=strategy,
            adapter=adapter_path,
            effort=effort,
            approximate=approximate,
            metadata=metadata,
            memory_budget_bytes=self._memory_bytes,
            threads=self._threads,
            progress=progress,
        )

    async def apply_delta_patch(
        self,
        patch_path: Place,
        source_model_path: Place,
        output_path: Place,
        *,
        progress: ProgressCallback | None = None,
    ) -> ApplyReport:
        """Makes the patch's target at `output_path`, which may be the source's own place."""
        return await asyncio.to_thread(
            apply_patch,
            patch_path,
            source_model_path,
            output_path,
            memory_budget_bytes=self._memory_bytes,
            threads=self._threads,
            progress=progress,
        )

    async def inspect(self, patch_path: Place) -> PatchSummary:
        """What is in a patch."""
        return await asyncio.to_thread(inspect_patch, patch_path)

    async def squash(
        self,
        patch_paths: Sequence[Place],
        output_path: Place,
        *,
        source_model_path: Place | None = None,
        progress: ProgressCallback | None = None,
    ) -> PatchReport:
        """Makes one patch of several that follow each other; with the source model, coded anew."""
        return await asyncio.to_thread(
            squash_patches,
            patch_paths,
            output_path,
            source=source_model_path,
            memory_budget_bytes=self._memory_bytes,
            threads=self._threads,
            progress=progress,
        )


def _default_output(new_model_path: Place, source_version: str | None, target_version: str | None) -> Path:
    if check_version_name(source_version) is None or check_version_name(target_version) is None:
        raise InvalidInputError(
            "the patch has no name", hint="Give output_path, or both versions to name it by."
        )
    model = Path(new_model_path).expanduser().absolute()
    return model.parent / f"{source_version}-to-{target_version}.tnpatch"
