"""A store that asks a node first: what goes where, and nodes that say anything."""

from __future__ import annotations

import http.client
import json
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.loopback_http import Asked, Said, loopback
from textnlp_fast.errors import InvalidInputError, MissingObjectError
from textnlp_fast.hashing import blake3_hex
from textnlp_fast.objectstore import open_store
from textnlp_fast.objectstore.peers import Members, NodeServer, PieceCache, Swarm, with_peers
from textnlp_fast.objectstore.peers.members import check_peers
from textnlp_fast.objectstore.peers.pieces import key_of
from textnlp_fast.objectstore.peers.value_lists import Patience
from textnlp_fast.storage import Repository

QUICK = Patience(request_s=5.0, stall_s=5.0)
Node = Callable[..., NodeServer]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made: list[tuple[NodeServer, threading.Thread]] = []

    def start(folder: Path, *, token: str | None = None, **more: Any) -> NodeServer:
        cache = PieceCache(tmp_path / f"cache{len(made)}")
        swarm = Swarm(open_store(folder), Members([], me="http://127.0.0.1:1"), cache=cache, name="it")
        server = NodeServer(swarm, "127.0.0.1", 0, token=token, name="it")
        thread = threading.Thread(target=server.serve)
        thread.start()
        made.append((server, thread))
        return server

    yield start
    for server, thread in made:
        server.close()
        thread.join()


