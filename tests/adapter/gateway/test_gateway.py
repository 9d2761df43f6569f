"""HAProxy in front of engines that are processes: what clients see of drains, kills, keys and limits."""

from __future__ import annotations

import concurrent.futures
import hashlib
import http.client
import http.server
import json
import socket
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from textnlp_fast.adapter.rollout.traffic import Traffic
from textnlp_fast.errors import InvalidInputError, ProviderUnavailableError

WAIT_S = 60


def eventually(true: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)


def ask(running: Any, tokens: int = 1, headers: dict[str, str] | None = None, **more: Any) -> Any:
    """Status and document of one request."""
    host, port = running.plan.listen.host, running.plan.listen.port
    connection = http.client.HTTPConnection(host, port, timeout=WAIT_S)
    body = json.dumps({"model": "m", "messages": [], "max_tokens": tokens} | more)
    connection.request(
        "POST", "/v1/chat/completions", body, {"Content-Type": "application/json"} | (headers or {})
    )
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, json.loads(data) if data.startswith(b"{") else data


class Stream:
    """One streamed request, read event by event."""

    def __init__(self, running: Any, tokens: int) -> None:
        self.connection = http.client.HTTPConnection(
            running.plan.listen.host, running.plan.listen.port, timeout=WAIT_S
        )
        body = json.dumps({"model": "m", "messages": [], "max_tokens": tokens, "stream": True})
        self.connection.request("POST", "/v1/chat/completions", body)
        self.answer = self.connection.getresponse()
        assert self.answer.status == 200
        self.replica = self.answer.headers["x-replica"]

    def event(self) -> dict[str, Any] | None:
        """The next event; None at the end."""
        line = self.answer.readline()
        assert line.startswith(b"data: "), line
        assert self.answer.readline() == b"\n"
        text = line[6:].strip()
        return None if text == b"[DONE]" else json.loads(text)

    def rest(self) -> int:
        count = 0
        while self.event() is not None:
            count += 1
        self.connection.close()
        return count


def up(running: Any, count: int) -> None:
    eventually(lambda: sum(one.is_up for one in running.gateway.slots()) == count)


def test_chunks_arrive_when_they_are_sent(engine: Any, gateway: Any) -> None:
    running = gateway(engine("a", token_s=0.3))
    stream = Stream(running, 4)
    seen = []
    while (event := stream.event()) is not None:
        seen.append(time.time() - event["sent_at"])
    assert len(seen) == 4
    # Buffered until the end, the first would be 1.2 s late; a busy machine is late once, not each time.
    assert min(seen[:-1]) < 0.25


def test_a_drained_replica_finishes_its_streams_and_gets_no_more(engine: Any, gateway: Any) -> None:
    engines = {one.name: one for one in (engine("a", token_s=0.1), engine("b", token_s=0.1))}
    running = gateway(*engines.values())
    assert isinstance(running.gateway, Traffic)
    stream = Stream(running, 30)
    assert stream.event() is not None
    drained, other = engines[stream.replica], next(o for n, o in engines.items() if n != stream.replica)
    running.gateway.drain(drained.address, 0)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        told = Counter(one[1]["replica"] for one in pool.map(lambda _: ask(running), range(12)))
    assert told == {other.name: 12}
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waits = pool.submit(running.gateway.drain, drained.address, WAIT_S)
        assert not waits.done()
        assert stream.rest() == 29
        waits.result(WAIT_S)
    running.gateway.resume(drained.address)
    eventually(lambda: ask(running)[1]["replica"] == drained.name)


def test_a_killed_replica_costs_no_request_that_it_had_not_begun(engine: Any, gateway: Any) -> None:
    first, second, third = (engine(name, token_s=0.01) for name in "abc")
    running = gateway(first, second, third)
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        before = list(pool.map(lambda _: ask(running, 2), range(12)))
        first.kill()
        after = list(pool.map(lambda _: ask(running, 2), range(40)))
    assert [status for status, _ in before + after] == [200] * 52
    assert {document["replica"] for _, document in after} == {"b", "c"}


def test_a_503_is_tried_elsewhere(engine: Any, gateway: Any) -> None:
    refusing, serving = engine("a"), engine("b")
    refusing.set(refuse=503)
    running = gateway(refusing, serving)
    assert {ask(running)[1].get("replica") for _ in range(8)} == {"b"}
    assert serving.served() == 8


