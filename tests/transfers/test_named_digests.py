"""Who knows a file's digest sends it at once; a digest that is another's makes no object, anywhere."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import blake3
import pytest

from textnlp_fast.errors import DigestMismatchError, InvalidInputError, TransferCancelledError
from textnlp_fast.objectstore.transfers import (
    TransferProgress,
    TransferSettings,
    download,
    find_uploads,
    first_look,
    upload,
    uploading,
)
from textnlp_fast.objectstore.transfers.protocol import UploadPlan
from textnlp_fast.storage import ChunkedTransferManager
from transfers.conftest import Place

Settings = Callable[..., TransferSettings]
Model = Callable[[int], Path]


def digest_of(path: Path) -> str:
    return blake3.blake3(path.read_bytes()).hexdigest()


def journals(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "state").glob("*.json"))


@pytest.mark.parametrize("parts", [0.0, 0.3, 1.0, 3.4])
def test_a_file_whose_digest_is_known_arrives_and_says_it(
    place: Place, settings: Settings, model: Model, tmp_path: Path, parts: float
) -> None:
    local = model(int(place.part_bytes * parts))
    how = settings(part_bytes=place.part_bytes)
    report = upload(local, place.store, "m", how, digest=digest_of(local).upper())
    assert report.digest == digest_of(local)
    assert place.store.get("m") == local.read_bytes()
    assert not journals(tmp_path)
    back = download(place.store, "m", tmp_path / "back", how)
    assert back.digest == (report.digest if place.kind not in {"folder", "memory"} else None)
    assert (tmp_path / "back").read_bytes() == local.read_bytes()


@pytest.mark.parametrize("parts", [0.3, 3.4])
def test_a_wrong_digest_makes_no_object_and_leaves_no_upload(
    place: Place, settings: Settings, model: Model, tmp_path: Path, parts: float
) -> None:
    local = model(int(place.part_bytes * parts))
    how = settings(part_bytes=place.part_bytes)
    place.store.put_object("m", b"before")
    with pytest.raises(DigestMismatchError):
        upload(local, place.store, "m", how, digest="0" * 64)
    assert place.store.get("m") == b"before"
    assert not journals(tmp_path)
    assert not find_uploads(place.store, older_than_s=0, state_folder=how.state_folder)
    assert upload(local, place.store, "m", how, digest=digest_of(local)).restarted is None


def test_what_is_no_digest_is_refused(place: Place, settings: Settings, model: Model) -> None:
    for wrong in ("", "abc", "g" * 64, "0" * 63, "٣" * 64):
        with pytest.raises(InvalidInputError, match="BLAKE3"):
            upload(model(10), place.store, "m", settings(), digest=wrong)
    assert not place.store.exists("m")


def test_parts_are_sent_before_all_was_looked_at_and_the_last_is_not(
    bucket: Place, settings: Settings, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    if bucket.kind == "gcs":
        pytest.skip("Google wants a checksum of the whole before the first byte")
    local = model(4 * bucket.part_bytes)
    sent = threading.Event()
    moved: list[int] = []
    real = uploading.look_at

    def slow(*arguments: object, seen: Callable[[int, int], None], **options: object) -> UploadPlan:
        """Looks no further than the second part until something was sent."""

        def held(number: int, crc32: int) -> None:
            seen(number, crc32)
            if number == 1:
                assert sent.wait(120)

        found = real(*arguments, seen=held, **options)  # type: ignore[arg-type]
        moved.append(max(seen_bytes))
        return found

    seen_bytes = [0]

    def progress(now: TransferProgress) -> None:
        seen_bytes.append(now.done_bytes)
        if now.done_bytes >= bucket.part_bytes:
            sent.set()

    monkeypatch.setattr(uploading, "look_at", slow)
    how = settings(part_bytes=bucket.part_bytes, progress=progress)
    upload(local, bucket.store, "m", how, digest=digest_of(local))
    assert bucket.part_bytes <= moved[0] < 4 * bucket.part_bytes
    assert bucket.store.get("m") == local.read_bytes()


def interrupted(bucket: Place, settings: Settings, local: Path, digest: str, *, looked: bool) -> None:
    """An upload that ends on the way, before or after all of the file was looked at."""
    cancel = threading.Event()

    def is_noted() -> bool:
        folder = Path(settings().uploads_folder)
        return any(json.loads(path.read_bytes())["crc32"] for path in folder.glob("*.json"))

    def progress(now: TransferProgress) -> None:
        if now.done_bytes >= bucket.part_bytes and (is_noted() or not looked):
            cancel.set()

    def held(*arguments: object, seen: Callable[[int, int], None], **options: object) -> UploadPlan:
        def wait(number: int, crc32: int) -> None:
            seen(number, crc32)
            if number == 2:
                assert cancel.wait(120)

        return real(*arguments, seen=wait, **options)  # type: ignore[arg-type]

    real = uploading.look_at
    how = settings(
        part_bytes=bucket.part_bytes,
        streams=1,
        bandwidth_bytes_per_s=2 * bucket.part_bytes,
        cancel=cancel,
        progress=progress,
    )
    with pytest.MonkeyPatch.context() as patch:
        if not looked:
            patch.setattr(uploading, "look_at", held)
        with pytest.raises(TransferCancelledError):
            upload(local, bucket.store, "m", how, digest=digest)


@pytest.mark.parametrize("looked", [True, False])
@pytest.mark.parametrize("again", [True, False])
def test_an_interrupted_one_goes_on_with_the_digest_or_without(
    bucket: Place, settings: Settings, model: Model, tmp_path: Path, looked: bool, again: bool
) -> None:
    if bucket.kind == "gcs" and not looked:
        pytest.skip("Google wants a checksum of the whole before the first byte")
    local = model(5 * bucket.part_bytes)
    digest = digest_of(local)
    interrupted(bucket, settings, local, digest, looked=looked)
    (journal,) = journals(tmp_path)
    assert (len(json.loads(journal.read_bytes())["crc32"]) == 5) == looked
    how = settings(part_bytes=bucket.part_bytes)
    report = upload(local, bucket.store, "m", how, digest=digest if again else None)
    assert report.restarted is None
    assert report.resumed_bytes >= bucket.part_bytes
    assert report.digest == digest
    assert bucket.store.get("m") == local.read_bytes()
    assert not journals(tmp_path)


def test_an_interrupted_one_under_a_wrong_digest_begins_anew(
    bucket: Place, settings: Settings, model: Model, tmp_path: Path
) -> None:
    if bucket.kind == "gcs":
        pytest.skip("Google wants a checksum of the whole before the first byte")
    local = model(5 * bucket.part_bytes)
    interrupted(bucket, settings, local, "0" * 64, looked=False)
    how = settings(part_bytes=bucket.part_bytes)
    report = upload(local, bucket.store, "m", how)
    assert report.resumed_bytes == 0
    assert report.digest == digest_of(local)
    assert download(bucket.store, "m", tmp_path / "back", how).digest == digest_of(local)
    assert not find_uploads(bucket.store, older_than_s=0, state_folder=how.state_folder)


async def test_the_manager_takes_a_digest_too(tmp_path: Path, settings: Settings, model: Model) -> None:
    manager = ChunkedTransferManager(settings())
    for digest in ("0" * 64, digest_of(model(1000))):
        task = manager.upload_file_chunked(
            local_path=model(1000), remote_path="m", storage_backend=tmp_path / "store", digest=digest
        )
        if digest.startswith("0000"):
            with pytest.raises(DigestMismatchError):
                await task
        else:
            assert (await task).digest == digest


def test_no_more_is_looked_at_than_is_soon_to_be_sent(
    bucket: Place, settings: Settings, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    if bucket.kind == "gcs":
        pytest.skip("Google wants a checksum of the whole before the first byte")
    monkeypatch.setattr(first_look, "_AHEAD", 1)
    local = model(5 * bucket.part_bytes)
    looked, ahead = [-1], list[int]()
    real = uploading.look_at

    def counting(*arguments: object, seen: Callable[[int, int], None], **options: object) -> UploadPlan:
        def noted(number: int, crc32: int) -> None:
            looked.append(number)
            seen(number, crc32)

        return real(*arguments, seen=noted, **options)  # type: ignore[arg-type]

    def progress(now: TransferProgress) -> None:
        ahead.append(looked[-1] - now.done_bytes // bucket.part_bytes)

    monkeypatch.setattr(uploading, "look_at", counting)
    how = settings(part_bytes=bucket.part_bytes, streams=1, progress=progress)
    upload(local, bucket.store, "m", how, digest=digest_of(local))
    assert looked == [-1, 0, 1, 2, 3, 4]
    assert max(ahead) <= 2
    assert bucket.store.get("m") == local.read_bytes()
