"""Transfers over TLS: believed is whom SSL_CERT_FILE names, whichever client asks; nobody else hears anything."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner

from faults.proxy import Fault, FaultProxy
from servers import Authority, believe, tls_front
from textnlp_fast.cli.program import group
from textnlp_fast.errors import (
    InvalidInputError,
    StorageUnavailableError,
    TransferCancelledError,
    UntrustedServerError,
)
from textnlp_fast.objectstore import open_store
from textnlp_fast.objectstore.transfers import TransferProgress, TransferSettings, download, upload
from transfers.conftest import BUCKETS, PART_BYTES, new_bucket

Settings = Callable[..., TransferSettings]


@dataclass(frozen=True)
class Front:
    """A bucket behind TLS: ``endpoint`` leads through nginx, then ``proxy``, then to the server."""

    url: str
    endpoint: str
    proxy: FaultProxy
    part_bytes: int

    def open(self, **how: Any) -> Any:
        return open_store(self.url, endpoint_url=self.endpoint, **{"timeout_s": 20, **how})


@pytest.fixture(params=BUCKETS)
def front(
    request: pytest.FixtureRequest, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Front]:
    url, endpoint = new_bucket(request.param, request)
    believe(authority.path, monkeypatch)
    with ExitStack() as open_:
        proxy = open_.enter_context(FaultProxy(endpoint))
        through = f"{proxy.endpoint_url}{urlsplit(endpoint).path}"
        secure = open_.enter_context(tls_front(through, authority, tmp_path / "nginx"))
        if request.param == "gcs":
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", secure)
        yield Front(url, secure, proxy, PART_BYTES.get(request.param, 256 << 10))


def test_a_transfer_goes_on_both_ways(
    front: Front, settings: Settings, model: Callable[[int], Path], tmp_path: Path
) -> None:
    size = 4 * front.part_bytes + 5
    local, store = model(size), front.open()
    for move in (
        lambda how: upload(local, store, "deep/m", how),
        lambda how: download(store, "deep/m", tmp_path / "out", how),
    ):
        enough = threading.Event()

        def look(progress: TransferProgress, enough: threading.Event = enough) -> None:
            if progress.done_bytes > 2 * front.part_bytes:
                enough.set()

        slow = settings(
            part_bytes=front.part_bytes,
            streams=1,
            bandwidth_bytes_per_s=4 * front.part_bytes,
            cancel=enough,
            progress=look,
        )
        with pytest.raises(TransferCancelledError):
            move(slow)
        report = move(settings(part_bytes=front.part_bytes))
        assert report.resumed_bytes >= front.part_bytes
        assert report.resumed_bytes + report.moved_bytes == size
    assert (tmp_path / "out").read_bytes() == local.read_bytes()
    assert store.get("deep/m") == local.read_bytes()


@pytest.mark.parametrize("kind", ["lose_answer", "lose_request", "status", "cut_body"])
def test_a_transfer_outlives_what_passes(
    front: Front, settings: Settings, model: Callable[[int], Path], tmp_path: Path, kind: Any
) -> None:
    local, store = model(2 * front.part_bytes + 7), front.open(retries=0)
    how = settings(part_bytes=front.part_bytes, streams=2, retries=5)
    sent = front.proxy.inject(Fault(kind, method="PUT", after=1, times=2))
    upload(local, store, "m", how)
    came = front.proxy.inject(Fault(kind, method="GET", after=1))
    download(store, "m", tmp_path / "out", how)
    assert (sent.hits, came.hits) == (2, 1)
    assert (tmp_path / "out").read_bytes() == local.read_bytes()


def test_whom_nobody_here_believes_hears_nothing(
    front: Front,
    stranger: Authority,
    settings: Settings,
    model: Callable[[int], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    believe(stranger.path, monkeypatch)
    store = front.open(retries=2)
    begun = time.process_time()
    for call in (
        lambda: upload(model(3 * front.part_bytes), store, "m", settings(retries=1000)),
        lambda: upload(model(10), store, "m", settings(retries=1000)),
        lambda: download(store, "m", tmp_path / "out", settings(retries=1000)),
        lambda: store.put_object("a", b"x"),
        lambda: store.create("a", b"x"),
        lambda: store.get("a"),
    ):
        with pytest.raises(UntrustedServerError, match="SSL_CERT_FILE") as refused:
            call()
        assert isinstance(refused.value, StorageUnavailableError)
        assert refused.value.exit_code == 8
    assert time.process_time() - begun < 60  # a thousand tries would take longer
    assert front.proxy.requests == []
    assert not list(tmp_path.glob("out*"))


def test_a_certificate_of_another_name_is_refused(
    front: Front, settings: Settings, model: Callable[[int], Path]
) -> None:
    elsewhere = front.endpoint.replace("localhost", "127.0.0.2")
    store = open_store(front.url, endpoint_url=elsewhere, timeout_s=20, retries=0)
    with pytest.raises(UntrustedServerError):
        upload(model(10), store, "m", settings())
    with pytest.raises(UntrustedServerError):
        store.get("a")
    assert front.proxy.requests == []


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "AWS_CA_BUNDLE"])
@pytest.mark.usefixtures("aws_environment")
def test_authorities_that_are_not_there_are_named(
    settings: Settings, model: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    pytest.importorskip("boto3")
    believe(None, monkeypatch)
    monkeypatch.setenv(variable, "/nowhere/authority.pem")
    with pytest.raises(InvalidInputError, match=f"{variable} names /nowhere/authority.pem"):
        upload(model(10), open_store("s3://bucket", endpoint_url="https://localhost:1"), "m", settings())


@pytest.mark.parametrize("url", ["s3://bucket/m", "gs://bucket/m", "az://container/m"])
@pytest.mark.usefixtures("aws_environment", "azure_environment")
def test_nothing_goes_to_another_machine_in_clear(
    model: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """192.0.2.0/24 is nobody's: had anything been sent, this would take until a timeout, and end otherwise."""
    for name in ("AWS_ENDPOINT_URL", "STORAGE_EMULATOR_HOST", "AZURE_STORAGE_ENDPOINT"):
        monkeypatch.setenv(name, "http://192.0.2.1:9000")
    for arguments in (["upload", str(model(10)), url], ["download", url, "out"]):
        answer = CliRunner().invoke(group, arguments)
        assert isinstance(answer.exception, InvalidInputError), answer.output
        assert "in clear" in str(answer.exception)
        assert "https://" in answer.exception.hint
