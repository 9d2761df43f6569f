"""Files go to every kind of place and come back, whatever their size."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import blake3
import pytest

from servers import S3Server
from textnlp_fast.errors import (
    DigestMismatchError,
    InvalidInputError,
    ObjectNotFoundError,
    SourceChangedError,
    TransferCancelledError,
    TransferTimeoutError,
)
from textnlp_fast.objectstore import open_store
from textnlp_fast.objectstore.transfers import (
    TransferProgress,
    TransferSettings,
    abort_upload,
    download,
    find_uploads,
    upload,
)
from transfers.conftest import Place

Settings = Callable[..., TransferSettings]


@pytest.mark.parametrize("parts", [0.0, 1e-9, 1.0, 2.7])
def test_a_file_comes_back_as_it_went(
    place: Place, settings: Settings, model: Callable[[int], Path], tmp_path: Path, parts: float
) -> None:
    size = max(int(place.part_bytes * parts), parts > 0)
    local = model(size)
    content = local.read_bytes()
    seen: list[TransferProgress] = []
    report = upload(
        local, place.store, "a/m.bin", settings(part_bytes=place.part_bytes, progress=seen.append)
    )
    assert (report.size, report.moved_bytes, report.resumed_bytes) == (size, size, 0)
    assert report.digest == blake3.blake3(content).hexdigest()
    assert place.store.get("a/m.bin") == content
    back = download(
        place.store,
        "a/m.bin",
        tmp_path / "back.bin",
        settings(part_bytes=place.part_bytes, progress=seen.append),
    )
    assert (tmp_path / "back.bin").read_bytes() == content
    assert (back.size, back.moved_bytes) == (size, size)
    assert back.digest == (report.digest if place.kind not in {"folder", "memory"} else None)
    assert sorted(path.name for path in tmp_path.glob("back*")) == ["back.bin"]
    assert not list((tmp_path / "state").glob("*.json"))
    last = seen[-1]
    assert (last.done_bytes, last.total_bytes, last.eta_s) == (size, size, 0.0)
    assert (last.parts_done, last.fraction) == (last.parts_total, 1.0)


def test_an_object_is_replaced_in_one_step(
    place: Place, settings: Settings, model: Callable[[int], Path]
) -> None:
    old, new = model(2 * place.part_bytes), model(place.part_bytes + 1)
    upload(old, place.store, "m", settings(part_bytes=place.part_bytes))
    upload(new, place.store, "m", settings(part_bytes=place.part_bytes))
    assert place.store.get("m") == new.read_bytes()


def test_what_is_there_is_not_read_again(
    bucket: Place, settings: Settings, model: Callable[[int], Path], tmp_path: Path
) -> None:
    upload(model(1000), bucket.store, "m", settings())
    download(bucket.store, "m", tmp_path / "out", settings())
    again = download(bucket.store, "m", tmp_path / "out", settings())
    assert (again.moved_bytes, again.resumed_bytes) == (0, 1000)


def test_an_object_that_is_not_there_is_said_to_be_missing(
    place: Place, settings: Settings, tmp_path: Path
) -> None:
    with pytest.raises(ObjectNotFoundError) as missing:
        download(place.store, "nothing", tmp_path / "out", settings())
    assert missing.value.exit_code == 3
    assert not list(tmp_path.glob("out*"))


def test_a_bucket_that_is_not_there_is_said_to_be_missing(
    s3_bucket: str, s3_server: S3Server, settings: Settings, tmp_path: Path
) -> None:
    store = open_store(f"s3://{s3_bucket}-none", endpoint_url=s3_server.endpoint_url)
    with pytest.raises(InvalidInputError, match="no bucket") as missing:
        download(store, "m", tmp_path / "out", settings())
    assert missing.value.exit_code == 2


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "name", ["deadline_s", "bandwidth_bytes_per_s", "stall_timeout_s", "least_bytes_per_s"]
)
def test_what_is_no_finite_number_bounds_nothing(name: str, value: float) -> None:
    with pytest.raises(InvalidInputError, match="finite"):
        TransferSettings(**{name: value})


def test_a_digest_that_the_caller_knows_is_checked(
    place: Place, settings: Settings, model: Callable[[int], Path], tmp_path: Path
) -> None:
    upload(model(1000), place.store, "m", settings())
    with pytest.raises(DigestMismatchError):
        download(place.store, "m", tmp_path / "out", settings(), digest="0" * 64)
    assert not (tmp_path / "out").exists()
    right = blake3.blake3(model(1000).read_bytes()).hexdigest()
    assert download(place.store, "m", tmp_path / "out", settings(), digest=right).digest == right


def _stop_after(event: threading.Event, size: int) -> Callable[[TransferProgress], None]:
    def look(progress: TransferProgress) -> None:
        if progress.done_bytes >= size:
            event.set()

    return look


@pytest.mark.parametrize("keeps", [True, False])
def test_a_cancelled_upload_goes_on_or_leaves_nothing(
    bucket: Place, settings: Settings, model: Callable[[int], Path], keeps: bool
) -> None:
    size = 5 * bucket.part_bytes + 5
    local, event = model(size), threading.Event()
    slow = settings(
        part_bytes=bucket.part_bytes,
        streams=1,
        bandwidth_bytes_per_s=bucket.part_bytes * 2,
        cancel=event,
        on_cancel="keep" if keeps else "discard",
        progress=_stop_after(event, 2 * bucket.part_bytes + 1),
    )
    with pytest.raises(TransferCancelledError) as stopped:
        upload(local, bucket.store, "m", slow)
    assert stopped.value.kept is keeps
    assert not bucket.store.exists("m")
    if bucket.kind != "azure" or keeps:
        assert len(find_uploads(bucket.store, older_than_s=0, state_folder=slow.state_folder)) == keeps
    report = upload(local, bucket.store, "m", settings(part_bytes=bucket.part_bytes))
    assert bucket.store.get("m") == local.read_bytes()
    assert (report.resumed_bytes >= 2 * bucket.part_bytes) is keeps
    assert report.moved_bytes + report.resumed_bytes == size
    assert find_uploads(bucket.store, older_than_s=0, state_folder=slow.state_folder) == []


@pytest.mark.parametrize("keeps", [True, False])
def test_a_cancelled_download_goes_on_or_leaves_nothing(
    place: Place, settings: Settings, model: Callable[[int], Path], tmp_path: Path, keeps: bool
) -> None:
    size, part = 2_000_003, 100_000
    local, event = model(size), threading.Event()
    upload(local, place.store, "m", settings())
    slow = settings(
        part_bytes=part,
        streams=2,
        bandwidth_bytes_per_s=1e6,
        cancel=event,
        on_cancel="keep" if keeps else "discard",
        progress=_stop_after(event, 7 * part),
    )
    with pytest.raises(TransferCancelledError):
        download(place.store, "m", tmp_path / "out", slow)
    assert bool(list(tmp_path.glob("out*"))) is keeps
    report = download(place.store, "m", tmp_path / "out", settings(part_bytes=part))
    assert (tmp_path / "out").read_bytes() == local.read_bytes()
    assert (report.resumed_bytes >= 4 * part) is keeps
    assert report.moved_bytes + report.resumed_bytes == size


def test_a_file_that_changed_is_not_mixed_with_what_was_sent_of_it(
    bucket: Place, settings: Settings, model: Callable[[int], Path]
) -> None:
    size = 4 * bucket.part_bytes
    local, event = model(size), threading.Event()
    slow = settings(
        part_bytes=bucket.part_bytes,
        streams=1,
        bandwidth_bytes_per_s=bucket.part_bytes * 2,
        cancel=event,
        progress=_stop_after(event, 2 * bucket.part_bytes),
    )
    with pytest.raises(TransferCancelledError):
        upload(local, bucket.store, "m", slow)
    changed = local.read_bytes()[::-1]
    local.write_bytes(changed)
    report = upload(local, bucket.store, "m", settings(part_bytes=bucket.part_bytes))
    assert report.restarted == "the file changed since"
    assert report.resumed_bytes == 0
    assert bucket.store.get("m") == changed


def test_a_file_that_changes_while_it_is_sent_is_refused(
    bucket: Place, settings: Settings, model: Callable[[int], Path]
) -> None:
    local = model(4 * bucket.part_bytes)

    def harm(progress: TransferProgress) -> None:
        if progress.done_bytes > bucket.part_bytes:
            with local.open("r+b") as file:
                file.seek(-1, 2)
                file.write(b"!")

    with pytest.raises(SourceChangedError, match="written to while it was sent"):
        upload(
            local,
            bucket.store,
            "m",
            settings(
                part_bytes=bucket.part_bytes,
                streams=1,
                bandwidth_bytes_per_s=bucket.part_bytes * 2,
                progress=harm,
            ),
        )
    assert not bucket.store.exists("m")


def test_an_object_that_changed_is_not_mixed_with_what_was_read_of_it(
    place: Place, settings: Settings, model: Callable[[int], Path], tmp_path: Path
) -> None:
    size, part = 1_500_000, 100_000
    local, event = model(size), threading.Event()
    upload(local, place.store, "m", settings())
    slow = settings(
        part_bytes=part,
        streams=2,
        bandwidth_bytes_per_s=1e6,
        cancel=event,
        progress=_stop_after(event, 4 * part),
    )
    with pytest.raises(TransferCancelledError):
        download(place.store, "m", tmp_path / "out", slow)
    changed = local.read_bytes()[::-1]
    place.store.put_object("m", changed)
    report = download(place.store, "m", tmp_path / "out", settings(part_bytes=part))
    assert report.restarted is not None
    assert "changed since" in report.restarted
    assert report.resumed_bytes == 0
    assert (tmp_path / "out").read_bytes() == changed


def test_an_object_that_changes_while_it_is_read_is_refused(
    place: Place, settings: Settings, model: Callable[[int], Path], tmp_path: Path
) -> None:
    size, part = 1_500_000, 100_000
    local = model(size)
    upload(local, place.store, "m", settings())
    changed = local.read_bytes()[::-1]
    done: list[bool] = []

    def replace(progress: TransferProgress) -> None:
        if progress.done_bytes > part and not done:
            done.append(True)
            place.store.put_object("m", changed)

    slow = settings(part_bytes=part, streams=2, bandwidth_bytes_per_s=1e6, progress=replace)
    with pytest.raises(SourceChangedError):
        download(place.store, "m", tmp_path / "out", slow)
    assert not list(tmp_path.glob("out*"))


def test_a_deadline_ends_a_transfer_that_can_go_on_later(
    place: Place, settings: Settings, model: Callable[[int], Path], tmp_path: Path
) -> None:
    local, part = model(1_000_000), 64 << 10
    upload(local, place.store, "m", settings())
    with pytest.raises(TransferTimeoutError, match="did not end within"):
        download(
            place.store,
            "m",
            tmp_path / "out",
            settings(part_bytes=part, streams=1, bandwidth_bytes_per_s=2e5, deadline_s=1.5),
        )
    report = download(place.store, "m", tmp_path / "out", settings(part_bytes=part))
    assert report.moved_bytes + report.resumed_bytes == 1_000_000
    assert (tmp_path / "out").read_bytes() == local.read_bytes()


def test_abandoned_uploads_are_found_and_removed(
    bucket: Place, settings: Settings, model: Callable[[int], Path]
) -> None:
    event = threading.Event()
    slow = settings(
        part_bytes=bucket.part_bytes,
        streams=1,
        bandwidth_bytes_per_s=bucket.part_bytes * 4,
        cancel=event,
        progress=_stop_after(event, bucket.part_bytes + 1),
    )
    with pytest.raises(TransferCancelledError):
        upload(model(4 * bucket.part_bytes), bucket.store, "x/m", slow)
    found = find_uploads(bucket.store, older_than_s=0, state_folder=slow.state_folder)
    assert [upload.key for upload in found] == ["x/m"]
    if bucket.kind != "azure":
        assert find_uploads(bucket.store, older_than_s=3600, state_folder=slow.state_folder) == []
    assert found[0].upload_id not in repr(found[0])
    abort_upload(found[0], bucket.store, state_folder=slow.state_folder)
    abort_upload(found[0], bucket.store, state_folder=slow.state_folder)
    assert find_uploads(bucket.store, older_than_s=0, state_folder=slow.state_folder) == []
    report = upload(model(4 * bucket.part_bytes), bucket.store, "x/m", settings(part_bytes=bucket.part_bytes))
    assert report.resumed_bytes == 0
    assert bucket.store.get("x/m") == model(4 * bucket.part_bytes).read_bytes()


def test_a_state_folder_that_cannot_be_is_said_to_be_wrong(
    s3_bucket: str, s3_server: S3Server, model: Callable[[int], Path], tmp_path: Path
) -> None:
    pytest.importorskip("boto3")
    (tmp_path / "file").write_bytes(b"")
    store = open_store(f"s3://{s3_bucket}", endpoint_url=s3_server.endpoint_url)
    with pytest.raises(InvalidInputError, match="cannot keep a journal"):
        upload(model(10), store, "m", TransferSettings(state_folder=tmp_path / "file" / "state"))


def test_what_others_left_in_s3_is_found_too(s3_bucket: str, s3_server: S3Server) -> None:
    boto3 = pytest.importorskip("boto3")
    client = boto3.client("s3", endpoint_url=s3_server.endpoint_url)
    client.create_multipart_upload(Bucket=s3_bucket, Key="in/objects/ab/cdef")
    client.create_multipart_upload(Bucket=s3_bucket, Key="elsewhere/x")
    store = open_store(f"s3://{s3_bucket}/in", endpoint_url=s3_server.endpoint_url)
    found = find_uploads(store, older_than_s=0)
    assert [upload.key for upload in found] == ["objects/ab/cdef"]
    abort_upload(found[0], store)
    assert find_uploads(store, older_than_s=0) == []
    assert s3_server.open_uploads(s3_bucket) == 1


def test_what_is_left_in_a_folder_is_found(
    settings: Settings, model: Callable[[int], Path], tmp_path: Path
) -> None:
    store, event = open_store(tmp_path / "store"), threading.Event()
    slow = settings(
        part_bytes=100_000,
        bandwidth_bytes_per_s=1e6,
        cancel=event,
        progress=_stop_after(event, 300_000),
    )
    with pytest.raises(TransferCancelledError):
        upload(model(1_000_000), store, "m", slow)
    assert list(store.list()) == []  # what is unfinished is no object
    found = find_uploads(store, older_than_s=0)
    assert len(found) == 1
    abort_upload(found[0], store)
    assert find_uploads(store, older_than_s=0) == []
    assert not list((tmp_path / "store" / ".tmp").iterdir())


def test_a_directory_is_neither_sent_nor_replaced(place: Place, settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError):
        upload(tmp_path, place.store, "m", settings())
    place.store.put_object("m", b"x")
    with pytest.raises(InvalidInputError, match="is a directory"):
        download(place.store, "m", tmp_path, settings())


def test_a_sparse_file_stays_one(settings: Settings, tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(64 << 20)
        file.seek(40 << 20)
        file.write(b"in the middle")
    upload(tmp_path / "sparse", store, "sparse", settings())
    download(store, "sparse", tmp_path / "out", settings())
    assert (tmp_path / "out").read_bytes() == (tmp_path / "sparse").read_bytes()
    assert (tmp_path / "out").stat().st_blocks * 512 < 4 << 20
