"""The fake of Google Cloud Storage says and takes nothing that Google's discovery document does not know."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

storage = pytest.importorskip("google.cloud.storage", reason="needs google-cloud-storage")

from google.api_core import exceptions  # noqa: E402
from google.auth.credentials import AnonymousCredentials  # noqa: E402

from fakes.discovery import matches  # noqa: E402
from fakes.gcs import GcsFake  # noqa: E402
from fakes.gcs.api import COMMON, METHODS, route  # noqa: E402
from fakes.gcs.state import WRITABLE  # noqa: E402

DOCUMENT = json.loads((Path(__file__).parent / "gcs" / "discovery.json").read_text())


def test_every_method_and_parameter_is_in_the_document() -> None:
    assert set(DOCUMENT["parameters"]) >= COMMON
    for method in METHODS:
        known = DOCUMENT["methods"][method.id]
        assert (known["httpMethod"], known["path"]) == (method.http_method, method.path)
        assert set(known["parameters"]) >= method.parameters
        if method.upload:
            protocols = known["mediaUpload"]["protocols"]
            assert protocols["simple"]["path"] == f"/upload/storage/v1/{method.path}"
            assert protocols["resumable"]["path"] == f"/resumable/upload/storage/v1/{method.path}"
    assert set(DOCUMENT["schemas"]["Object"]["properties"]) >= set(WRITABLE)
    assert (DOCUMENT["rootUrl"], DOCUMENT["servicePath"]) == (
        "https://storage.googleapis.com/",
        "storage/v1/",
    )


@pytest.fixture
def fake() -> Iterator[GcsFake]:
    with GcsFake() as server:
        yield server


@pytest.fixture
def client(fake: GcsFake) -> Any:
    return storage.Client(
        project="test", credentials=AnonymousCredentials(), client_options={"api_endpoint": fake.endpoint_url}
    )


def everything_it_can(client: Any) -> None:
    """Use each method of the fake, with Google's own client."""
    bucket = client.create_bucket("discovery")
    client.get_bucket("discovery")
    key = "projects/p/locations/us/keyRings/r/cryptoKeys/k"
    first = bucket.blob("folder/first", kms_key_name=key)
    first.metadata = {"owner": "me"}
    first.cache_control = "no-store"
    first.upload_from_string(b"first", if_generation_match=0)
    second = bucket.blob("folder/second", chunk_size=256 << 10)
    second.upload_from_file(io.BytesIO(bytes(9 << 20)), size=9 << 20, content_type="text/plain")
    session = bucket.blob("third").create_resumable_upload_session(size=0, if_generation_match=0)
    assert "upload_id" in session
    first.reload(if_metageneration_match=1)
    first.metadata = {"owner": "you"}
    first.patch(if_generation_match=first.generation)
    assert first.metageneration == 2
    assert first.download_as_bytes(if_generation_match=first.generation) == b"first"
    assert first.download_as_bytes(start=1, end=2) == b"ir"
    bucket.blob("whole").compose([first, second], if_generation_match=0)
    whole = bucket.get_blob("whole")
    assert whole.component_count == 2 and whole.md5_hash is None and whole.size == 5 + (9 << 20)
    pages = client.list_blobs(bucket, delimiter="/", max_results=10, projection="noAcl")
    assert [blob.name for blob in pages] == ["whole"]
    assert pages.prefixes == {"folder/"}
    for blob in list(client.list_blobs(bucket, start_offset="a", end_offset="z", prefix="", page_size=1)):
        blob.delete(if_generation_match=blob.generation)
    with pytest.raises(exceptions.NotFound):
        first.reload()
    bucket.delete()
    with pytest.raises(exceptions.NotFound, match="bucket does not exist"):
        client.get_bucket("discovery")


def test_every_answer_and_every_question_is_what_the_document_says(fake: GcsFake, client: Any) -> None:
    everything_it_can(client)
    answered = set()
    for request, answer in fake.exchanges:
        if "upload_id" in request.query:  # a session's address is the server's to choose
            continue
        method, _ = route(request)
        known = DOCUMENT["methods"][method.id]
        assert set(request.query) <= {*known["parameters"], *DOCUMENT["parameters"]}
        is_json = answer.headers.get("Content-Type", "").startswith("application/json")
        asked_json = request.headers.get("content-type", "").startswith("application/json") and request.body
        if answer.status == 200 and is_json:
            matches(json.loads(answer.body), known["response"], method.id, DOCUMENT["schemas"])
        if "request" in known and asked_json:
            matches(
                json.loads(request.body), known["request"], f"request of {method.id}", DOCUMENT["schemas"]
            )
        if answer.status >= 400:
            error = json.loads(answer.body)["error"]
            assert error["code"] == answer.status and error["errors"][0]["reason"]
        answered.add(method.id)
    assert answered == {method.id for method in METHODS}


def test_a_parameter_that_the_fake_does_not_obey_is_refused(client: Any) -> None:
    bucket = client.create_bucket("strict")
    with pytest.raises(exceptions.BadRequest, match="matchGlob"):
        list(client.list_blobs(bucket, match_glob="**"))
