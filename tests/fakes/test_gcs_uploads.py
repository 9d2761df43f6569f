"""Resumable sessions of the fake: what survives a broken connection, and what is refused."""

from __future__ import annotations

import base64
import io
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

storage = pytest.importorskip("google.cloud.storage", reason="needs google-cloud-storage")

from google.api_core import exceptions  # noqa: E402
from google.auth.credentials import AnonymousCredentials  # noqa: E402

from fakes.gcs import GcsFake, GcsFault  # noqa: E402

QUANTUM = 256 << 10


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """308 is an answer here and not a redirection."""

    def redirect_request(self, *_: object) -> None:
        return None


OPENER = urllib.request.build_opener(NoRedirect)


def send(
    url: str, body: bytes, span: str | None, method: str = "PUT", **headers: str
) -> tuple[int, Any, Any]:
    """Status, headers and body of the answer to one request of a session."""
    request = urllib.request.Request(url, data=body, method=method, headers=headers)
    if span is not None:
        request.add_header("Content-Range", f"bytes {span}")
    try:
        with OPENER.open(request, timeout=30) as answer:
            return answer.status, answer.headers, json.loads(answer.read() or b"{}")
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


@pytest.fixture(scope="module")
def fake() -> Iterator[GcsFake]:
    with GcsFake() as server:
        yield server


@pytest.fixture
def bucket(fake: GcsFake) -> Any:
    client = storage.Client(
        project="test", credentials=AnonymousCredentials(), client_options={"api_endpoint": fake.endpoint_url}
    )
    yield client.bucket(fake.make_bucket())
    fake.heal()


def test_a_session_is_gone_on_with_by_whoever_has_its_address(bucket: Any) -> None:
    data = os.urandom(3 * QUANTUM + 17)
    address = bucket.blob("x").create_resumable_upload_session(size=len(data), if_generation_match=0)
    assert send(address, b"", "*/*")[1].get("Range") is None
    status, headers, _ = send(address, data[:QUANTUM], f"0-{QUANTUM - 1}/{len(data)}")
    assert (status, headers["Range"]) == (308, f"bytes=0-{QUANTUM - 1}")
    assert send(address, b"", f"*/{len(data)}")[1]["Range"] == f"bytes=0-{QUANTUM - 1}"
    status, _, resource = send(address, data[QUANTUM:], f"{QUANTUM}-{len(data) - 1}/{len(data)}")
    assert (status, resource["size"]) == (200, str(len(data)))
    assert bucket.blob("x").download_as_bytes() == data
    # Who lost that answer asks again, by a query or by the last chunk.
    for body, span in ((b"", f"*/{len(data)}"), (data[QUANTUM:], f"{QUANTUM}-{len(data) - 1}/{len(data)}")):
        assert send(address, body, span)[2]["generation"] == resource["generation"]


def test_of_a_chunk_that_broke_off_whole_quanta_stay(bucket: Any, fake: GcsFake) -> None:
    data = os.urandom(4 * QUANTUM)
    address = bucket.blob("x").create_resumable_upload_session(size=len(data))
    fault = fake.inject(GcsFault("cut_chunk", method="PUT", keep=2 * QUANTUM + 5))
    with pytest.raises(OSError):
        send(address, data, f"0-{len(data) - 1}/{len(data)}")
    assert fault.hits == 1
    assert send(address, b"", f"*/{len(data)}")[1]["Range"] == f"bytes=0-{2 * QUANTUM - 1}"
    assert send(address, data[2 * QUANTUM :], f"{2 * QUANTUM}-{len(data) - 1}/{len(data)}")[0] == 200
    assert bucket.blob("x").download_as_bytes() == data


def test_a_cancelled_session_is_gone_and_left_nothing(bucket: Any, fake: GcsFake) -> None:
    before = fake.open_uploads()
    address = bucket.blob("x").create_resumable_upload_session(size=QUANTUM)
    assert fake.open_uploads() == before + 1
    assert send(address, b"", None, "DELETE")[0] == 499
    assert fake.open_uploads() == before
    assert send(address, b"", "*/*")[0] == 404
    assert not bucket.blob("x").exists()