def get(server: NodeServer, path: str, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


@pytest.fixture
def objects(tmp_path: Path) -> dict[str, bytes]:
    """A store with objects of several sizes, by digest."""
    store = open_store(tmp_path / "store")
    rng = random.Random(3)
    made = [rng.randbytes(size) for size in (1, 1000, 1 << 20, (1 << 20) + 1, 3 << 20, (5 << 20) + 77)]
    for data in made:
        store.put_object(key_of(blake3_hex(data)), data)
    return {blake3_hex(data): data for data in made}


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_ranges_are_the_stores(
    objects: dict[str, bytes], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    store = open_store(tmp_path / "store")
    cache = PieceCache(tmp_path_factory.mktemp("pieces"))
    near = with_peers(store, [], cache=data.draw(st.sampled_from([None, cache])))
    for _ in range(3):
        digest = data.draw(st.sampled_from(sorted(objects)))
        content = objects[digest]
        spans = data.draw(
            st.lists(
                st.tuples(st.integers(0, len(content)), st.integers(0, len(content))).map(sorted), max_size=5
            )
        )
        found = near.get_ranges(key_of(digest), [a for a, _ in spans], [b - a for a, b in spans])
        assert [bytes(each) for each in found] == [content[a:b] for a, b in spans]


def test_only_objects_are_read_from_nearby(tmp_path: Path, node: Node, stored: Any) -> None:
    server = node(stored.folder)
    near = with_peers(open_store(stored.folder), [f"http://127.0.0.1:{server.port}"], patience=QUICK)
    store = open_store(stored.folder)
    for key in ("repository.json", "models/m/versions/1.0.0.json"):
        assert near.get(key) == store.get(key)
        assert near.head(key) == store.head(key)
    assert [one.key for one in near.list("objects")] == [one.key for one in store.list("objects")]
    assert not server.served_bytes
    with pytest.raises(MissingObjectError):
        near.get_range(key_of("0" * 64), 0, 1)
    Repository(near).pull("m", "1.0.0", tmp_path / "out")
    assert server.served_bytes
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == stored.files["model.safetensors"]
    served = server.served_bytes
    assert Repository(near).verify().ok
    assert server.served_bytes == served  # what is really there is looked at
    assert near.at_origin().at_origin().url == store.url


def test_what_is_written_goes_to_the_store(objects: dict[str, bytes], tmp_path: Path) -> None:
    near = with_peers(open_store(tmp_path / "store"), [], cache=PieceCache(tmp_path / "cache"))
    near.put_object(key_of(blake3_hex(b"new")), b"new")
    assert bytes(near.get_range(key_of(blake3_hex(b"new")), 0, 3)) == b"new"
    near.create("models/m/refs.json", b"{}")
    version = near.get_versioned("models/m/refs.json")[1]
    near.compare_and_swap("models/m/refs.json", b"[]", version)
    assert open_store(tmp_path / "store").get("models/m/refs.json") == b"[]"
    near.delete(key_of(blake3_hex(b"new")))
    assert not open_store(tmp_path / "store").exists(key_of(blake3_hex(b"new")))


def test_verify_sees_damage_that_the_cache_would_hide(tmp_path: Path, stored: Any) -> None:
    folder = tmp_path / "repository"
    shutil.copytree(stored.folder, folder)
    near = with_peers(open_store(folder), [], cache=PieceCache(tmp_path / "cache"))
    Repository(near).pull("m", "1.0.0", tmp_path / "out")
    place = next(path for path in (folder / "objects").rglob("*") if path.is_file())
    place.chmod(0o644)
    with place.open("r+b") as file:
        file.seek(1000)
        file.write(b"????")
    assert not Repository(near).verify().ok


ANSWERS: dict[str, Callable[[Asked], Said]] = {
    "nothing": lambda asked: Said(404),
    "errors": lambda asked: Said(500, b"no"),
    "not yet": lambda asked: Said(202, b"coming"),
    "redirects": lambda asked: Said(302, headers={"Location": "http://127.0.0.1:1/"}),
    "too much": lambda asked: Said(200, bytes(2 << 20)),
    "empty": lambda asked: Said(200),
    "other bytes": lambda asked: Said(200, random.Random(1).randbytes(2 << 20)),
    "nonsense": lambda asked: Said(200, b'{"0": 7, "x": "zz"}' if "claims" in asked.path else b"[" * 5000),
}


@pytest.mark.parametrize("what", ANSWERS)
@pytest.mark.parametrize("as_node", [False, True])
def test_a_node_may_say_anything(objects: dict[str, bytes], tmp_path: Path, what: str, as_node: bool) -> None:
    with loopback(ANSWERS[what]) as server:
        members = Members([server.url], me="http://127.0.0.1:1" if as_node else None)
        swarm = Swarm(open_store(tmp_path / "store"), members, patience=Patience(request_s=2.0, stall_s=0.5))
        for digest, content in objects.items():
            (found,) = swarm.read_ranges(digest, [0], [len(content)])
            assert bytes(found) == content
        swarm.close()
    assert server.asked


def test_what_a_node_refuses(objects: dict[str, bytes], tmp_path: Path, node: Node) -> None:
    server = node(tmp_path / "store", token="secret")
    digest = max(objects, key=lambda one: len(objects[one]))
    size = len(objects[digest])
    path = f"/v1/objects/{digest}"
    key = {"Authorization": "Bearer secret"}
    assert get(server, "/healthz")[0] == 200
    assert get(server, f"{path}/map?size={size}")[0] == 401
    assert get(server, f"{path}/map?size={size}", Authorization="Bearer wrong")[0] == 401
    assert get(server, f"{path}/map?size={size}", **key) == (200, bytes(1))
    assert get(server, f"{path}/map?size={size}", **key, **{"X-Node": "it"})[0] == 421
    assert get(server, f"{path}/pieces/0?size={size}", **key)[0] == 404
    status, piece = get(server, f"{path}/pieces/0?size={size}&ask=home", **key)
    assert (status, piece) == (200, objects[digest][: 1 << 20])
    for wrong in (
        f"{path}/pieces/1?size={size + 1}&ask=home",
        f"{path}/pieces/99?size={size}&ask=home",
        f"{path}/pieces/-1?size={size}",
        f"{path}/pieces/0?size={1 << 50}&ask=relay",
        f"{path}/pieces/0?size=",
        f"{path}/pieces/0",
        f"/v1/objects/..%2f..%2fetc/pieces/0?size={size}",
        f"/v1/objects/{'z' * 64}/map?size={size}",
        f"{path}/claims?size={size}&pieces=zz",
        f"{path}/what?size={size}",
        "/",
        "/v1/objects",
        "/" + "x" * 3000,
    ):
        assert get(server, wrong, **key)[0] in (400, 404, 414), wrong
    assert get(server, f"/v1/objects/{'0' * 64}/pieces/0?size=5&ask=home", **key)[0] == 404
    assert not list(tmp_path.glob("cache*/objects/00/*"))
    status, text = get(server, f"{path}/claims?size={size}&pieces=ffffffff", **key)
    assert status == 200
    assert len(json.loads(text)) <= 6
    assert b"textnlp_fast_node_origin_bytes_total" in get(server, "/metrics", **key)[1]


def test_a_node_is_open_to_this_machine_alone_without_a_token(tmp_path: Path) -> None:
    swarm = Swarm(open_store(tmp_path), Members([]))
    with pytest.raises(InvalidInputError, match="token"):
        NodeServer(swarm, "0.0.0.0", 0, token=None)


def test_addresses_of_nodes() -> None:
    assert check_peers([" http://a:1/ ", "", "dns+http://b.svc:2", "http://a:1"]) == (
        "http://a:1",
        "dns+http://b.svc:2",
    )
    for wrong in (
        "a:1",
        "ftp://a:1",
        "http://a",
        "http://u:p@a:1",
        "http://a:1/x",
        "http://a:b",
        "http://a:1\r\nX: y",
    ):
        with pytest.raises(InvalidInputError):
            check_peers([wrong])


def test_who_lied_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    members = Members(["http://10.0.0.3:9"], me="http://10.0.0.1:9")
    server = NodeServer(Swarm(open_store(tmp_path), members), "127.0.0.1", 0, token=None)
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        assert b"node_peer_lied" not in get(server, "/metrics")[1]
        for _ in range(3):
            members.lied("http://10.0.0.3:9")
        metrics = get(server, "/metrics")[1].decode()
    finally:
        server.close()
        thread.join()
    assert 'textnlp_fast_node_peer_lied{peer="http://10.0.0.3:9"} 1' in metrics
    assert [one for one in caplog.messages if "10.0.0.3:9" in one] == [
        "node cache http://10.0.0.3:9 sent bytes that are not the object's; it is not asked for an hour"
    ]


def test_who_is_there_and_who_is_left_alone() -> None:
    now = [0.0]
    there = [["10.0.0.1", "10.0.0.2"]]

    def look_up(name: str, port: int) -> list[str]:
        if not there[0]:
            raise OSError("no such name")
        return there[0]

    members = Members(["dns+http://nodes:9"], me="http://10.0.0.1:9", clock=lambda: now[0], addresses=look_up)
    assert members.all() == ("http://10.0.0.1:9", "http://10.0.0.2:9")
    assert members.others() == ["http://10.0.0.2:9"]
    there[0] = []
    now[0] = 20
    assert len(members.all()) == 2  # a name that cannot be looked up says nothing
    there[0] = ["10.0.0.3"]
    now[0] = 40
    assert members.all() == ("http://10.0.0.1:9", "http://10.0.0.3:9")
    pauses = []
    for _ in range(8):
        members.failed("http://10.0.0.3:9")
        began = now[0]
        while not members.may_ask("http://10.0.0.3:9"):
            now[0] += 0.1
        pauses.append(now[0] - began)
    assert pauses[0] <= 1.5
    assert 40 <= pauses[-1] <= 80
    members.answered("http://10.0.0.3:9")
    members.lied("http://10.0.0.3:9")
    members.answered("http://10.0.0.3:9")
    assert members.banned() == ["http://10.0.0.3:9"]
    assert not members.others()
