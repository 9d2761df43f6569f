"""Objects that others named: any name that a provider or a file system allows goes up, and comes down."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st

from servers import S3Server
from textnlp_fast.cli.program import group
from textnlp_fast.errors import InvalidInputError, ObjectNotFoundError, TransferCancelledError
from textnlp_fast.objectstore import open_store
from textnlp_fast.objectstore.keys import check_file_key, check_foreign_key
from textnlp_fast.objectstore.transfers import (
    TransferProgress,
    TransferSettings,
    abort_upload,
    download,
    find_uploads,
    upload,
)
from textnlp_fast.objectstore.transfers.moving import split_url
from textnlp_fast.storage import ChunkedTransferManager, Repository
from transfers.conftest import Place

Settings = Callable[..., TransferSettings]

NAMES = [
    "my model.bin",
    "größe/日本語 \N{PILE OF POO}.bin",
    "100%/a%20b",
    "a+b=c&d;e",
    "what?versionId=1#top",
    "quote'\"<>^`{}[]|\\~!*()$@:,",
    ".tmp.x/..y/...",
]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_goes_up_and_comes_down(
    place: Place, settings: Settings, model: Callable[[int], Path], tmp_path: Path, name: str
) -> None:
    local = model(1000)
    report = upload(local, place.store, name, settings())
    assert report.size == 1000
    download(place.store, name, tmp_path / "out", settings())
    assert (tmp_path / "out").read_bytes() == local.read_bytes()
    with pytest.raises(ObjectNotFoundError):
        download(place.store, f"{name} ", tmp_path / "other", settings())


@pytest.mark.parametrize("kind", ["s3_server", "radosgw"])  # the latter checks signatures
def test_amazons_own_client_sees_the_same_names(
    kind: str,
    request: pytest.FixtureRequest,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server: S3Server = request.getfixturevalue(kind)
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(variable, "test")
    client, bucket = server.client(), server.make_bucket()
    store = open_store(f"s3://{bucket}", endpoint_url=server.endpoint_url)
    for name in NAMES:
        client.put_object(Bucket=bucket, Key=f"theirs/{name}", Body=name.encode())
        download(store, f"theirs/{name}", tmp_path / "out", settings())
        assert (tmp_path / "out").read_bytes() == name.encode()
        upload(tmp_path / "out", store, f"ours/{name}", settings())
        assert client.get_object(Bucket=bucket, Key=f"ours/{name}")["Body"].read() == name.encode()


def test_an_upload_in_parts_to_an_odd_name_is_gone_on_with_found_and_aborted(
    bucket: Place, settings: Settings, model: Callable[[int], Path], tmp_path: Path
) -> None:
    name, size = "ä b/100%?x#y+z.bin", 3 * bucket.part_bytes
    local, stop = model(size), threading.Event()

    def look(progress: TransferProgress) -> None:
        if progress.done_bytes > bucket.part_bytes:
            stop.set()

    slow = settings(
        part_bytes=bucket.part_bytes,
        streams=1,
        bandwidth_bytes_per_s=bucket.part_bytes * 3,
        cancel=stop,
        progress=look,
    )
    with pytest.raises(TransferCancelledError):
        upload(local, bucket.store, name, slow)
    found = find_uploads(bucket.store, older_than_s=0, state_folder=slow.state_folder)
    assert [each.key for each in found] == [name]
    report = upload(local, bucket.store, name, settings(part_bytes=bucket.part_bytes))
    assert report.resumed_bytes >= bucket.part_bytes
    download(bucket.store, name, tmp_path / "out", settings())
    assert (tmp_path / "out").read_bytes() == local.read_bytes()
    stop.clear()
    (tmp_path / "again").write_bytes(local.read_bytes()[::-1])
    with pytest.raises(TransferCancelledError):
        upload(tmp_path / "again", bucket.store, name, slow)
    for each in find_uploads(bucket.store, older_than_s=0, state_folder=slow.state_folder):
        abort_upload(each, bucket.store, state_folder=slow.state_folder)
    if bucket.kind != "azure":  # its blocks beside a committed blob are not listed
        assert find_uploads(bucket.store, older_than_s=0, state_folder=slow.state_folder) == []


@pytest.mark.parametrize("name", ["", "/a", "a/", "a//b", ".", "a/..", "../a", "./a"])
def test_names_that_mean_other_places_are_refused_everywhere(
    settings: Settings, model: Callable[[int], Path], tmp_path: Path, name: str
) -> None:
    for place in (tmp_path / "store", f"memory://{tmp_path}"):
        with pytest.raises(InvalidInputError):
            upload(model(10), open_store(place), name, settings())
        with pytest.raises(InvalidInputError):
            download(open_store(place), name, tmp_path / "out", settings())
    assert not (tmp_path / "a").exists()


def test_what_only_a_folder_can_have_and_what_only_a_bucket_can() -> None:
    assert check_file_key("line\nbreak/\udcff") == "line\nbreak/\udcff"
    assert check_foreign_key(".tmp/x") == ".tmp/x"
    for key in ("line\nbreak", "\x7f", "\udcff", "x" * 1025, "ä" * 513):
        with pytest.raises(InvalidInputError):
            check_foreign_key(key)
    assert check_foreign_key("ä" * 512)
    with pytest.raises(InvalidInputError, match="1025 bytes"):
        check_foreign_key("x" * 1023, "p")
    for key in (".tmp/x", ".locks", "a\0b"):
        with pytest.raises(InvalidInputError):
            check_file_key(key)


@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=60))
@example("?#%")
@example(" ")
def test_of_a_buckets_url_the_key_is_all_that_follows_the_bucket(key: str) -> None:
    for scheme in ("s3", "gs", "az"):
        if key.endswith("/"):
            with pytest.raises(InvalidInputError):
                split_url(f"{scheme}://bucket/{key}")
        else:
            assert split_url(f"{scheme}://bucket/{key}") == (f"{scheme}://bucket", key)


def test_a_file_url_is_decoded_and_a_path_is_not(tmp_path: Path) -> None:
    odd = tmp_path / "a b" / "50% ü"
    assert split_url(odd.as_uri()) == (str(odd.parent), odd.name)
    assert split_url(odd) == (str(odd.parent), odd.name)
    assert split_url("a%20b/c%20d") == ("a%20b", "c%20d")


def test_names_are_typed_as_they_are(
    s3_bucket: str, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint_url)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    local = tmp_path / "ü 50%?#.bin"
    local.write_bytes(b"x" * 1000)
    key = "my models/é#1?/100%25"
    for url in (f"s3://{s3_bucket}/{key}", f"s3://{s3_bucket}/my folder/"):
        sent = CliRunner().invoke(group, ["upload", str(local), url, "--json"], catch_exceptions=False)
        assert sent.exit_code == 0, sent.output
    keys = [row["Key"] for row in s3_server.client().list_objects_v2(Bucket=s3_bucket)["Contents"]]
    assert sorted(keys) == sorted([key, f"my folder/{local.name}"])
    (tmp_path / "out").mkdir()
    came = CliRunner().invoke(
        group, ["download", f"s3://{s3_bucket}/my folder/{local.name}", str(tmp_path / "out")]
    )
    assert came.exit_code == 0, came.output
    assert (tmp_path / "out" / local.name).read_bytes() == local.read_bytes()


def test_a_file_whose_name_is_no_text_goes_to_a_folder_and_to_a_bucket(
    bucket: Place, settings: Settings, tmp_path: Path
) -> None:
    local = tmp_path / os.fsdecode(b"not \xff text")
    local.write_bytes(b"x" * (bucket.part_bytes + 1))
    sent = CliRunner().invoke(
        group, ["upload", str(local), f"{tmp_path}/store/", "--json"], catch_exceptions=False
    )
    assert sent.exit_code == 0, sent.output
    assert json.loads(sent.output)["path"] == str(local)
    assert (tmp_path / "store" / local.name).read_bytes() == local.read_bytes()
    upload(local, bucket.store, "m", settings(part_bytes=bucket.part_bytes))
    assert bucket.store.head("m").size == bucket.part_bytes + 1
    with pytest.raises(InvalidInputError, match="no Unicode"):
        upload(local, bucket.store, local.name, settings())


async def test_a_repository_keeps_to_names_that_go_anywhere(
    model: Callable[[int], Path], tmp_path: Path
) -> None:
    repository = Repository.open(tmp_path / "repository", create=True)
    with pytest.raises(InvalidInputError, match="not allowed"):
        await ChunkedTransferManager().upload_file_chunked(
            local_path=model(10), remote_path="files/a b", storage_backend=repository
        )