@pytest.mark.parametrize(("what", "seen"), [({"refuse": 500}, 500), ({"drop": True}, 502)])
def test_what_may_have_been_executed_is_not_sent_again(
    engine: Any, gateway: Any, what: dict[str, Any], seen: int
) -> None:
    failing, serving = engine("a"), engine("b")
    failing.set(**what)
    running = gateway(failing, serving, balance="round_robin")
    told = Counter(ask(running)[0] for _ in range(10))
    assert told == {200: 5, seen: 5}
    assert serving.served() == 5


def test_replicas_come_and_go_without_a_restart(engine: Any, gateway: Any) -> None:
    first, second = engine("a"), engine("b")
    running = gateway(first, slots=2)
    running.gateway.add(second.address)
    running.gateway.add(second.address)
    up(running, 2)
    eventually(lambda: ask(running)[1]["replica"] == "b")
    with pytest.raises(InvalidInputError, match="slots"):
        running.gateway.add("127.0.0.1:9")
    running.gateway.remove(first.address, deadline_s=5)
    running.gateway.remove(first.address, deadline_s=5)
    assert {ask(running)[1]["replica"] for _ in range(6)} == {"b"}
    third = engine("c")
    running.gateway.add(third.address)
    up(running, 2)
    eventually(lambda: ask(running)[1]["replica"] == "c")
    with pytest.raises(InvalidInputError, match="knows no replica"):
        running.gateway.drain(first.address, 0)


def test_nobody_is_sent_to_a_replica_that_is_added_before_it_is_there(engine: Any, gateway: Any) -> None:
    running = gateway(engine("a"), slots=2)
    running.gateway.add("127.0.0.1:9")
    assert [ask(running)[0] for _ in range(10)] == [200] * 10


def test_weights_follow_queues_and_shares(engine: Any, gateway: Any) -> None:
    busy, idle = engine("a"), engine("b")
    busy.set(running=4, waiting=40, kv=0.99)
    idle.set(running=1, waiting=0, kv=0.2)
    running = gateway(busy, idle)

    def weights() -> dict[str, int]:
        return {str(one.address): one.weight for one in running.gateway.slots() if one.address}

    eventually(lambda: weights()[busy.address] <= 10 and weights()[idle.address] == 100)
    running.gateway.set_weight(idle.address, 25)
    eventually(lambda: weights()[idle.address] == 25)
    busy.set(running=1, waiting=0, kv=0.2)
    eventually(lambda: weights()[busy.address] > 40)
    # The share is HAProxy's to keep: the agent has told it many times since.
    assert weights()[idle.address] <= 25
    running.gateway.set_weight(idle.address, 100)
    eventually(lambda: weights()[idle.address] == 100)


def test_a_gateway_without_an_agent_has_shares_all_the_same(engine: Any, gateway: Any) -> None:
    first, second = engine("a"), engine("b")
    running = gateway(first, agent=False, slots=2)
    running.gateway.set_weight(first.address, 40)
    running.gateway.add(second.address)
    up(running, 2)
    assert [one.weight for one in running.gateway.slots()] == [40, 100]


def test_shares_of_a_canary(engine: Any, gateway: Any) -> None:
    canary, rest = engine("a", token_s=0.001), engine("b", token_s=0.001)
    running = gateway(canary, rest, balance="round_robin")
    running.gateway.set_weight(canary.address, 25)
    running.gateway.set_weight(rest.address, 75)
    eventually(lambda: {one.weight for one in running.gateway.slots() if one.address} == {25, 75})
    # Again if it is off: on a busy machine a replica may miss its checks and be out for a while.
    eventually(lambda: 15 <= Counter(ask(running)[1]["replica"] for _ in range(80))["a"] <= 25)


def test_who_may_ask_how_much_and_how_often(engine: Any, gateway: Any) -> None:
    digests = tuple(hashlib.sha256(key).hexdigest().upper() for key in (b"one", b"two"))
    running = gateway(engine("a"), keys=digests, requests_per_minute=5, request_limit_bytes=2000)
    one, two, other = ({"Authorization": f"Bearer {key}"} for key in ("one", "two", "three"))
    assert ask(running)[0] == ask(running, headers=other)[0] == 401
    assert ask(running, headers={"Authorization": "Basic b25lOm9uZQ=="})[0] == 401
    assert ask(running, headers=one)[0] == 200
    status, document = ask(running, headers=one, padding="x" * 3000)
    assert status == 413
    assert document["error"]["code"] == "invalid_request_error"
    assert [ask(running, headers=one)[0] for _ in range(6)] == [200] * 3 + [429] * 3
    assert ask(running, headers=two)[0] == 200  # another's limit
    assert ask(running, headers=two | {"Transfer-Encoding": "chunked"})[0] in (400, 411)


