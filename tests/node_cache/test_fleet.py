"""Many nodes pull one model at once: what the origin is asked for, and what comes out, whatever some of them do."""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from textnlp_fast.objectstore.peers import pieces
from textnlp_fast.objectstore.peers.peer_client import NotYetError, PeerClient
from textnlp_fast.objectstore.peers.pieces import Layout


def pulled(node: Any, stored: Any) -> dict[str, Any]:
    """Waits for a node's pull, and holds it against what was pushed."""
    report: dict[str, Any] = node.report()
    out = Path(node.settings["out"])
    for name, data in stored.files.items():
        assert (out / name).read_bytes() == data
    return report


def test_twenty_nodes_read_the_origin_once(fleet: Any, stored: Any) -> None:
    started = fleet(20)
    for node in started.nodes:
        node.tell()
    reports = [pulled(node, stored) for node in started.nodes]
    assert started.origin_bytes() <= 1.5 * stored.object_bytes
    # And it is a share each, not one that reads for all.
    assert max(one["read"].get("origin", 0) for one in reports) < 0.5 * stored.object_bytes
    assert not any(one["banned"] for one in reports)


def test_nodes_that_are_killed_in_the_middle(fleet: Any, stored: Any) -> None:
    started = fleet(8, origin_s=0.05)
    for node in started.nodes:
        node.tell()
    end = time.monotonic() + 60
    while not started.origin_bytes() and time.monotonic() < end:
        time.sleep(0.01)
    for node in started.nodes[:3]:
        node.signal(signal.SIGKILL)
    for node in started.nodes[3:]:
        pulled(node, stored)
    # What those had read that are gone is read again, and little more.
    assert started.origin_bytes() <= 3 * stored.object_bytes


@pytest.mark.parametrize("lie", ["/pieces/", "/claims", "/values", "/v1/"])
def test_a_node_that_lies_harms_nobody(fleet: Any, stored: Any, lie: str) -> None:
    started = fleet(6, each=lambda number: {"lie": lie} if number == 0 else {})
    honest = started.nodes[1:]
    for node in honest:
        node.tell()
    liar = f"http://127.0.0.1:{started.nodes[0].settings['port']}"
    for node in honest:
        assert set(pulled(node, stored)["banned"]) <= {liar}
    assert started.origin_bytes() <= 3 * stored.object_bytes


def test_one_among_liars(fleet: Any, stored: Any) -> None:
    started = fleet(5, each=lambda number: {"lie": "/v1/"} if number else {})
    started.nodes[0].tell()
    assert pulled(started.nodes[0], stored)["banned"]


def test_a_node_that_is_slow_is_left_alone(fleet: Any, stored: Any) -> None:
    started = fleet(5, request_s=3.0, each=lambda number: {"slow_s": 30.0} if number == 0 else {})
    for node in started.nodes[1:]:
        node.tell()
    for node in started.nodes[1:]:
        pulled(node, stored)
    assert started.origin_bytes() <= 4 * stored.object_bytes


def test_a_node_that_hangs_is_left_alone(fleet: Any, stored: Any) -> None:
    started = fleet(4, request_s=3.0)
    started.nodes[0].signal(signal.SIGSTOP)
    try:
        for node in started.nodes[1:]:
            node.tell()
        for node in started.nodes[1:]:
            pulled(node, stored)
    finally:
        started.nodes[0].signal(signal.SIGCONT)


def test_a_node_that_was_killed_goes_on_with_what_it_kept(fleet: Any, stored: Any, tmp_path: Path) -> None:
    first = fleet(1, cache=str(tmp_path / "cache"))
    first.nodes[0].tell()
    pulled(first.nodes[0], stored)
    before = first.origin_bytes()
    assert stored.object_bytes <= before <= 1.1 * stored.object_bytes
    first.nodes[0].signal(signal.SIGKILL)
    second = fleet(1, cache=str(tmp_path / "cache"))
    second.nodes[0].tell()
    pulled(second.nodes[0], stored)
    assert second.origin_bytes() == before


def test_who_comes_later_reads_from_the_others(fleet: Any, stored: Any) -> None:
    started = fleet(5)
    for node in started.nodes[:4]:
        node.tell()
    for node in started.nodes[:4]:
        pulled(node, stored)
    before = started.origin_bytes()
    started.nodes[4].tell()
    pulled(started.nodes[4], stored)
    assert started.origin_bytes() - before <= 0.5 * stored.object_bytes


def test_a_node_goes_ahead_of_its_readers(fleet: Any, stored: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for one piece, it fetches the object: readers that all go from the start would all ask the same homes."""
    started = fleet(3)
    (digest,) = stored.digests
    monkeypatch.setattr(pieces, "LEAST_PIECE_BYTES", 256 << 10)  # as nodes have it
    layout = Layout(stored.object_bytes)
    address = f"http://127.0.0.1:{started.nodes[0].settings['port']}"
    client = PeerClient(name="client")

    def asked(piece: int, ask: Any) -> bytes | None:
        while True:
            with suppress(NotYetError):
                return client.piece(address, digest, layout, piece, ask, timeout_s=60)

    assert asked(0, "relay")
    end = time.monotonic() + 120
    while not all(client.map(address, digest, layout, timeout_s=60)):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert started.origin_bytes() <= 1.1 * stored.object_bytes
