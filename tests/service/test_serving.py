"""The service as a process: started by the command line, asked over sockets, ended by signals."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from textnlp_fast.cli.program import run
from textnlp_fast.gpu.scaling.autoscaler.book import Book
from textnlp_fast.gpu.scaling.autoscaler.records import State
from textnlp_fast.objectstore import open_store
from textnlp_fast.storage import Registry, Repository

API = "/api/v1"
NAME = "org/tiny"


@pytest.fixture
def serve(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """A call that ends by itself: its exit code, and what it said on stdout and stderr."""

    def call(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            run(["serve", *words])
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, said.out, said.err

    return call


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_well_when_it_is_told_to(filled: Path, start: Any, number: int) -> None:
    service = start("--repo", str(filled))
    assert service.address.startswith("http://127.0.0.1:")
    with httpx.Client(base_url=service.address, timeout=60) as client:
        assert client.get(f"{API}/models").status_code == 200  # a connection that stays open
        assert service.end(number) == 0
    log = service.log.read_text()
    assert "Traceback" not in log and "everybody on this machine is operator" in log


def test_what_is_being_answered_is_answered_before_it_ends(
    own: Repository, start: Any, tmp_path: Path
) -> None:
    service = start("--repo", str(tmp_path / "repository"))
    url = f"{service.address}{API}/models/{NAME}"

    def change(number: int) -> int:
        try:
            answer = httpx.put(f"{url}/aliases/a{number}", json={"version": "1.0.0"}, timeout=120)
        except httpx.TransportError:
            return 0  # it came after the end
        return answer.status_code

    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(change, number) for number in range(24)]
        while not any(each.done() for each in waiting):
            time.sleep(0.005)
        assert service.end() == 0
        codes = [each.result() for each in waiting]
    assert 200 in codes and set(codes) <= {200, 0}
    there = set(Registry(own, actor="x").references(NAME).aliases) - {"champion"}
    # What was answered was made; what was cut off may have been, too, but nothing is half made.
    assert {f"a{number}" for number, code in enumerate(codes) if code == 200} <= there


def test_killed_at_any_moment_the_next_one_finds_what_was_answered(
    own: Repository, start: Any, tmp_path: Path
) -> None:
    made: set[str] = set()
    for round_ in range(2):
        service = start("--repo", str(tmp_path / "repository"))
        url = f"{service.address}{API}/models/{NAME}"

        def change(number: int, url: str = url, round_: int = round_) -> None:
            alias = f"a{round_}-{number}"
            try:
                if httpx.put(f"{url}/aliases/{alias}", json={"version": "1.0.0"}, timeout=60).is_success:
                    made.add(alias)
            except httpx.TransportError:
                pass

        with ThreadPoolExecutor(4) as pool:
            for number in range(16):
                pool.submit(change, number)
            while not made:
                time.sleep(0.005)
            service.process.kill()
        service.process.wait(60)
    assert made and made <= set(Registry(own, actor="x").references(NAME).aliases)
    service = start("--repo", str(tmp_path / "repository"))
    rows = httpx.get(f"{service.address}{API}/models", timeout=60).json()["items"]
    assert made <= set(next(row for row in rows if row["name"] == NAME)["aliases"])


HANGING = """
import sys, time
from pathlib import Path
from textnlp_fast.objectstore.local import LocalBackend

whole = LocalBackend.list
def hanging(self, prefix):
    while Path(sys.argv[1]).exists():
        time.sleep(0.05)
    return whole(self, prefix)
