"""Networks that lose, cut, delay, refuse and corrupt: what arrives is right, or is not there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from faults.proxy import Fault, FaultProxy, Kind
from textnlp_fast.errors import (
    DigestMismatchError,
    StorageUnavailableError,
    TransferTimeoutError,
)
from textnlp_fast.objectstore import ObjectStore, open_store
from textnlp_fast.objectstore.transfers import TransferSettings, download, find_uploads, upload
from transfers.conftest import BUCKETS, PART_BYTES, new_bucket

Settings = Callable[..., TransferSettings]
# What parts are sent by, and what makes the object of them.
PUTS = {"s3": r"partNumber=", "radosgw": r"partNumber=", "azure": r"comp=block&", "gcs": r"upload_id="}
LAST = {
    "s3": ("POST", "uploadId="),
    "radosgw": ("POST", "uploadId="),
    "azure": ("PUT", "comp=blocklist"),
    "gcs": ("PUT", "upload_id="),
}


@dataclass(frozen=True)
class Behind:
    """A bucket behind a proxy that does harm, and the same bucket without it."""

    kind: str
    proxy: FaultProxy
    store: ObjectStore
    direct: ObjectStore

    @property
    def part_bytes(self) -> int:
        return PART_BYTES.get(self.kind, 256 << 10)


@pytest.fixture(params=BUCKETS)
def behind(request: pytest.FixtureRequest) -> Iterator[Behind]:
    kind = request.param
    url, endpoint = new_bucket(kind, request)
    with FaultProxy(endpoint) as proxy:
        path = endpoint.removeprefix("http://").partition("/")[2]
        through = f"{proxy.endpoint_url}/{path}".rstrip("/")
        yield Behind(
            kind,
            proxy,
            open_store(url, endpoint_url=through, retries=0, timeout_s=5),
            open_store(url, endpoint_url=endpoint),
        )


PASSING: list[Fault] = [
    Fault("lose_answer", times=2),
    Fault("lose_request", times=2),
    Fault("status", code=429, times=2),
    Fault("status", code=500),
    Fault("status", code=503, times=3),
]


def _again(fault: Fault, **changes: object) -> Fault:
    return Fault(
        **{
            "kind": fault.kind,
            "times": fault.times,
            "code": fault.code,
            **changes,
        }
    )  # type: ignore[arg-type]


@pytest.mark.parametrize("fault", [*PASSING, Fault("cut_body", times=2)], ids=lambda f: f"{f.kind}{f.code}")
def test_a_download_outlives_what_passes(
    behind: Behind, settings: Settings, model: Callable[[int], Path], tmp_path: Path, fault: Fault
) -> None:
    local = model(1_000_000)
    upload(local, behind.direct, "m", settings())
    harm = behind.proxy.inject(_again(fault, method="GET", after=1))
    report = download(behind.store, "m", tmp_path / "out", settings(part_bytes=100_000, streams=3))
    assert harm.hits == harm.times
    assert report.retries >= 1
    assert (tmp_path / "out").read_bytes() == local.read_bytes()


@pytest.mark.parametrize(
    "fault",
    [*PASSING, Fault("status_after", code=500), Fault("corrupt_request", times=2)],
    ids=lambda f: f"{f.kind}{f.code}",
)
def test_an_upload_outlives_what_passes(
    behind: Behind, settings: Settings, model: Callable[[int], Path], fault: Fault
) -> None:
    if fault.kind == "corrupt_request" and behind.kind == "gcs":
        pytest.skip("Google's sessions check the whole, not each part: see the test below")
    local = model(3 * behind.part_bytes + 7)
    harm = behind.proxy.inject(_again(fault, method="PUT", path=PUTS[behind.kind], after=1))
    report = upload(local, behind.store, "m", settings(part_bytes=behind.part_bytes, streams=2, retries=5))
    assert harm.hits == harm.times
    assert report.retries >= 1
    assert behind.direct.get("m") == local.read_bytes()
    assert find_uploads(behind.direct, older_than_s=0) == []


def test_a_part_harmed_on_the_way_to_google_makes_no_object(
    gcs_bucket: str, gcs_fake: object, settings: Settings, model: Callable[[int], Path]
) -> None:
    with FaultProxy(gcs_fake.endpoint_url) as proxy:  # type: ignore[attr-defined]
        store = open_store(f"gs://{gcs_bucket}", endpoint_url=proxy.endpoint_url)
        proxy.inject(Fault("corrupt_request", method="PUT", path=PUTS["gcs"], after=1))
        with pytest.raises(Exception, match=r"(?i)crc32c|hash|checksum|digest"):
            upload(model(3 << 18), store, "m", settings(part_bytes=1 << 18))
        assert not store.exists("m")


@pytest.mark.parametrize("part", [None, 100_000])  # None: as it was sent
def test_a_bit_flipped_on_the_way_here_is_noticed_and_kept_from_everybody(
    behind: Behind, settings: Settings, model: Callable[[int], Path], tmp_path: Path, part: int | None
) -> None:
    local = model(3 * behind.part_bytes + 7)
    upload(local, behind.direct, "m", settings(part_bytes=behind.part_bytes))
    behind.proxy.inject(Fault("corrupt_answer", method="GET", after=2))
    how = settings(part_bytes=part or behind.part_bytes, streams=2)
    with pytest.raises(DigestMismatchError, match="Nothing was kept"):
        download(behind.store, "m", tmp_path / "out", how)
    assert not list(tmp_path.glob("out*"))
    download(behind.store, "m", tmp_path / "out", how)
    assert (tmp_path / "out").read_bytes() == local.read_bytes()


@pytest.mark.parametrize("kind", ["lose_answer", "lose_request"])
def test_an_upload_whose_last_answer_is_lost_is_complete(
    behind: Behind, settings: Settings, model: Callable[[int], Path], kind: Kind
) -> None:
    local = model(2 * behind.part_bytes + 7)
    method, path = LAST[behind.kind]
    after = 2 if behind.kind == "gcs" else 0  # of which the last part makes the object
    harm = behind.proxy.inject(Fault(kind, method=method, path=path, after=after))
    upload(local, behind.store, "m", settings(part_bytes=behind.part_bytes, streams=1, retries=3))
    assert harm.hits == 1
    assert behind.direct.get("m") == local.read_bytes()


def test_a_store_that_stays_away_ends_the_transfer_and_the_next_goes_on(
    behind: Behind, settings: Settings, model: Callable[[int], Path], tmp_path: Path
) -> None:
    local = model(1_000_000)
    upload(local, behind.direct, "m", settings())
    behind.proxy.inject(Fault("status", method="GET", code=503, after=5, times=10**6))
    how = settings(part_bytes=100_000, streams=1, retries=1)
    with pytest.raises(StorageUnavailableError):
        download(behind.store, "m", tmp_path / "out", how)
    asked = len(behind.proxy.requests)
    assert asked <= 5 + 3 + 2  # and the questions before
    behind.proxy.heal()
    report = download(behind.store, "m", tmp_path / "out", how)
    assert report.resumed_bytes >= 400_000
    assert (tmp_path / "out").read_bytes() == local.read_bytes()


@pytest.mark.parametrize("kind", ["delay", "drip"])
def test_a_stream_that_stands_still_is_begun_anew(
    behind: Behind, settings: Settings, model: Callable[[int], Path], tmp_path: Path, kind: Kind
) -> None:
    local = model(300_000)
    upload(local, behind.direct, "m", settings())
    harm = behind.proxy.inject(Fault(kind, method="GET", after=1, seconds=60 if kind == "delay" else 0.05))
    report = download(
        behind.store,
        "m",
        tmp_path / "out",
        settings(part_bytes=100_000, streams=2, stall_timeout_s=0.6, least_bytes_per_s=1e4),
    )
    assert harm.hits == 1
    assert report.retries >= 1
    assert (tmp_path / "out").read_bytes() == local.read_bytes()


def test_a_server_that_never_answers_is_left_at_the_deadline(
    behind: Behind, settings: Settings, model: Callable[[int], Path], tmp_path: Path
) -> None:
    upload(model(300_000), behind.direct, "m", settings())
    behind.proxy.inject(Fault("delay", method="GET", after=1, times=10**6, seconds=60))
    with pytest.raises(TransferTimeoutError):
        download(behind.store, "m", tmp_path / "out", settings(part_bytes=100_000, deadline_s=3, streams=2))
    assert (tmp_path / "out.part.journal").exists()


def test_an_unfinished_upload_that_the_provider_forgot_begins_anew(
    behind: Behind, settings: Settings, model: Callable[[int], Path], tmp_path: Path
) -> None:
    if behind.kind == "azure":
        pytest.skip("blocks have no upload that could be forgotten as a whole")
    local = model(3 * behind.part_bytes)
    behind.proxy.inject(Fault("status", method="PUT", path=PUTS[behind.kind], code=503, after=1, times=10**6))
    how = settings(part_bytes=behind.part_bytes, streams=1, retries=0)
    with pytest.raises(StorageUnavailableError):
        upload(local, behind.store, "m", how)
    behind.proxy.heal()
    from textnlp_fast.objectstore.transfers import abort_upload  # noqa: PLC0415

    for found in find_uploads(behind.direct, older_than_s=0, state_folder=how.state_folder):
        abort_upload(found, behind.direct, state_folder=tmp_path / "elsewhere")
    report = upload(local, behind.store, "m", how)
    assert report.restarted == "the provider no longer knows the unfinished upload"
    assert behind.direct.get("m") == local.read_bytes()
