"""The agent's answers, against other parsers of them, and its manners towards rude callers."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from fakes.nvml.mock import MockNvml, kmsg
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.health.agent import Agent, EventLog
from textnlp_fast.gpu.health.collector import Collector
from textnlp_fast.gpu.health.exposition import exposition
from textnlp_fast.gpu.health.facts import Event, Reading

Collect = Callable[..., Collector]
TOKEN = "0123456789abcdef-token"


@pytest.fixture
def agent(nvml: MockNvml, collect: Collect) -> Iterator[Agent]:
    collector = collect()
    collector.sample()
    with Agent(collector, port=0, request_timeout_s=1, most_connections=8) as agent:
        yield agent


def get(url: str, **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def scrape(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Samples as Prometheus' own client reads them."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(samples: dict[tuple[str, tuple[tuple[str, str], ...]], float], name: str, /, **labels: str) -> float:
    found = [
        value
        for (each, given), value in samples.items()
        if each == name and labels.items() <= dict(given).items()
    ]
    assert len(found) == 1, (name, labels, found)
    return found[0]


def test_metrics_under_both_names(nvml: MockNvml, agent: Agent, collect: Collect) -> None:
    nvml[2].temperature = 81
    nvml[2].ecc_corrected = 12345678901
    agent._collector.sample()
    status, text = get(f"{agent.url}/metrics")
    assert status == 200
    samples = scrape(text)
    uuid = nvml[2].uuid.decode()
    assert of(samples, "textnlp_fast_gpu_temperature_celsius", uuid=uuid, machine="here") == 81
    assert of(samples, "DCGM_FI_DEV_GPU_TEMP", UUID=uuid, gpu="2", device="nvidia2", Hostname="here") == 81
    assert of(samples, "textnlp_fast_gpu_ecc_corrected_total", uuid=uuid) == 12345678901
    assert of(samples, "DCGM_FI_DEV_FB_USED", UUID=uuid) == 1024
    assert of(samples, "DCGM_FI_DEV_XID_ERRORS", UUID=uuid) == 0
    assert of(samples, "textnlp_fast_gpu_driver_ready") == 1
    # Nothing is said of what the GPU does not tell.
    assert not [key for key in samples if key[0] == "textnlp_fast_gpu_retired_pages_pending"]


def test_xids_are_counted_and_the_last_is_dcgms(nvml: MockNvml, agent: Agent) -> None:
    for code in (31, 79, 79):
        nvml.xid(1, code)
    after, seen = 0, []
    while len(seen) < 3:
        document = json.loads(get(f"{agent.url}/events?after={after}&wait_s=20")[1])
        assert document["missed"] == 0
        seen += document["events"]
        after = document["next"]
    assert [(event["id"], event["kind"], event["code"]) for event in seen] == [
        (1, "xid", 31),
        (2, "xid", 79),
        (3, "xid", 79),
    ]
    assert seen[0]["gpu"] == nvml[1].uuid.decode()
    Event(**{name: value for name, value in seen[0].items() if name != "id"})
    samples = scrape(get(f"{agent.url}/metrics")[1])
    assert of(samples, "textnlp_fast_gpu_xids_total", uuid=nvml[1].uuid.decode(), xid="79") == 2
    assert of(samples, "DCGM_FI_DEV_XID_ERRORS", UUID=nvml[1].uuid.decode()) == 79
    assert of(samples, "textnlp_fast_gpu_events_total", kind="xid") == 3


def test_readings_come_back_as_they_are(nvml: MockNvml, agent: Agent) -> None:
    nvml[0].lost = 1
    expected = agent._collector.sample()
    document = json.loads(get(f"{agent.url}/readings")[1])
    assert [Reading(**fields) for fields in document["readings"]] == expected
    assert document["format"] == 1
    assert document["machine"] == "here"
    assert document["collector"]["driver_version"] == "580.65.06"


def test_a_hung_driver_is_told_of_and_does_not_hang_the_agent(nvml: MockNvml, collect: Collect) -> None:
    collector = collect(period_s=0.1, deadline_s=0.3)
    collector.sample()
    with Agent(collector, port=0) as agent:
        nvml.hang("nvmlDeviceGetCount")
        event = json.loads(get(f"{agent.url}/events?wait_s=20")[1])["events"][0]
        assert event["kind"] == "driver-hung"
        samples = scrape(get(f"{agent.url}/metrics")[1])
        assert of(samples, "textnlp_fast_gpu_driver_hung") == 1
        assert of(samples, "textnlp_fast_gpu_up", gpu="0") == 0
        assert not [key for key in samples if key[0] == "DCGM_FI_DEV_GPU_TEMP"]
        nvml.answer("nvmlDeviceGetCount")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 404),
        ("/metrics/", 404),
        ("/events?after=-1", 400),
        ("/events?after=1.5", 400),
        ("/events?wait_s=nan", 400),
        ("/events?wait_s=31", 400),
        ("/events?after=9999999999999999999999999", 400),
        ("/healthz", 200),
        ("/events?after=4611686018427387904", 200),
    ],
)
def test_paths_and_numbers(agent: Agent, path: str, status: int) -> None:
    assert get(agent.url + path)[0] == status


def test_tokens(collect: Collect) -> None:
    with Agent(collect(), port=0, token=TOKEN) as agent:
        assert get(f"{agent.url}/metrics")[0] == 401
        assert get(f"{agent.url}/metrics", Authorization=f"Bearer {TOKEN}x")[0] == 401
        assert get(f"{agent.url}/metrics", Authorization=f"Bearer {TOKEN}")[0] == 200
        # With a token, any name may be used.
        assert get(f"{agent.url}/metrics", Authorization=f"Bearer {TOKEN}", Host="gpu7.example")[0] == 200


def test_other_machines_need_a_token(collect: Collect) -> None:
    collector = collect()
    for host in ("0.0.0.0", "::"):
        with pytest.raises(InvalidInputError, match="no token"):
            Agent(collector, host=host, port=0)
    with pytest.raises(InvalidInputError, match="token"):
        Agent(collector, port=0, token="short")
    with pytest.raises(InvalidInputError, match="cannot listen"):
        Agent(collector, host="no.such.host.invalid", port=0, token=TOKEN)


def test_a_browser_is_not_led_here_by_another_name(agent: Agent) -> None:
    assert get(f"{agent.url}/readings", Host="attacker.example")[0] == 403
    assert get(f"{agent.url}/readings", Host=f"attacker.example:{agent.port}")[0] == 403
    for host in ("localhost", f"localhost:{agent.port}", "127.0.0.1", "[::1]:9401", "LOCALHOST"):
        assert get(f"{agent.url}/readings", Host=host)[0] == 200


def test_slow_and_silent_callers_keep_nobody_out(agent: Agent) -> None:
    """More of them than there are connections, then a good one, which gets its answer when their time is up."""
    rude = [socket.create_connection((agent.host, agent.port)) for _ in range(12)]
    for each in rude[:6]:
        each.sendall(b"GET /metrics HTT")
    end = time.monotonic() + 30
    status = 0
    while status != 200 and time.monotonic() < end:
        for each in rude[:3]:
            with pytest.MonkeyPatch.context():
                try:
                    each.sendall(b"P")
                except OSError:
                    break
        try:
            status = get(f"{agent.url}/healthz")[0]
        except OSError:
            status = 0
        time.sleep(0.1)
    for each in rude:
        each.close()
    assert status == 200


def test_waits_for_events_leave_room_for_scrapes(agent: Agent) -> None:
    waiting = [
        threading.Thread(target=get, args=(f"{agent.url}/events?after=0&wait_s=5",), daemon=True)
        for _ in range(6)
    ]
    for each in waiting:
        each.start()
    time.sleep(0.3)
    assert get(f"{agent.url}/healthz")[0] == 200
    for each in waiting:
        each.join(30)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"POST /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"nonsense\r\n\r\n", 400),
        (b"GET http://x/metrics HTTP/1.1\r\n\r\n", 400),
        (b"GET /metrics HTTP/2\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nHost : localhost\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET /" + b"a" * 20000, 431),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 403),
        (b"HEAD /healthz HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n", 200),
    ],
)
def test_requests_that_are_none(agent: Agent, sent: bytes, status: int) -> None:
    with socket.create_connection((agent.host, agent.port), timeout=30) as connection:
        connection.sendall(sent)
        answer = connection.recv(65536)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    if status == 200:
        assert answer.endswith(b"\r\n\r\n")


@given(st.binary(max_size=300))
def test_any_bytes_get_an_answer_or_an_end(data: bytes) -> None:
    from textnlp_fast.gpu.health.agent import _Refused, _request  # noqa: PLC0415

    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        try:
            method, target, _ = _request(ours, time.monotonic() + 5)
        except _Refused as refused:
            assert refused.status in (400, 408, 431)
        else:
            assert target.startswith("/")
            assert " " not in method


@given(
    st.text(max_size=30),
    st.text(max_size=30),
    st.one_of(st.none(), st.floats()),
    st.one_of(st.none(), st.integers(0, 1 << 64)),
)
def test_any_names_and_numbers_are_read_back(
    machine: str, name: str, number: float | None, count: int | None
) -> None:
    reading = Reading(
        machine=machine, gpu="GPU-1", index=0, at_s=1, name=name, power_w=number, ecc_corrected=count
    )
    text = exposition([reading], xids={("GPU-1", 79): 2}, driver_version=name)
    samples = scrape(text)
    if count is not None:
        assert of(
            samples, "textnlp_fast_gpu_ecc_corrected_total", machine=machine, name=name
        ) == pytest.approx(count, rel=1e-12)
    shown = [value for (each, _), value in samples.items() if each == "textnlp_fast_gpu_power_watts"]
    finite = number is not None and math.isfinite(number)
    assert shown == ([pytest.approx(number)] if finite else [])


@given(st.lists(st.integers(0, 60), max_size=20), st.integers(1, 10))
def test_readers_of_the_log_miss_nothing_but_what_they_are_told_of(sizes: list[int], most: int) -> None:
    log = EventLog(most)
    written = 0
    seen: list[int] = []
    missed = after = 0
    for size in sizes:
        for _ in range(size):
            written += 1
            log.add(Event(machine="m", kind="xid", at_s=0, code=written))
        document = log.after(after, 0)
        missed += document["missed"]
        after = document["next"]
        seen += [event["code"] for event in document["events"]]
    assert len(seen) + missed == written
    assert seen == sorted(set(seen))
    assert log.xids.total() <= written


def start(nvml: MockNvml, *arguments: str, log: Path | None = None) -> subprocess.Popen[str]:
    environment = {**os.environ, "TEXTNLP_FAST_NVML": str(nvml.library)}
    kernel = ["--no-kernel-log"] if log is None else ["--kernel-log", str(log)]
    return subprocess.Popen(
        [sys.executable, "-m", "textnlp_fast.cli", "gpu", "agent", "--port", "0", *kernel, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def test_the_command(nvml: MockNvml, tmp_path: Path) -> None:
    log = tmp_path / "kmsg"
    log.touch()
    token = tmp_path / "token"
    token.write_text(TOKEN + "\n")
    process = start(nvml, "--machine", "gpu7", "--period", "0.05", "--token-file", str(token), log=log)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[1].removesuffix("/metrics,")
        nvml[3].temperature = 91
        end = time.monotonic() + 30
        while time.monotonic() < end:
            document: dict[str, Any] = json.loads(get(f"{url}/readings", Authorization=f"Bearer {TOKEN}")[1])
            if document["readings"] and document["readings"][3]["temperature_c"] == 91:
                break
        assert document["readings"][3]["machine"] == "gpu7"
        assert document["readings"][3]["temperature_c"] == 91
        with log.open("ab") as file:
            file.write(kmsg(f"NVRM: Xid (PCI:{nvml.pci(5)}): 79, GPU has fallen off the bus."))
        events = json.loads(get(f"{url}/events?wait_s=20", Authorization=f"Bearer {TOKEN}")[1])["events"]
        assert [(event["code"], event["source"], event["gpu"]) for event in events] == [
            (79, "kmsg", nvml[5].uuid.decode())
        ]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert nvml.initialised == 0
    finally:
        process.kill()
        process.communicate()


def test_once(nvml: MockNvml) -> None:
    process = start(nvml, "--once")
    out, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    readings = [Reading(**fields) for fields in json.loads(out)]
    assert [reading.index for reading in readings] == list(range(8))
    assert asdict(readings[0])["temperature_c"] == 34


def test_without_a_driver(nvml: MockNvml, tmp_path: Path) -> None:
    nvml.fail("nvmlInit", 9)
    process = start(nvml, "--once")
    _, error = process.communicate(timeout=60)
    assert process.returncode == 11
    assert "not loaded" in error
    process = start(nvml, "--library", str(tmp_path / "none.so"))
    _, error = process.communicate(timeout=60)
    assert process.returncode == 11
    assert "TEXTNLP_FAST_NVML" in error


def test_a_port_that_is_taken_is_said_with_what_to_do(nvml: MockNvml) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "textnlp_fast.cli",
                "gpu",
                "agent",
                "--no-kernel-log",
                "--port",
                str(port),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "TEXTNLP_FAST_NVML": str(nvml.library)},
            check=False,
        )
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1, port {port}: Address already in use" in done.stderr
    assert "hint:" in done.stderr and "another port" in done.stderr and "output" not in done.stderr
