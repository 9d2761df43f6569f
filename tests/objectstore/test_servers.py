"""The contract on every server."""

from __future__ import annotations

import pytest

from objectstore.contract import ObjectStoreContract
from servers import Place
from textnlp_fast.objectstore import ObjectStore


class TestServers(ObjectStoreContract):
    @pytest.fixture
    def store(self, place: Place) -> ObjectStore:
        return place.open("some/prefix")

    @pytest.fixture(autouse=True)
    def fewer_keys(self, place: Place) -> None:
        """Where a page is small, or the server slow and a page more than one could write here."""
        if place.server not in {"ministack", "radosgw"}:
            self.more_than_a_page = 230

    @pytest.fixture(autouse=True)
    def no_races_on_moto(self, place: Place, request: pytest.FixtureRequest) -> None:
        if place.server == "moto" and ("racing" in request.node.name or "increment" in request.node.name):
            pytest.skip(
                "moto looks at the condition and writes in two steps: of two racing writers both may win"
            )

    def test_prefixes_keep_apart(self, place: Place) -> None:
        one, other, whole = (place.open(folder) for folder in ("one", "other", ""))
        one.put_object("a", b"1")
        other.put_object("a", b"2")
        assert (one.get("a"), other.get("a")) == (b"1", b"2")
        assert [meta.key for meta in one.list()] == ["a"]
        assert [meta.key for meta in whole.list()] == ["one/a", "other/a"]
