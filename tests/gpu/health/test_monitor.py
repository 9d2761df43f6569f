"""The monitor: the spec's example, sources that die and come back, restarts, sinks, many machines, one verdict."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from fakes.loopback_http import Said, loopback
from fakes.metadata import AwsMetadata
from fakes.nvml.mock import MockNvml
from servers.s3 import S3Server
from textnlp_fast.errors import AuthenticationError, CorruptDataError, InvalidInputError
from textnlp_fast.gpu import GPUHealthMonitorManager, fleet_health
from textnlp_fast.gpu.health.agent import Agent
from textnlp_fast.gpu.health.collector import Collector
from textnlp_fast.gpu.health.engine import Fact
from textnlp_fast.gpu.health.facts import Event, Finding, Reading, Severity
from textnlp_fast.gpu.health.fleet import Verdict, verdict_of
from textnlp_fast.gpu.health.sources.agent import AgentSource, event_of, reading_of
from textnlp_fast.gpu.health.sources.local import LocalSource

EXPORTED = (
    'DCGM_FI_DEV_GPU_TEMP{{gpu="0",UUID="GPU-a"}} 40\nDCGM_FI_DEV_XID_ERRORS{{gpu="0",UUID="GPU-a"}} {xid}\n'
)


class Scripted:
    """A source that tells what a test puts in, or fails."""

    reads_gpus = True
    timeout_s = 5.0

    def __init__(self, *machines: str, interval_s: float = 0.01) -> None:
        self.name = f"scripted {machines[0]}"
        self.machines: tuple[str, ...] = machines
        self.interval_s = interval_s
        self.facts: list[Fact] = []
        self.error: Exception | None = None
        self.reads = 0
        self.closed = False

    async def read(self) -> Sequence[Fact]:
        self.reads += 1
        if self.error is not None:
            raise self.error
        facts, self.facts = self.facts, []
        return facts

    async def close(self) -> None:
        self.closed = True


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it did not come to be")


def xid(code: int, machine: str = "m") -> Event:
    return Event(machine=machine, kind="xid", at_s=time.time(), gpu="GPU-a", code=code, source="nvml")


@pytest.fixture
def aws_environment_for(moto: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", moto.endpoint_url)
    return moto


# --- the specification's example ----------------------------------------------------------------------------


async def test_the_example_of_the_specification(aws_environment_for: S3Server) -> None:
    monitor_manager = GPUHealthMonitorManager()
    await monitor_manager.start_monitoring("aws", ["i-1234567890"])
    # There is no such instance, and that is what is found: at once, and with what to do.
    (finding,) = monitor_manager.findings()
    assert (finding.machine, finding.rule, finding.action.value) == (
        "i-1234567890",
        "status-check-missing",
        "replace",
    )
    (machine,) = monitor_manager.status().machines
    assert "no GPU of it is read" in machine.note and machine.sources[0].name == "ec2 us-east-1"
    await monitor_manager.stop_monitoring()
    assert not monitor_manager.status().running


async def test_instances_that_run_are_well_and_cloud_alone_is_said(aws_environment_for: S3Server) -> None:
    import boto3  # noqa: PLC0415

    client = boto3.client("ec2", region_name="us-east-1")
    image = client.describe_images()["Images"][0]["ImageId"]
    launched = client.run_instances(ImageId=image, MinCount=1, MaxCount=1, InstanceType="g4dn.xlarge")
    instance = launched["Instances"][0]["InstanceId"]
    health = await fleet_health(aws=[instance])
    assert health.good and "no GPU" in health.machines[0].note
    with loopback(lambda _: Said(200, EXPORTED.format(xid=0).encode())) as server:
        health = await fleet_health(aws=[instance], dcgm={instance: server.url})
        assert health.good and health.machines[0].note == "" and health.machines[0].gpus == 1
    client.stop_instances(InstanceIds=[instance])
    health = await fleet_health(aws=[instance])
    assert health.verdict is Verdict.BAD and health.findings[0].rule == "status-check-state"


async def test_metadata_of_the_machine_itself(aws_environment_for: S3Server) -> None:
    fake = AwsMetadata()
    fake.documents["spot/instance-action"] = {"action": "terminate", "time": "2026-11-29T08:22:00Z"}
    async with GPUHealthMonitorManager(sinks=[]) as monitor:
        await monitor.start_monitoring("aws", ["i-1234567890"], on_machine=True, metadata_url=fake.url)
        assert "spot-interruption" in {one.rule for one in monitor.findings()}
    fake.server.close()


async def test_refused_credentials_are_raised_and_nothing_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    body = (
        b"<Response><Errors><Error><Code>AuthFailure</Code><Message>no</Message></Error></Errors></Response>"
    )
    with loopback(lambda _: Said(401, body)) as server:
        monitor = GPUHealthMonitorManager()
        with pytest.raises(AuthenticationError):
            await monitor.start_monitoring("aws", ["i-1"], region="us-east-1", endpoint_url=server.url)
    assert monitor.status().machines == () and monitor.findings() == []


# --- sources ------------------------------------------------------------------------------------------------


async def test_a_source_that_dies_is_told_and_forgiven() -> None:
    source = Scripted("m")
    async with GPUHealthMonitorManager(sinks=[]) as monitor:
        await monitor.start_monitoring("test", ["m"], sources=[source])
        source.error = RuntimeError("its disk is full")
        await until(lambda: bool(monitor.findings()))
        (finding,) = monitor.findings()
        assert finding.rule == "agent-unreachable" and "its disk is full" in finding.evidence
        assert monitor.status().machines[0].sources[0].error == "its disk is full"
        source.error = None
        await until(lambda: not monitor.findings())
        source.facts = [xid(79)]
        await until(lambda: bool(monitor.findings()))
    assert source.closed


async def test_one_failed_read_is_no_finding() -> None:
    source = Scripted("m", interval_s=0.05)
    told: list[str] = []
    async with GPUHealthMonitorManager(sinks=[], failures_told=3) as monitor:
        monitor.on_finding(lambda finding: told.append(finding.rule))
        await monitor.start_monitoring("test", ["m"], sources=[source])
        reads = source.reads
        source.error = OSError("once")
        await until(lambda: source.reads == reads + 1)
        source.error = None
        await until(lambda: source.reads > reads + 3)
        assert monitor.findings() == [] and monitor.status().sinks["callback-1"].waiting == 0
    assert told == []


async def test_a_source_that_never_answered_is_told_at_once_and_the_fleet_is_bad() -> None:
    source = Scripted("m")
    source.error = ConnectionRefusedError("nobody listens")
    async with GPUHealthMonitorManager(sinks=[]) as monitor:
        await monitor.start_monitoring("test", ["m"], sources=[source])
        assert [one.rule for one in monitor.findings()] == ["agent-unreachable"]
        assert verdict_of(monitor).verdict is Verdict.BAD


async def test_a_source_that_hangs_does_not_hold_up_others() -> None:
    class Hanging(Scripted):
        async def read(self) -> Sequence[Fact]:
            self.reads += 1
            await asyncio.sleep(3600)
            return []

    hanging, well = Hanging("a"), Scripted("b")
    async with GPUHealthMonitorManager(sinks=[]) as monitor:
        await monitor.start_monitoring("test", ["a", "b"], sources=[hanging, well], first_round_s=0.2)
        well.facts = [xid(95, "b")]
        await until(lambda: {one.machine for one in monitor.findings()} >= {"b"})


@pytest.mark.parametrize(
    ("ids", "options", "said"),
    [
        ([], {}, "nothing to monitor"),
        ("i-1", {}, "nothing to monitor"),
        ([""], {}, "no id"),
        (["a\nb"], {}, "no id"),
        (["a"] * 5000, {}, "too many"),
        (["a"], {}, "nothing tells of 'a'"),
        (["a"], {"dcgm": {"b": "http://b"}}, "'b'"),
        (["a"], {"dcgm": {"a": "ftp://a"}}, "no URL"),
        (["a", "b"], {"on_machine": True, "dcgm": {"a": "http://a"}}, "one machine"),
        (["a"], {"on_machine": True}, "metadata"),
    ],
)
async def test_what_cannot_be_watched_is_refused(ids: Any, options: dict[str, Any], said: str) -> None:
    monitor = GPUHealthMonitorManager(sinks=[])
    with pytest.raises(InvalidInputError, match=said):
        await monitor.start_monitoring("elsewhere", ids, **options)
    assert not monitor.status().running


async def test_machines_are_watched_once_and_stopped_one_by_one() -> None:
    both, alone = Scripted("a", "b"), Scripted("c")
    async with GPUHealthMonitorManager(sinks=[]) as monitor:
        await monitor.start_monitoring("test", ["a", "b", "c"], sources=[both, alone])
        with pytest.raises(InvalidInputError, match="already"):
            await monitor.start_monitoring("test", ["c"], sources=[Scripted("c")])
        both.facts = [xid(79, "a"), xid(79, "b")]
        await until(lambda: len(monitor.findings()) == 2)
        await monitor.stop_monitoring(["a"])
        assert [one.machine for one in monitor.findings()] == ["b"]
        await monitor.stop_monitoring(["c"])
        assert alone.closed and not both.closed
        with pytest.raises(InvalidInputError, match="not monitored"):
            await monitor.stop_monitoring(["a"])


# --- sinks, callbacks, restarts -----------------------------------------------------------------------------


async def test_functions_are_told_of_findings_and_of_their_end() -> None:
    told: list[tuple[str, bool]] = []
    source = Scripted("m")
    async with GPUHealthMonitorManager(sinks=[]) as monitor:
        monitor.on_finding(lambda finding: told.append((finding.rule, finding.resolved)))

        async def failing(finding: Finding) -> None:
            raise RuntimeError("a bug in a callback")

        monitor.on_finding(failing)
        await monitor.start_monitoring("test", ["m"], sources=[source])
        source.facts = [xid(95)]
        await until(lambda: told == [("xid-95", False)])
        assert monitor.resolve("m", rule="xid-95") == 1
        await until(lambda: told == [("xid-95", False), ("xid-95", True)])
        await until(lambda: monitor.status().sinks["callback-2"].failures > 0)
        assert monitor.status().sinks["callback-1"].delivered == 2


async def test_a_restarted_monitor_goes_on_where_it_stood(tmp_path: Path) -> None:
    state = tmp_path / "state.json"

    class Away:
        name = "hook"
        timeout_s = 1.0
        repeats_s: float | None = None
        wants_open = False
        well = False
        got: list[str]

        def __init__(self) -> None:
            self.got = []

        async def deliver(self, finding: Finding) -> None:
            if not self.well:
                raise ConnectionError("away")
            self.got.append(finding.rule)

        async def close(self) -> None: ...

    with loopback(lambda _: Said(200, EXPORTED.format(xid=48).encode())) as server:
        first = GPUHealthMonitorManager(sinks=[Away()], state_file=state)
        await first.start_monitoring("url", ["m"], dcgm={"m": server.url})
        opened = first.findings()
        assert [one.rule for one in opened] == ["xid-48"]
        await first.stop_monitoring(drain_s=0.1)
        sink = Away()
        sink.well = True
        second = GPUHealthMonitorManager(sinks=[sink], state_file=state)
        assert second.findings() == opened
        await second.start_monitoring("url", ["m"], dcgm={"m": server.url})
        # The exporter still says 48, and it is not another.
        assert second.findings()[0].count == 1
        await until(lambda: sink.got == ["xid-48"])
        await second.stop_monitoring()


async def test_a_state_that_is_none_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    for text in ("{", "[]", '{"format": "other"}', '{"format": "textnlp-fast health 1", "engine": {}}'):
        state.write_text(text)
        with pytest.raises(CorruptDataError):
            GPUHealthMonitorManager(state_file=state)


def test_a_monitor_that_is_killed_leaves_a_state_that_can_be_read(tmp_path: Path) -> None:
    script = f"""
