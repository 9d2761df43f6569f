"""The contract on a real S3 server."""

from __future__ import annotations

import pytest

from objectstore.contract import ObjectStoreContract
from servers import S3Server
from textnlp_fast.objectstore import ObjectStore, open_store


class TestS3(ObjectStoreContract):
    @pytest.fixture
    def store(self, s3_server: S3Server, s3_bucket: str) -> ObjectStore:
        return open_store(f"s3://{s3_bucket}/some/prefix", endpoint_url=s3_server.endpoint_url)

    def test_prefixes_keep_apart(self, s3_server: S3Server, s3_bucket: str) -> None:
        one, other, whole = (
            open_store(f"s3://{s3_bucket}{prefix}", endpoint_url=s3_server.endpoint_url)
            for prefix in ("/one", "/other", "")
        )
        one.put_object("a", b"1")
        other.put_object("a", b"2")
        assert (one.get("a"), other.get("a")) == (b"1", b"2")
        assert [meta.key for meta in one.list()] == ["a"]
        assert [meta.key for meta in whole.list()] == ["one/a", "other/a"]
