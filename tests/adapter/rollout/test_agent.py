"""The agent's HTTP: who is let in, what is refused, and that nothing is done twice."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textnlp_fast.adapter.rollout.agent import ReplicaAgent
from textnlp_fast.adapter.rollout.engines import EngineLook
from textnlp_fast.adapter.rollout.gate import DrainingError, Gate
from textnlp_fast.adapter.rollout.state import Mode
from textnlp_fast.errors import CorruptDataError, InvalidInputError, SwapRefusedError

TOKEN = "a-token-of-sixteen"


class Plain:
    """An engine that notes what it is told, and can be held up."""

    mode: Mode = "swap"

    def __init__(self) -> None:
        self.serving, self.prepared = "1.0.0", None
        self.told: list[str] = []
        self.go = threading.Event()
        self.go.set()
        self.gate = Gate()
        self.error: Exception | None = None

    def look(self) -> EngineLook:
        return EngineLook(
            serving=self.serving, prepared=self.prepared, ready=True, run="run-1", is_open=self.gate.is_open
        )

    def prepare(self, model: str, version: str) -> None:
        self.told.append(f"prepare {model}@{version}")
        self.go.wait()
        if self.error is not None:
            raise self.error
        self.prepared = version

    def commit(self, version: str) -> None:
        self.told.append(f"commit {version}")
        self.serving, self.prepared = version, None

    def abort(self) -> None:
        self.told.append("abort")
        self.prepared = None

    def drain(self, deadline_s: float) -> int:
        return self.gate.close(deadline_s)

    def resume(self) -> None:
        self.gate.open()


class Asked:
    """An agent, and the words that a controller has for it."""

    def __init__(self, folder: Path) -> None:
        self.engine = Plain()
        self.agent = ReplicaAgent(self.engine, folder, port=0, token=TOKEN)
        self.number = 0

    def ask(self, method: str, verb: str, body: Any = None, *, token: str | None = TOKEN) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(self.agent.host, self.agent.port, timeout=60)
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        try:
            connection.request(
                method, f"/v1/{verb}", body=None if body is None else json.dumps(body), headers=headers
            )
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def tell(
        self, verb: str, version: str = "2.0.0", *, fence: int = 1, operation: str | None = None
    ) -> tuple[int, Any]:
        self.number += 1
        body = {"fence": fence, "target": "eu/serving", "model": "llm", "version": version}
        return self.ask("POST", verb, {**body, "operation": operation or f"o{self.number}", "deadline_s": 0})

    def settled(self) -> dict[str, Any]:
        while True:
            state = self.ask("GET", "state")[1]
            if not state["busy"]:
                return dict(state)
            time.sleep(0.01)


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Asked]:
    made = Asked(tmp_path)
    yield made
    made.engine.go.set()
    made.agent.close()


def test_a_version_is_prepared_and_committed_and_each_ask_counts_once(asked: Asked) -> None:
    assert asked.tell("prepare", operation="a")[0] == 200
    assert asked.tell("prepare", operation="a")[0] == 200
    assert asked.settled()["prepared"] == "2.0.0"
    assert asked.tell("prepare", operation="b")[0] == 200  # prepared already
    asked.settled()
    asked.tell("commit", operation="c")
    asked.settled()
    asked.tell("commit", operation="d")  # committed already
    state = asked.settled()
    assert (state["serving"], state["prepared"], state["error"], state["operation"]) == (
        "2.0.0",
        None,
        "",
        "d",
    )
    assert asked.engine.told == ["prepare llm@2.0.0", "commit 2.0.0"]


def test_what_is_prepared_gives_way_and_what_was_not_prepared_is_not_committed(asked: Asked) -> None:
    asked.tell("prepare", "2.0.0")
    asked.settled()
    asked.tell("prepare", "3.0.0")
    assert asked.settled()["prepared"] == "3.0.0"
    asked.tell("commit", "2.0.0")
    assert "2.0.0 was not prepared" in asked.settled()["error"]
    assert asked.engine.told == ["prepare llm@2.0.0", "abort", "prepare llm@3.0.0"]


def test_errors_of_engines_are_told(asked: Asked) -> None:
    asked.engine.error = SwapRefusedError("3 requests run, or may come")
    asked.tell("prepare")
    assert asked.settled()["error"] == "SwapRefusedError: 3 requests run, or may come"
    asked.engine.error = RuntimeError("out of memory")
    asked.tell("prepare")
    assert asked.settled()["error"] == "RuntimeError: out of memory"


def test_one_thing_at_a_time_and_no_gate_opens_over_half_a_swap(asked: Asked) -> None:
    asked.engine.go.clear()
    assert asked.tell("prepare")[0] == 200
    assert asked.ask("GET", "state")[1]["busy"]
    assert asked.tell("commit")[0] == 503
    assert asked.tell("resume")[0] == 503
    asked.engine.go.set()
    asked.settled()
    assert asked.tell("resume")[0] == 503
    asked.tell("abort", "")
    asked.settled()
    assert asked.tell("resume")[0] == 200


def test_a_later_controller_shuts_out_the_one_before_over_a_restart_too(asked: Asked, tmp_path: Path) -> None:
    assert asked.tell("fence", fence=7)[0] == 200
    status, said = asked.tell("prepare", fence=6)
    assert (status, "fence 7, not 6" in said["error"]) == (409, True)
    assert asked.engine.told == []
    other = {"fence": 1, "target": "us/serving"}
    assert asked.ask("POST", "fence", other)[0] == 200
    with ReplicaAgent(Plain(), tmp_path, port=0) as again:
        assert again.state()["fence"] == 7
    (tmp_path / "agent.json").write_text("{")
    with pytest.raises(CorruptDataError, match="not what an agent wrote"):
        ReplicaAgent(Plain(), tmp_path, port=0)


def test_only_who_has_the_token_is_let_in(asked: Asked, tmp_path: Path) -> None:
    assert asked.ask("GET", "state", token=None)[0] == 401
    assert asked.ask("GET", "state", token=TOKEN + "x")[0] == 401
    assert asked.ask("POST", "resume", {"fence": 1, "target": "t"}, token="ü" * 16)[0] == 401
    with pytest.raises(InvalidInputError, match="there is no token"):
        ReplicaAgent(Plain(), tmp_path, host="0.0.0.0", port=0)
    with pytest.raises(InvalidInputError, match="fewer than"):
        ReplicaAgent(Plain(), tmp_path, port=0, token="short")
    with pytest.raises(InvalidInputError, match="cannot listen"):
        ReplicaAgent(Plain(), tmp_path, port=asked.agent.port)


def test_without_a_token_only_this_machine_by_its_own_names_is(tmp_path: Path) -> None:
    with ReplicaAgent(Plain(), tmp_path, port=0) as agent:
        for host, status in (("localhost", 200), ("127.0.0.1:1", 200), ("rebound.example.org", 403)):
            connection = http.client.HTTPConnection(agent.host, agent.port, timeout=60)
            connection.request("GET", "/v1/state", headers={"Host": host})
            assert connection.getresponse().status == status
            connection.close()


_WORDS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)


@settings(max_examples=60)
@given(
    verb=st.sampled_from(["prepare", "commit", "abort", "drain", "resume", "fence", "else"]),
    body=st.dictionaries(
        st.sampled_from(["fence", "target", "model", "version", "operation", "deadline_s"]), _WORDS
    )
    | st.lists(_WORDS, max_size=2)
    | st.text(max_size=10),
)
def test_hostile_bodies_are_refused_and_the_agent_goes_on(verb: str, body: Any) -> None:
    made = _shared()
    status, said = made.ask("POST", verb, body)
    assert status in (200, 400, 404, 405, 409, 503)
    assert isinstance(said, dict)
    made.settled()
    assert made.ask("GET", "state")[0] == 200


_made: list[Asked] = []


def _shared() -> Asked:
    if not _made:
        import tempfile  # noqa: PLC0415

        _made.append(Asked(Path(tempfile.mkdtemp())))
    return _made[0]


def test_bodies_that_are_large_broken_or_late_hold_up_nobody(asked: Asked) -> None:
    for raw, status in (
        (b"POST /v1/drain HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n", b"413"),
        (b"POST /v1/drain HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"413"),
        (b"POST /v1/drain HTTP/1.1\r\nContent-Length: 3\r\n\r\n{{{", b"400"),
        (b"POST /v1/drain HTTP/1.1\r\nContent-Length: 9\r\n\r\n{", b""),
        (b"\x00\x01\x02\r\n\r\n", b"400"),
    ):
        with socket.create_connection((asked.agent.host, asked.agent.port), timeout=60) as connection:
            connection.sendall(raw)
            connection.shutdown(socket.SHUT_WR)
            assert status in connection.recv(4096)
    idle = [socket.create_connection((asked.agent.host, asked.agent.port)) for _ in range(20)]
    assert asked.ask("GET", "state")[0] == 200
    for each in idle:
        each.close()


def test_a_gate_waits_for_those_inside() -> None:
    gate = Gate()
    inside, leave = threading.Event(), threading.Event()

    def answer() -> None:
        with gate.request():
            inside.set()
            leave.wait()

    worker = threading.Thread(target=answer)
    worker.start()
    inside.wait()
    assert gate.close(0.01) == 1
    with pytest.raises(DrainingError), gate.request():
        pass
    leave.set()
    assert gate.close(60) == 0
    gate.open()
    with gate.request():
        assert gate.running == 1
    worker.join()