import asyncio, sys, time
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from textnlp_fast.gpu.health.facts import Event
from textnlp_fast.gpu import GPUHealthMonitorManager

class Busy:
    name, machines, interval_s, timeout_s, reads_gpus, n = "busy", ("m",), 0.0, 5.0, True, 0
    async def read(self):
        self.n += 1
        gpu = f"GPU-{{self.n % 50}}"
        return [Event(machine="m", kind="xid", at_s=time.time() + 20 * self.n, gpu=gpu, code=31, source="nvml")]
    async def close(self): ...

async def main():
    monitor = GPUHealthMonitorManager(sinks=[], state_file={str(tmp_path / "state.json")!r}, save_s=0.0)
    await monitor.start_monitoring("test", ["m"], sources=[Busy()])
    while True:
        await monitor._save()
        print("saved", flush=True)

asyncio.run(main())
"""
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        assert process.stdout is not None
        for _ in range(5):
            assert process.stdout.readline() == b"saved\n"
        process.kill()
        process.wait()
        process.stdout.close()
        monitor = GPUHealthMonitorManager(state_file=tmp_path / "state.json")
        assert monitor.findings()


# --- agents and this machine --------------------------------------------------------------------------------


async def test_a_real_agent_on_a_mocked_driver(nvml: MockNvml, collect: Callable[..., Collector]) -> None:
    collector = collect(period_s=0.1)
    collector.sample()
    token = "a-token-of-some-length"
    with Agent(collector, port=0, token=token) as agent:
        monitor = GPUHealthMonitorManager(sinks=[])
        with pytest.raises(AuthenticationError):
            await monitor.start_monitoring("url", ["node-1"], agents={"node-1": agent.url})
        headers = {"Authorization": f"Bearer {token}"}
        async with monitor:
            await monitor.start_monitoring("url", ["node-1"], agents={"node-1": agent.url}, headers=headers)
            assert monitor.status().machines[0].gpus == 8 and monitor.findings() == []
            nvml.xid(2, 79)
            await until(lambda: [one.rule for one in monitor.findings()] == ["xid-79"])
            assert monitor.findings()[0].machine == "node-1"
            assert verdict_of(monitor).verdict is Verdict.BAD


async def test_an_agent_that_is_started_again_is_read_on(
    nvml: MockNvml, collect: Callable[..., Collector]
) -> None:
    collector = collect(period_s=0.1)
    collector.sample()
    # An address of its own: on the usual one another process may take the port while nobody listens there.
    host = f"127.{os.getpid() >> 16 & 0x7F | 1}.{os.getpid() >> 8 & 0xFF}.{os.getpid() & 0x7F | 1}"
    agent = Agent(collector, host=host, port=0)
    source = AgentSource("m", agent.url, interval_s=0.1)
    found: list[Event] = []

    async def read_until(count: int) -> None:
        until = time.monotonic() + 60
        while len(found) < count and time.monotonic() < until:
            found.extend(one for one in await source.read() if isinstance(one, Event) and one.kind == "xid")

    nvml.xid(1, 31)
    await read_until(1)
    port = agent.port
    agent.close()
    with Agent(collector, host=host, port=port):
        nvml.xid(1, 95)
        await read_until(2)
    assert [one.code for one in found] == [31, 95]


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"gpu": 5, "index": 0, "at_s": 1.0},
        {"gpu": "a", "index": "0", "at_s": 1.0},
        {"gpu": "a", "index": 0, "at_s": 1.0, "lost": "no"},
        {"gpu": "a", "index": 0, "at_s": 1.0, "temperature_c": [1]},
        {"gpu": "a", "index": 0, "at_s": 1e300},
    ],
)
def test_strange_readings_of_an_agent_are_refused(document: dict[str, Any]) -> None:
    from textnlp_fast.errors import ProviderUnavailableError  # noqa: PLC0415

    with pytest.raises(ProviderUnavailableError):
        reading_of("m", document)


def test_an_agent_tells_of_its_gpus_and_of_nothing_else() -> None:
    assert event_of("m", {"kind": "agent-reachable", "at_s": 1.0}) is None
    event = event_of("m", {"kind": "xid", "at_s": 1.0, "code": 79, "machine": "other", "text": "x" * 9999})
    assert event is not None and event.machine == "m" and len(event.text) == 1000
    assert reading_of("m", {"gpu": "a", "index": 0, "at_s": 1, "news": 1}) == Reading(
        machine="m", gpu="a", index=0, at_s=1
    )


async def test_this_machine_by_its_own_driver(nvml: MockNvml, collect: Callable[..., Collector]) -> None:
    source = LocalSource("here", collector=collect(period_s=0.1), interval_s=0.2)
    async with GPUHealthMonitorManager(sinks=[]) as monitor:
        await monitor.start_monitoring("local", ["here"], sources=[source])
        assert monitor.status().machines[0].gpus == 8
        nvml[5].rows_failed = 1
        await until(lambda: [one.rule for one in monitor.findings()] == ["remap-failed"])


async def test_an_xid_is_a_finding_within_100_ms(nvml: MockNvml, collect: Callable[..., Collector]) -> None:
    """From the driver's report to the sink. A machine under load is slow now and then: the best of ten counts."""
    told: asyncio.Queue[tuple[Finding, float]] = asyncio.Queue()

    async def tell(finding: Finding) -> None:
        told.put_nowait((finding, time.time()))

    # Waits of 2 s, so that what only came with the next round would be far too late.
    source = LocalSource("here", collector=collect(period_s=2.0), interval_s=2.0)
    took_s: list[float] = []
    async with GPUHealthMonitorManager(sinks=[]) as monitor:
        monitor.on_finding(tell)
        await monitor.start_monitoring("local", ["here"], sources=[source])
        for number in range(10):
            await asyncio.sleep(0.05)  # the next wait has begun
            reported_s = time.time()
            nvml.xid(number % 8, 31 if number < 8 else 94)
            finding, at_s = await asyncio.wait_for(told.get(), 30)
            assert finding.rule in ("xid-31", "xid-94")
            # The collector's own stamp lies between the driver's report and what the sink was told.
            assert reported_s - 0.001 <= finding.first_at_s <= at_s + 0.001
            took_s.append(at_s - reported_s)
            if took_s[-1] < 0.1:
                break
    assert min(took_s) < 0.1, took_s