@pytest.mark.parametrize(
    ("body", "span"),
    [
        (bytes(QUANTUM), f"{QUANTUM}-{2 * QUANTUM - 1}/{4 * QUANTUM}"),  # a gap before it
        (bytes(100), f"0-99/{4 * QUANTUM}"),  # no whole quantum, and not the last
        (bytes(QUANTUM), f"0-{QUANTUM - 1}/{5 * QUANTUM}"),  # another total than said before
        (bytes(QUANTUM), f"0-{QUANTUM}/{4 * QUANTUM}"),  # another length than sent
        (bytes(QUANTUM), "nonsense"),
        (b"", "5-3/10"),
    ],
)
def test_chunks_that_do_not_fit_are_refused(bucket: Any, body: bytes, span: str) -> None:
    address = bucket.blob("x").create_resumable_upload_session(size=4 * QUANTUM)
    assert send(address, body, span)[0] == 400
    assert send(address, b"", "*/*")[1].get("Range") is None


def test_digests_are_checked_at_the_end(bucket: Any) -> None:
    wrong = base64.b64encode(b"1234").decode()
    address = bucket.blob("x").create_resumable_upload_session(size=4)
    assert send(address, b"data", "0-3/4", **{"X-Goog-Hash": f"crc32c={wrong}"})[0] == 400
    assert not bucket.blob("x").exists()


def test_conditions_hold_at_the_beginning_and_at_the_end(bucket: Any) -> None:
    address = bucket.blob("x").create_resumable_upload_session(size=4, if_generation_match=0)
    bucket.blob("x").upload_from_string(b"first")
    assert send(address, b"late", "0-3/4")[0] == 412
    assert bucket.blob("x").download_as_bytes() == b"first"
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.blob("x").create_resumable_upload_session(size=4, if_generation_match=0)


def test_an_empty_object_and_one_of_unknown_size(bucket: Any) -> None:
    assert send(bucket.blob("empty").create_resumable_upload_session(size=0), b"", "*/0")[0] == 200
    assert bucket.blob("empty").download_as_bytes() == b""
    address = bucket.blob("open").create_resumable_upload_session()
    assert send(address, bytes(QUANTUM), f"0-{QUANTUM - 1}/*")[0] == 308
    assert send(address, b"end", f"{QUANTUM}-{QUANTUM + 2}/{QUANTUM + 3}")[0] == 200
    assert bucket.get_blob("open").size == QUANTUM + 3


@pytest.mark.parametrize(
    "fault",
    [
        GcsFault("cut_chunk", method="PUT", after=1, keep=QUANTUM),
        GcsFault("lose_answer", method="PUT", after=1),
        GcsFault("lose_request", method="PUT", after=2),
        GcsFault("status", method="PUT", after=1, code=503),
        GcsFault("status", method="PUT", after=1, code=429, reason="rateLimitExceeded"),
        GcsFault("status_after", method="PUT", after=2, code=502),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.code}",
)
def test_googles_client_comes_through_faults(bucket: Any, fake: GcsFake, fault: GcsFault) -> None:
    data = os.urandom((9 << 20) + 5)
    fake.inject(fault)
    blob = bucket.blob("x", chunk_size=3 << 20)
    blob.upload_from_file(io.BytesIO(data), size=len(data))
    assert fault.hits == 1
    assert bucket.blob("x").download_as_bytes() == data


@settings(max_examples=10)
@given(data=st.data())
def test_any_order_of_resends_gives_the_same_bytes(fake: GcsFake, data: st.DataObject) -> None:
    client = storage.Client(
        project="test", credentials=AnonymousCredentials(), client_options={"api_endpoint": fake.endpoint_url}
    )
    quanta, tail = data.draw(st.integers(0, 3)), data.draw(st.integers(0, 1000))
    content = os.urandom(quanta * QUANTUM + tail)
    name = fake.make_bucket()
    address = client.bucket(name).blob("x").create_resumable_upload_session(size=len(content))
    kept = 0
    for round_ in range(6):
        first = data.draw(st.integers(0, kept // QUANTUM)) * QUANTUM
        last = data.draw(st.sampled_from([*range(first + QUANTUM, len(content), QUANTUM), len(content)]))
        last = len(content) if round_ == 5 else last
        span = f"{first}-{last - 1}/{len(content)}" if last > first else f"*/{len(content)}"
        status, headers, _ = send(address, content[first:last], span)
        if status == 200:
            break
        kept = max(kept, last)
        assert (status, headers["Range"]) == (308, f"bytes=0-{kept - 1}")
    assert fake.api.state.bucket(name).objects["x"].data == content
