"""The contract in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from objectstore.contract import ObjectStoreContract
from textnlp_fast.objectstore import ObjectStore, open_store


class TestLocal(ObjectStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> ObjectStore:
        return open_store(tmp_path / "a folder")


class TestLocalWithoutHardLinks(ObjectStoreContract):
    """File systems without hard links create under a lock instead."""

    @pytest.fixture
    def store(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr("os.link", refuse)
        return open_store(tmp_path / "a folder")