async def test_a_fleet_of_many_machines_is_one_verdict() -> None:
    sources = [Scripted(f"node-{n:03}") for n in range(300)]
    for source in sources:
        source.facts = [Reading(machine=source.machines[0], gpu="GPU-a", index=0, at_s=time.time())]
    sources[7].facts.append(xid(31, "node-007"))
    async with GPUHealthMonitorManager(sinks=[]) as monitor:
        await monitor.start_monitoring("test", [one.machines[0] for one in sources], sources=sources)
        health = verdict_of(monitor)
        assert (health.verdict, len(health.machines)) == (Verdict.DEGRADED, 300)
        assert health.machines[0].machine == "node-007"
        assert monitor.status().open[Severity.WARNING.value] == 1


async def test_a_machine_whose_agent_tells_of_no_gpu_is_not_good() -> None:
    source = Scripted("m")
    async with GPUHealthMonitorManager(sinks=[]) as monitor:
        await monitor.start_monitoring("test", ["m"], sources=[source])
        (machine,) = verdict_of(monitor).machines
        assert (machine.verdict, machine.action.value) == (Verdict.DEGRADED, "check")
        assert "told of none" in machine.note and machine.findings == ()
        source.facts = [Reading(machine="m", gpu="GPU-a", index=0, at_s=time.time())]
        await until(lambda: verdict_of(monitor).good)
        assert verdict_of(monitor).machines[0].note == ""


