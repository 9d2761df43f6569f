"""Encryption by the provider: what is asked for arrives, in every kind of write."""

from __future__ import annotations

import os
from typing import Any

import pytest

from faults.proxy import FaultProxy
from servers import AzureServer, Place, S3Server
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.objectstore import ServerSideEncryption, open_store
from textnlp_fast.storage import Repository, StorageConfig

ARN = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
GOOGLE_KEY = "projects/p/locations/us/keyRings/r/cryptoKeys/k"
KEYS_ONLY = ServerSideEncryption()
WITH_KEY = ServerSideEncryption(kms_key=ARN, bucket_key=True)


@pytest.fixture
def large() -> bytes:
    """Enough for an upload in parts."""
    return os.urandom(17 << 20)


def write_all_ways(store: Any, large: bytes) -> list[str]:
    store.put_object("plain", b"x")
    store.put_object("parts", large)
    store.create("created", b"1")
    version = store.compare_and_swap("swapped", b"1", None)
    store.compare_and_swap("swapped", b"2", version)
    return ["plain", "parts", "created", "swapped"]


@pytest.mark.parametrize(
    ("encryption", "expected"),
    [
        (KEYS_ONLY, {"ServerSideEncryption": "AES256"}),
        (ServerSideEncryption(kms_key=ARN), {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": ARN}),
        (WITH_KEY, {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": ARN, "BucketKeyEnabled": True}),
    ],
)
def test_s3_stores_every_object_as_asked(
    moto: S3Server,
    aws_environment: None,
    large: bytes,
    encryption: ServerSideEncryption,
    expected: dict[str, Any],
) -> None:
    bucket = moto.make_bucket()
    store = open_store(f"s3://{bucket}/p", endpoint_url=moto.endpoint_url, encryption=encryption)
    for key in write_all_ways(store, large):
        answer = moto.client().head_object(Bucket=bucket, Key=f"p/{key}")
        if key == "parts":  # of which moto forgets this; the requests themselves are looked at below
            answer["BucketKeyEnabled"] = expected.get("BucketKeyEnabled")
        assert {name: answer.get(name) for name in expected} == expected, key


@pytest.mark.parametrize("place", ["ministack"], indirect=True)
def test_s3_is_told_in_every_request_that_writes(
    place: Place, proxy: FaultProxy, faults: Any, large: bytes
) -> None:
    store = place.open(endpoint_url=faults[1], encryption=WITH_KEY)
    write_all_ways(store, large)
    wanted = {
        "x-amz-server-side-encryption": "aws:kms",
        "x-amz-server-side-encryption-aws-kms-key-id": ARN,
        "x-amz-server-side-encryption-bucket-key-enabled": "true",
    }
    writes = [
        headers
        for method, path, headers in proxy.seen
        if (method == "PUT" and "partNumber" not in path) or (method == "POST" and "?uploads" in path)
    ]
    assert len(writes) == 5
    for headers in writes:
        assert {name: headers.get(name) for name in wanted} == wanted


@pytest.mark.parametrize("place", ["gcs"], indirect=True)
def test_google_stores_every_object_under_the_key(place: Place, gcs_fake: Any, large: bytes) -> None:
    store = place.open("p", encryption=ServerSideEncryption(kms_key=GOOGLE_KEY))
    stored = gcs_fake.api.state.bucket(place.bucket).objects
    for key in write_all_ways(store, large):
        assert stored[f"p/{key}"].kms_key == GOOGLE_KEY, key


def test_azure_encrypts_as_its_container_says(azure_server: AzureServer, azure_container: str) -> None:
    url = f"az://{azure_container}"
    open_store(url, endpoint_url=azure_server.endpoint_url, encryption=KEYS_ONLY).put_object("a", b"x")
    with pytest.raises(InvalidInputError, match="container") as caught:
        open_store(url, endpoint_url=azure_server.endpoint_url, encryption=WITH_KEY)
    assert "encryption-scope" in caught.value.hint


@pytest.mark.parametrize("place", ["memory://x", "folder"])
def test_a_folder_has_no_provider_that_encrypts(place: str, tmp_path: Any) -> None:
    with pytest.raises(InvalidInputError, match="no bucket here"):
        open_store(place if "://" in place else tmp_path, encryption=KEYS_ONLY)


@pytest.mark.parametrize("key", ["", "a key", "k" * 3000, "c2VjcmV0\n"])
def test_refuses_what_names_no_key(key: str) -> None:
    with pytest.raises(InvalidInputError, match="kms_key"):
        ServerSideEncryption(kms_key=key)


def test_a_bucket_key_needs_a_key_and_s3(gcs_environment: None) -> None:
    with pytest.raises(InvalidInputError, match="bucket_key"):
        ServerSideEncryption(bucket_key=True)
    with pytest.raises(InvalidInputError, match="bucket_key"):
        open_store("gs://bucket", encryption=ServerSideEncryption(kms_key=GOOGLE_KEY, bucket_key=True))


def test_a_configuration_carries_it_to_the_bucket(
    moto: S3Server, aws_environment: None, tmp_path: Any
) -> None:
    bucket = moto.make_bucket()
    config = StorageConfig(
        provider="aws",
        bucket_name=bucket,
        endpoint_url=moto.endpoint_url,
        encryption=ServerSideEncryption(kms_key=ARN),
    )
    Repository.from_config(config, create=True)
    answer = moto.client().head_object(Bucket=bucket, Key="repository.json")
    assert answer["SSEKMSKeyId"] == ARN