LocalBackend.list = hanging
from textnlp_fast.cli import main
main(["serve", "--port", "0", "--repo", sys.argv[2]])
"""


def test_a_store_that_hangs_does_not_keep_it(filled: Path, tmp_path: Path) -> None:
    (tmp_path / "hang").touch()
    script = tmp_path / "hanging.py"
    script.write_text(HANGING)
    words = [sys.executable, str(script), str(tmp_path / "hang"), str(filled)]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    ) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().decode().rsplit(" ", 1)[1].strip()
            assert httpx.get(f"{address}/healthz", timeout=60).status_code == 200  # answers all the same
            process.send_signal(signal.SIGTERM)
            assert process.wait(120) == 0
        finally:
            process.kill()


def test_a_token_is_shown_once_and_lets_in(filled: Path, start: Any, tmp_path: Path, serve: Any) -> None:
    file = tmp_path / "tokens.yaml"
    code, out, err = serve("--new-token", "alice", "--role", "reader", "--tokens", str(file))
    assert code == 0
    token = out.strip()
    assert re.fullmatch(r"tnf_[A-Za-z0-9_-]{43}", token) and token not in file.read_text() + err
    service = start("--repo", str(filled), "--tokens", str(file), "--host", "0.0.0.0")
    port = service.address.rsplit(":", 1)[1]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        assert client.get(f"{API}/me").status_code == 401
        client.headers["Authorization"] = f"Bearer {token}"
        assert client.get(f"{API}/me").json()["subject"] == "alice"
        assert client.post(f"{API}/audit/verify").status_code == 403
    assert "everybody" not in service.log.read_text()
    assert "tokens now" not in err
    code, again, err = serve("--new-token", "alice", "--role", "reader", "--tokens", str(file))
    assert code == 0 and again != out
    assert "alice has 2 tokens now" in err and str(file) in err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--host", "0.0.0.0"), 2, "nobody was named"),
        (("--tokens", "nothing.yaml"), 2, "cannot read tokens"),
        (("--tls-cert", __file__), 2, "needs its key"),
        (("--tls-cert", __file__, "--tls-key", __file__), 2, "certificate"),
        (("--oidc-issuer", "https://idp.example"), 2, "audience"),
        (("--oidc-issuer", "http://idp.example", "--oidc-audience", "a"), 2, "https"),
        (("--oidc-issuer", "https://[idp", "--oidc-audience", "a"), 2, "is no URL"),
        (("--oidc-issuer", "https://idp:port", "--oidc-audience", "a"), 2, "is no URL"),
        (("--oidc-issuer", "https://i.example", "--oidc-audience", "a", "--oidc-role", "x"), 2, "VALUE=ROLE"),
        (("--oidc-issuer", "https://i.example", "--oidc-audience", "a", "--oidc-role", "x=root"), 2, "root"),
        (("--role", "reader"), 2, "new token"),
        (("--new-token", "a"), 2, "--role"),
        (("--new-token", "a", "--role", "reader"), 2, "--tokens"),
        (("--new-token", "a", "--role", "reader", "--tokens", "/nowhere/x"), 2, "cannot write"),
        (("--allow-path", "/nowhere/at/all"), 2, "is no folder"),
        (("--health-agent", "node-1=not-an-address"), 2, "is no URL"),
        (("--repo", "memory://x"), 2, "gone when"),
        (("--repo", "/nowhere/at/all"), 3, "no repository"),
        (("--port", "65536"), 2, "65536"),
    ],
)
def test_what_cannot_be_served_is_said_with_the_codes_of_all_commands(
    filled: Path, serve: Any, words: tuple[str, ...], code: int, said: str
) -> None:
    found, out, err = serve(*(() if "--repo" in words else ("--repo", str(filled))), *words)
    assert (found, out) == (code, ""), err
    assert said in err and "Traceback" not in err


def test_a_port_that_is_taken_is_said(filled: Path, serve: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, _, err = serve("--repo", str(filled), "--port", str(taken.getsockname()[1]))
    assert code == 2 and "cannot listen" in err


def test_settings_say_it_as_well_as_options(filled: Path, start: Any, tmp_path: Path, tokens: Any) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(
        f"repo: {filled}\nservice_tokens: {tokens['file']}\nservice_allowed_hosts: [models.example.org]\n"
        f"service_allowed_paths: [{tmp_path}]\nservice_health_agents: {{node-1: 'http://127.0.0.1:9401'}}\n"
    )
    service = start(TEXTNLP_FAST_CONFIG=str(file))
    who = {"Authorization": f"Bearer {tokens['reader']}", "Host": "models.example.org"}
    assert httpx.get(f"{service.address}{API}/me", headers=who, timeout=60).json()["subject"] == "reader-1"
    assert httpx.get(f"{service.address}{API}/me", timeout=60).status_code == 401


def test_autoscalers_books_may_lie_elsewhere_than_the_journal(
    filled: Path, start: Any, tmp_path: Path
) -> None:
    journal, books = tmp_path / "journal", tmp_path / "books"
    Book(open_store(books), "llm").write(State(token=1, number=1, target=2))
    words = ("--fleet-state", str(journal), "--autoscaler-store", str(books))
    address = start("--repo", str(filled), *words).address
    end_s = time.monotonic() + 60
    found = None
    while found != ["llm"] and time.monotonic() < end_s:
        found = [one["name"] for one in httpx.get(f"{address}{API}/autoscaler", timeout=60).json()["items"]]
    assert found == ["llm"]


def test_with_a_certificate_it_speaks_tls(filled: Path, start: Any, tmp_path: Path, authority: Any) -> None:
    pem = str(authority.server)  # certificate and key in one file
    service = start("--repo", str(filled), "--tls-cert", pem, "--tls-key", pem)
    assert service.address.startswith("https://")
    believed = ssl.create_default_context(cafile=str(authority.path))
    address = service.address.replace("127.0.0.1", "localhost")
    with httpx.Client(base_url=address, verify=believed, timeout=60) as client:
        assert client.get("/readyz").json()["ready"] is True
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{service.address}/healthz", timeout=60)


def test_hostile_bytes_on_the_socket_end_their_own_connection_alone(filled: Path, start: Any) -> None:
    service = start("--repo", str(filled))
    host, port = service.address.removeprefix("http://").split(":")
    for sent in (
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + b"X: " + b"a" * 200_000 + b"\r\n\r\n",
        b"POST /api/v1/audit/verify HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999999\r\n\r\n",
        b"POST /api/v1/audit/verify HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\nzzzz",
        b"GET /api/v1/models/" + b"%2e%2e%2f" * 2000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /../../../etc/passwd HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
    ):
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            try:
                while more := connection.recv(65536):
                    answer += more
            except ConnectionResetError:
                pass
        status = answer[9:12]
        assert not answer or status[:1] == b"4", (sent[:60], answer[:200])
        assert b"root:" not in answer
    assert httpx.get(f"{service.address}/healthz", timeout=60).status_code == 200
    assert "Traceback" not in service.log.read_text()


def test_metrics_count_what_was_asked(filled: Path, start: Any) -> None:
    service = start("--repo", str(filled))
    with httpx.Client(base_url=service.address, timeout=60) as client:
        for _ in range(3):
            client.get(f"{API}/models/{NAME}/versions")
        client.get(f"{API}/models/nobody-{'x' * 50}/versions")
        client.get("/made/up/path")
        text = client.get("/metrics").text
    from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415

    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    route = "/api/v1/models/{name}/versions"
    count = "textnlp_fast_http_requests_total"
    assert samples[count, (("method", "GET"), ("route", route), ("status", "200"))] == 3
    assert samples[count, (("method", "GET"), ("route", route), ("status", "404"))] == 1
    assert samples["textnlp_fast_http_request_seconds_count", (("route", route),)] == 4
    assert samples["textnlp_fast_service_models", ()] == 2
    assert "made/up" not in text and "nobody" not in text  # callers make no series
    assert samples["process_resident_memory_bytes", ()] > 1 << 20
