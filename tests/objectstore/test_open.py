"""What may be opened, and with whose credentials."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

from servers import S3Server
from textnlp_fast.errors import AuthenticationError, InvalidInputError
from textnlp_fast.objectstore import open_store


def test_a_folder_by_any_of_its_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a b%20c"
    store = open_store(folder)
    store.put_object("x", b"1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (str(folder), "a b%20c", "./a b%20c/", "~/a b%20c", store.url):
        assert open_store(name).get("x") == b"1", name
        assert open_store(name).url == store.url


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("", "empty"),
        ("ftp://host/x", "ftp"),
        ("gs://", "bucket name"),
        ("gs://UPPER", "bucket name"),
        ("gs://goog-le", "bucket name"),
        ("az://", "container name"),
        ("az://a--b", "container name"),
        ("az://Upper", "container name"),
        ("gs://bucket/a//b", "segment"),
        ("az://container/../x", "segment"),
        ("az://container?sig=x", "'\\?'"),
        ("http://host/x", "http"),
        ("file://elsewhere/x", "no file URL"),
        ("s3://", "bucket name"),
        ("s3://UPPER", "bucket name"),
        ("s3://a", "bucket name"),
        ("s3://bucket/../x", "segment"),
        ("s3://bucket/a//b", "segment"),
        ("s3://bucket/x?y=1", "'\\?'"),
        ("s3://bucket/x#y", "'#'"),
    ],
)
def test_refuses_what_is_no_place(url: str, complaint: str, aws_environment: None) -> None:
    with pytest.raises(InvalidInputError, match=complaint):
        open_store(url)


def test_refuses_credentials_in_urls_without_repeating_them(aws_environment: None) -> None:
    for call in (
        lambda: open_store("s3://AKIAKEY:verysecret@bucket/x"),
        lambda: open_store("s3://bucket", endpoint_url="https://user:verysecret@host"),
    ):
        with pytest.raises(InvalidInputError, match="carries credentials") as caught:
            call()
        assert "secret" not in str(caught.value)


def test_plain_http_is_for_this_machine(aws_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for endpoint in ("http://127.0.0.1:9", "http://localhost:9", "http://[::1]:9", "https://minio.example:9"):
        open_store("s3://bucket", endpoint_url=endpoint)
    for endpoint in (
        "http://10.0.0.1:9",
        "http://minio.example",
        "http://127.0.0.1.example",
        "http://0x7f.1.example",
    ):
        with pytest.raises(InvalidInputError, match="in clear"):
            open_store("s3://bucket", endpoint_url=endpoint)
        open_store("s3://bucket", endpoint_url=endpoint, allow_http=True)
    for endpoint in ("minio.example:9000", "ftp://host", "http://"):
        with pytest.raises(InvalidInputError, match="endpoint"):
            open_store("s3://bucket", endpoint_url=endpoint)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")  # obstore's own switch does not count
    for variable in ("AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        with monkeypatch.context() as patch:
            patch.setenv(variable, "http://minio.example")
            with pytest.raises(InvalidInputError, match="in clear"):
                open_store("s3://bucket")


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_endpoint_from_the_environment(
    s3_server: S3Server, s3_bucket: str, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://127.0.0.1:1")
    monkeypatch.setenv(variable, s3_server.endpoint_url)
    store = open_store(f"s3://{s3_bucket}")
    store.put_object("a", b"x")
    assert store.get("a") == b"x"


def test_no_environment_variable_takes_safety_away(
    s3_server: S3Server, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CONDITIONAL_PUT", "disabled")
    store = open_store(f"s3://{s3_bucket}", endpoint_url=s3_server.endpoint_url)
    version = store.compare_and_swap("a", b"1", None)
    assert store.compare_and_swap("a", b"2", version) != version


@pytest.mark.skipif(importlib.util.find_spec("boto3") is None, reason="boto3 reads profiles")
def test_credentials_from_a_profile(
    s3_server: S3Server, s3_bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.delenv(name)
    credentials = tmp_path / "credentials"
    credentials.write_text("[work]\naws_access_key_id = k\naws_secret_access_key = s\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    with pytest.raises(AuthenticationError, match="no AWS credentials"):
        open_store(f"s3://{s3_bucket}", endpoint_url=s3_server.endpoint_url)
    monkeypatch.setenv("AWS_PROFILE", "work")
    store = open_store(f"s3://{s3_bucket}", endpoint_url=s3_server.endpoint_url)
    store.put_object("a", b"x")
    assert store.get("a") == b"x"
    monkeypatch.setenv("AWS_PROFILE", "absent")
    with pytest.raises(AuthenticationError, match="absent"):
        open_store(f"s3://{s3_bucket}", endpoint_url=s3_server.endpoint_url)


def test_a_profile_without_boto3(
    aws_environment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_PROFILE", "work")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None)
    with pytest.raises(AuthenticationError, match="boto3"):
        open_store("s3://bucket", endpoint_url="http://127.0.0.1:9")


@pytest.mark.parametrize("options", [{"timeout_s": 0}, {"timeout_s": -1.0}, {"retries": -1}])
def test_refuses_limits_that_make_no_sense(tmp_path: Path, options: dict[str, float]) -> None:
    with pytest.raises(InvalidInputError):
        open_store(tmp_path, **options)  # type: ignore[arg-type]


def test_opening_a_bucket_imports_boto3_only_when_needed(aws_environment: None) -> None:
    before = "boto3" in sys.modules
    open_store("s3://bucket", endpoint_url="http://127.0.0.1:9")
    assert ("boto3" in sys.modules) == before