async def test_the_rules_of_the_settings_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = tmp_path / "rules.json"
    rules.write_text(json.dumps({"xids": {"31": {"severity": "critical", "action": "drain"}}}))
    monkeypatch.setenv("TEXTNLP_FAST_GPU_HEALTH_RULES", str(rules))
    source = Scripted("m")
    source.facts = [xid(31)]
    async with GPUHealthMonitorManager(sinks=[]) as monitor:
        await monitor.start_monitoring("test", ["m"], sources=[source])
        assert monitor.findings()[0].action.value == "drain"


@pytest.mark.parametrize(
    "options",
    [
        {"agents": {"a": 5}},
        {"agents": 5},
        {"agents": [["http://a"]]},
        {"agents": {7: "http://a"}},
        {"dcgm": [None]},
        {"dcgm": "http://a"},
        {"aws": 5},
        {"aws": "i-1"},
        {"local": 5},
        {"agents": ["http://127.0.0.1:9"], "look_s": float("nan")},
        {"agents": ["http://127.0.0.1:9"], "timeout_s": "3"},
        {"agents": ["http://127.0.0.1:9"], "rules": 5},
    ],
)
async def test_what_is_no_fleet_is_an_error_with_a_name(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        await fleet_health(**options)


async def test_a_url_that_is_none_is_refused_by_the_monitor_too() -> None:
    async with GPUHealthMonitorManager(sinks=[]) as monitor:
        for url in (5, None, b"http://a"):
            with pytest.raises(InvalidInputError, match="is no URL"):
                await monitor.start_monitoring("url", ["a"], agents={"a": url})  # type: ignore[dict-item]
