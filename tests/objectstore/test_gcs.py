"""What is peculiar to Google's storage."""

from __future__ import annotations

from typing import Any

import pytest

from textnlp_fast.errors import AuthenticationError
from textnlp_fast.objectstore import open_store


@pytest.mark.parametrize("reason", ["rateLimitExceeded", "userRateLimitExceeded"])
def test_a_403_for_too_many_requests_is_no_refusal(gcs_fake: Any, gcs_bucket: str, reason: str) -> None:
    from fakes.gcs import GcsFault  # noqa: PLC0415  needs Google's client

    store = open_store(f"gs://{gcs_bucket}")
    store.put_object("a", b"x")
    for call in (
        lambda: store.head("a"),
        lambda: store.get("a"),
        lambda: store.create("b", b"y"),
        lambda: list(store.list()),
    ):
        fault = gcs_fake.inject(GcsFault("status", code=403, reason=reason))
        call()
        assert fault.hits == 1
    gcs_fake.inject(GcsFault("status", code=403, reason="forbidden"))
    with pytest.raises(AuthenticationError):
        store.head("a")


def test_a_conditional_write_is_sent_once_for_each_outcome(gcs_fake: Any, gcs_bucket: str) -> None:
    from fakes.gcs import GcsFault  # noqa: PLC0415

    store = open_store(f"gs://{gcs_bucket}")
    first = store.compare_and_swap("refs", b"one", None)
    gcs_fake.exchanges.clear()
    gcs_fake.inject(GcsFault("status_after", path="/upload/", code=503))
    second = store.compare_and_swap("refs", b"two", first)
    assert store.get_versioned("refs") == (b"two", second)
    sent = [(request.method, request.query.get("ifGenerationMatch")) for request, _ in gcs_fake.exchanges]
    assert sent == [("POST", first.etag), ("GET", None), ("GET", None)]


def test_nobody_looks_the_bucket_up(gcs_fake: Any, gcs_bucket: str) -> None:
    store = open_store(f"gs://{gcs_bucket}")
    store.put_object("a", b"x")
    store.get("a")
    list(store.list())
    store.delete("a")
    assert not [
        request.path for request, _ in gcs_fake.exchanges if request.path.endswith(f"/b/{gcs_bucket}")
    ]