def test_only_the_api_is_outside(engine: Any, gateway: Any) -> None:
    running = gateway(engine("a"))
    for path, status in (("/metrics", 404), ("/set", 404), ("/health", 200), ("/v1/models", 200)):
        connection = http.client.HTTPConnection(
            running.plan.listen.host, running.plan.listen.port, timeout=WAIT_S
        )
        connection.request("GET", path)
        assert connection.getresponse().status == status, path
        connection.close()
    text = urllib.request.urlopen(f"http://{running.plan.metrics}/metrics", timeout=WAIT_S).read().decode()
    assert 'haproxy_server_current_sessions{proxy="engines",server="slot1"}' in text


class Trusting:
    """An engine that does whatever it is asked for, and remembers the paths."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        paths = self.paths

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path != "/health":
                    paths.append(f"{self.command} {self.path}")
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_POST = do_DELETE = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def test_no_path_leads_to_what_is_not_of_the_api(gateway: Any) -> None:
    engine = Trusting()
    running = gateway(engine)
    up(running, 1)

    def status(method: str, path: str) -> int:
        with socket.create_connection(
            (running.plan.listen.host, running.plan.listen.port), timeout=WAIT_S
        ) as client:
            client.sendall(
                f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
            )
            with client.makefile("rb") as answer:
                return int(answer.readline().split()[1])

    refused = [
        "/v1/../metrics",
        "/v1/..",
        "/v1/%2e%2e/metrics",
        "/v1/%2E%2e/metrics",
        "/v1/.%2e/metrics",
        "/v1/..%2fmetrics",
        "/v1/%252e%252e/metrics",
        "/v1/./../metrics",
        "/v1/./load_lora_adapter",
        "/v1/.",
        "/v1//load_lora_adapter",
        "//v1/models",
        "/v1/%2f/metrics",
        "/v1/\\..\\metrics",
        "/v1/%5cmetrics",
        "/v1/a;/../../metrics",
        "/v1/..%zz/metrics",
        "/v1/%zz",
        "/v1/%00",
        "/v1/models%0d%0aX:%20y",
        "/v1/load_lora_adapter",
        "/v1/load_lora_adapter/",
        "/v1/unload_lora_adapter",
        "/v1/load%5flora_adapter",
        "/v1/%6Coad_lora_adapter?x=1",
        "/%76%31/unload_lora_adapter",
        "/v1/Load_LoRA_adapter",
        "/v1/internal/model/load",
        "/v1/model/unload",
        "/v1/models/unload",
        "http://x/metrics",
        "http://x/v1/../metrics",
        "/metrics",
        "/v1",
    ]
    assert [path for path in refused if status("POST", path) not in (400, 404, 405)] == []
    assert engine.paths == []
    taken = [
        ("GET", "/v1/models"),
        ("GET", "/v1/models/org%2Fmodel-1.5"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/responses/resp_1/cancel"),
        ("POST", "/v1/completions?note=..%2f//%25"),
        ("DELETE", "/v1/responses/resp_1"),
    ]
    assert [status(*one) for one in taken] == [200] * len(taken)
    assert engine.paths == [" ".join(one) for one in taken]
    engine.server.shutdown()


def test_affinity(engine: Any, gateway: Any) -> None:
    running = gateway(
        *(engine(name, token_s=0.001) for name in "abc"), balance="affinity", affinity_load_percent=1000
    )
    up(running, 3)
    places = {
        user: {ask(running, headers={"x-session-id": user})[1]["replica"] for _ in range(5)}
        for user in (f"user-{number}" for number in range(12))
    }
    assert all(len(each) == 1 for each in places.values())
    assert len(set().union(*places.values())) > 1


def test_a_gateway_without_haproxy(tmp_path: Any) -> None:
    from textnlp_fast.adapter.gateway import Gateway  # noqa: PLC0415

    with pytest.raises(ProviderUnavailableError, match="does not answer"):
        Gateway(tmp_path / "nowhere").slots()
