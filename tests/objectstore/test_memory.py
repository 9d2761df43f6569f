"""The contract in memory."""

from __future__ import annotations

import uuid

import pytest

from objectstore.contract import ObjectStoreContract
from textnlp_fast.objectstore import ObjectStore, open_store


class TestMemory(ObjectStoreContract):
    @pytest.fixture
    def store(self) -> ObjectStore:
        return open_store(f"memory://{uuid.uuid4().hex}")

    def test_one_name_is_one_store(self) -> None:
        name = f"memory://{uuid.uuid4().hex}"
        open_store(name).put_object("a", b"x")
        assert open_store(name).get("a") == b"x"
        assert not open_store(f"{name}2").exists("a")
