"""Whatever fails on the way, nothing is handed over, the error says what it was, and the next load is right."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from delta.models import Model
from faults.proxy import Fault, FaultProxy
from loading.loads import DEVICES, OPTIONS, WINDOW, all_bytes, expected, flip, push_history
from servers import S3Server
from textnlp_fast import load
from textnlp_fast.delta import codec
from textnlp_fast.errors import (
    CorruptDataError,
    DeviceError,
    DigestMismatchError,
    InvalidInputError,
    LoadTimeoutError,
    MissingObjectError,
    StorageUnavailableError,
    TextnlpFastError,
)
from textnlp_fast.loading import device_decoding, ring
from textnlp_fast.objectstore import ObjectStore, open_store
from textnlp_fast.storage import Repository
from textnlp_fast.tensors.device_memory import DeviceArray

History = tuple[Path, dict[str, Model]]


@pytest.fixture
def damaged(tmp_path: Path, history: History) -> Path:
    """A copy of the repository, to be harmed."""
    return Path(shutil.copytree(history[0], tmp_path / "r"))


def objects(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "objects").rglob("*") if path.is_file())


@pytest.mark.parametrize("device", DEVICES)
def test_a_flipped_byte_anywhere(damaged: Path, history: History, device: str) -> None:
    """Never wrong bytes: an error, or what was pushed."""
    hurt = 0
    for path in objects(damaged):
        whole = path.read_bytes()
        # Steps of a fiber are slow: on the emulated device one place of each will do.
        places = (
            {0, len(whole) // 3, len(whole) // 2, len(whole) - 1} if device == "cpu" else {len(whole) // 3}
        )
        for position in places:
            flip(path, position)
            for version in ("1.3.0", "2.0.0") if device == "cpu" else ("1.3.0",):
                try:
                    loaded = load("m", version, repository=damaged, device=device)
                except CorruptDataError as error:
                    hurt += 1
                    assert "tensor" in str(error) or "header" in str(error)
                    assert error.hint
                else:
                    assert all_bytes(loaded) == expected(history[1][version])
            path.write_bytes(whole)
    assert hurt >= len(objects(damaged)) // 2
    assert all_bytes(load("m", "2.0.0", repository=damaged, device=device)) == expected(history[1]["2.0.0"])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("harm", ["missing", "cut short", "empty"])
def test_objects_that_are_not_whole(damaged: Path, device: str, harm: str) -> None:
    manifest = Repository.open(damaged).manifest("m", "1.3.0")
    tensors = {digest for entry in manifest.files for digest in entry.parts[1:]}
    last = max(
        (extent for digest in tensors for extent in manifest.contents[digest].extents),
        key=lambda extent: (extent.object, extent.offset),
    )
    path = next(path for path in objects(damaged) if path.name == last.object)
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: last.offset + last.length - 1 if harm == "cut short" else 0])
    kind = MissingObjectError if harm == "missing" else CorruptDataError
    with pytest.raises(kind):
        load("m", "1.3.0", repository=damaged, device=device)


@pytest.mark.parametrize("device", DEVICES)
def test_a_store_that_fails_at_any_read(
    history: History, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, models = history
    plain = ObjectStore.get_ranges
    seen = 0
    fail_at = -1

    def counted(self: ObjectStore, *arguments: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == fail_at:
            raise StorageUnavailableError("no answer")
        return plain(self, *arguments)

    monkeypatch.setattr(ObjectStore, "get_ranges", counted)
    load("m", "2.0.0", repository=folder, device=device, threads=1)
    total = seen
    assert total >= 5
    for number in range(1, total):
        seen, fail_at = 0, number
        with pytest.raises(StorageUnavailableError, match="no answer"):
            load("m", "2.0.0", repository=folder, device=device, threads=1)
    fail_at = -1
    assert all_bytes(load("m", "2.0.0", repository=folder, device=device)) == expected(models["2.0.0"])


@pytest.mark.parametrize("device", DEVICES)
def test_memory_that_runs_out(history: History, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more(*arguments: Any, **options: Any) -> Any:
        raise MemoryError

    if device == "cpu":
        monkeypatch.setattr(codec, "decode_into", no_more)
        with pytest.raises(MemoryError):
            load("m", "1.3.0", repository=history[0])
        return
    with monkeypatch.context() as patch:
        patch.setattr(device_decoding.codec, "decode_many", no_more)
        with pytest.raises(DeviceError, match="to decode in") as caught:
            load("m", "1.3.0", repository=history[0], device=device)
        assert "memory_budget_bytes" in caught.value.hint
    made: list[DeviceArray] = []
    plain = DeviceArray.empty.__func__  # type: ignore[attr-defined]

    def few(kind: Any, shape: Any, dtype: str, size: int, **options: Any) -> DeviceArray:
        made.append(plain(kind, shape, dtype, size if len(made) < 3 else 1 << 60, **options))
        return made[-1]

    monkeypatch.setattr(DeviceArray, "empty", classmethod(few))
    with pytest.raises(DeviceError, match="bytes left"):
        load("m", "1.3.0", repository=history[0], device=device)
    assert len(made) == 3


@pytest.mark.gpu
@pytest.mark.parametrize("device", DEVICES[1:])
def test_a_copy_that_fails(history: History, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each copy in turn; the ring's slots come back, so that none waits for ever."""
    plain = ring.copy_to_device
    seen = 0
    fail_at = -1

    def counted(*arguments: Any, **options: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == fail_at:
            raise DeviceError("the bus is on fire")
        plain(*arguments, **options)

    monkeypatch.setattr(ring, "copy_to_device", counted)
    load("m", "2.0.0", repository=history[0], device=device)
    total = seen
    assert total
    for number in range(1, total + 1):
        seen, fail_at = 0, number
        with pytest.raises(DeviceError, match="on fire"):
            load("m", "2.0.0", repository=history[0], device=device, timeout_s=60)


@pytest.mark.gpu
@pytest.mark.parametrize("device", DEVICES[1:])
def test_bytes_that_change_on_the_device(
    history: History, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = codec.decode_many

    def wrong(payloads: Any, outs: Any, bases: Any, **options: Any) -> None:
        plain(payloads, outs, bases, **options)
        first = DeviceArray.empty((1,), "U8", 1)
        ring.copy_to_device(b"\xee", outs[0].part(0, 1))
        del first

    monkeypatch.setattr(device_decoding.codec, "decode_many", wrong)
    with pytest.raises(DigestMismatchError, match="on the device"):
        load("m", "1.0.0", repository=history[0], device=device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("harm", ["cut short", "removed"])
def test_a_file_that_changes_while_it_is_read(
    tmp_path: Path, history: History, device: str, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from textnlp_fast.loading import streaming  # noqa: PLC0415

    source = Path(shutil.copytree(history[0].parent / "models" / "1.3", tmp_path / "model"))
    plain: Callable[..., None] = streaming.read_tensors

    def harmed(*arguments: Any, **options: Any) -> None:
        path = source / "model-1.safetensors"
        if harm == "removed":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:-1])
        plain(*arguments, **options)

    monkeypatch.setattr(streaming, "read_tensors", harmed)
    with pytest.raises(InvalidInputError, match=r"ended|cannot be read"):
        load(source, device=device)


# --- a real server ------------------------------------------------------------------------------------------------


@pytest.fixture
def manifests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where manifests of remote repositories are kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("device", DEVICES)
def test_from_a_bucket(
    tmp_path: Path,
    s3_server: S3Server,
    s3_bucket: str,
    manifests: None,
    device: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint_url)
    url = f"s3://{s3_bucket}/models"
    repository = Repository.open(url, create=True, options=OPTIONS, window_bytes=WINDOW)
    models = push_history(repository, tmp_path / "models")
    for version in ("1.0.0", "1.3.0", "2.0.0"):
        loaded = load("m", version, repository=url, device=device)
        assert all_bytes(loaded) == expected(models[version])
    rank = load("m", "1.3.0", repository=url, device=device, slices={"q": (0, 1, 2)}, check_slices=False)
    assert all_bytes(rank)["q"] == expected(models["1.3.0"])["q"][8192:]


@pytest.mark.parametrize("kind", ["lose_answer", "status", "cut_body", "corrupt_answer"])
def test_through_a_bad_network(
    tmp_path: Path, s3_bucket: str, fault_proxy: FaultProxy, manifests: None, kind: Any
) -> None:
    store = open_store(f"s3://{s3_bucket}", endpoint_url=fault_proxy.endpoint_url, retries=3, timeout_s=2)
    repository = Repository(store, OPTIONS)
    repository._versions.new_window_bytes = WINDOW
    repository._versions.info(create=True)
    models = push_history(repository, tmp_path / "models")
    fault = fault_proxy.inject(Fault(kind, method="GET", path="objects/"))
    try:
        loaded = load("m", "1.3.0", repository=repository)
    except TextnlpFastError as error:
        assert isinstance(error, StorageUnavailableError | CorruptDataError)
        loaded = load("m", "1.3.0", repository=repository)
    assert all_bytes(loaded) == expected(models["1.3.0"])
    assert fault.hits == 1


def test_a_server_that_hangs_runs_into_the_time(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    import time  # noqa: PLC0415

    plain = ObjectStore.get_ranges
    slow = False

    def waits(self: ObjectStore, *arguments: Any) -> Any:
        if slow:
            time.sleep(0.1)
        return plain(self, *arguments)

    monkeypatch.setattr(ObjectStore, "get_ranges", waits)
    slow = True
    with pytest.raises(LoadTimeoutError):
        load("m", "2.0.0", repository=history[0], timeout_s=0.15)
