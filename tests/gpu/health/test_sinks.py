"""Sinks: at least once, within bounds, signed, resolved; and what Alertmanager and Kubernetes are told."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes.loopback_http import Asked, LoopbackServer, Said, loopback
from free_ports import free_port
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.health.facts import Action, Finding, Severity
from textnlp_fast.gpu.health.http import request
from textnlp_fast.gpu.health.sinks import Outbox, Refused
from textnlp_fast.gpu.health.sinks.alertmanager import AlertmanagerSink
from textnlp_fast.gpu.health.sinks.kubernetes import CONDITION, TAINT, KubernetesSink
from textnlp_fast.gpu.health.sinks.plain import CallbackSink, LogSink
from textnlp_fast.gpu.health.sinks.webhook import WebhookSink
from textnlp_fast.signed_messages import verify_signature


def finding(rule: str = "xid-79", **changes: Any) -> Finding:
    return Finding(
        **{
            "machine": "node-1",
            "gpu": "GPU-1",
            "rule": rule,
            "severity": Severity.CRITICAL,
            "action": Action.REBOOT,
            "summary": "XID 79, GPU has fallen off the bus: reboot the machine.",
            "evidence": "XID 79 (nvml)",
            "provenance": "NVIDIA",
            "first_at_s": 1_800_000_000.0,
            "last_at_s": 1_800_000_005.0,
            **changes,
        }
    )


class Memory:
    """A sink that remembers, and fails when it is told to."""

    name = "memory"
    timeout_s = 5.0
    repeats_s: float | None = None
    wants_open = False

    def __init__(self) -> None:
        self.got: list[Finding] = []
        self.failures = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def deliver(self, finding: Finding) -> None:
        await self.gate.wait()
        if self.failures:
            self.failures -= 1
            raise ConnectionError("away")
        self.got.append(finding)

    async def close(self) -> None: ...


async def running(outbox: Outbox) -> asyncio.Task[None]:
    return asyncio.create_task(outbox.run())


async def test_what_fails_is_delivered_later_and_in_its_newest_form() -> None:
    sink = Memory()
    sink.failures = 3
    outbox = Outbox(sink, first_pause_s=0.001)
    task = await running(outbox)
    outbox.put([finding(), finding("remap-failed")])
    await asyncio.sleep(0)
    outbox.put([finding(resolved=True)])
    assert await outbox.drained(20)
    assert [(one.rule, one.resolved) for one in sink.got] == [("xid-79", True), ("remap-failed", False)]
    assert outbox.status().delivered == 2 and outbox.status().failures == 0
    task.cancel()


async def test_news_that_come_while_one_is_delivered_are_delivered_too() -> None:
    sink = Memory()
    sink.gate.clear()
    outbox = Outbox(sink)
    task = await running(outbox)
    outbox.put([finding()])
    await asyncio.sleep(0.01)  # it is on its way
    outbox.put([finding(resolved=True)])
    sink.gate.set()
    assert await outbox.drained(20)
    assert [one.resolved for one in sink.got] == [False, True]
    task.cancel()


async def test_too_much_is_dropped_the_mildest_first_and_counted() -> None:
    outbox = Outbox(Memory(), most=10)
    mild = [finding(f"xid-{n}", severity=Severity.INFO) for n in range(8)]
    hard = [finding(f"xid-{n}") for n in range(100, 109)]
    outbox.put([*mild, *hard])
    status = outbox.status()
    assert (status.waiting, status.dropped) == (10, 7)
    assert sum(one["severity"] == "critical" for one in outbox.document()) == 9


async def test_what_waits_survives_a_restart() -> None:
    outbox = Outbox(Memory())
    outbox.put([finding(), finding("remap-failed", gpu=None)])
    document = json.loads(json.dumps(outbox.document()))
    sink = Memory()
    other = Outbox(sink)
    other.restore(document)
    task = await running(other)
    assert await other.drained(20)
    assert sink.got == [finding(), finding("remap-failed", gpu=None)]
    task.cancel()


async def test_a_sink_that_hangs_is_given_up_and_tried_again() -> None:
    sink = Memory()
    sink.timeout_s = 0.05
    sink.gate.clear()
    outbox = Outbox(sink, first_pause_s=0.001)
    task = await running(outbox)
    outbox.put([finding()])
    assert not await outbox.drained(0.3)
    assert outbox.status().failures >= 1
    sink.gate.set()
    assert await outbox.drained(20)
    task.cancel()


async def test_a_refused_finding_is_not_tried_again() -> None:
    class Refusing(Memory):
        async def deliver(self, finding: Finding) -> None:
            raise Refused("no such thing")

    outbox = Outbox(Refusing())
    task = await running(outbox)
    outbox.put([finding()])
    assert await outbox.drained(20)
    assert (outbox.status().refused, outbox.status().delivered) == (1, 0)
    task.cancel()


async def test_functions_of_both_kinds_are_called(caplog: pytest.LogCaptureFixture) -> None:
    got: list[tuple[str, int]] = []

    def plain(finding: Finding) -> None:
        got.append((finding.rule, threading.get_ident()))

    async def coroutine(finding: Finding) -> None:
        got.append((finding.rule, threading.get_ident()))

    await CallbackSink(plain).deliver(finding("a"))
    await CallbackSink(coroutine).deliver(finding("b"))
    assert [rule for rule, _ in got] == ["a", "b"]
    # A function that waits would keep the monitor waiting.
    assert got[0][1] != threading.get_ident() == got[1][1]
    with caplog.at_level(logging.INFO, logger="textnlp_fast.gpu.health"):
        await LogSink().deliver(finding())
        await LogSink().deliver(finding(resolved=True))
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]


# --- webhook ------------------------------------------------------------------------------------------------


async def test_messages_are_signed_as_the_registrys_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_KEY", "k" * 32)
    with loopback(lambda _: Said(204)) as server:
        sink = WebhookSink(f"{server.url}/hook?a=1", secret_env="HOOK_KEY")
        await sink.deliver(finding())
        await sink.deliver(finding())
        await sink.deliver(finding(resolved=True))
    first, again, last = server.asked
    for asked in server.asked:
        verify_signature(asked.body, asked.headers["textnlp-fast-signature"], "k" * 32)
    document = json.loads(first.body)
    assert document["finding"]["rule"] == "xid-79" and document["action"] == "finding.open"
    assert document["id"] == first.headers["textnlp-fast-delivery"] == again.headers["textnlp-fast-delivery"]
    assert last.headers["textnlp-fast-event"] == "finding.resolved"
    assert last.headers["textnlp-fast-delivery"] != document["id"]


@pytest.mark.parametrize(
    ("status", "error"), [(500, ConnectionError), (429, ConnectionError), (400, Refused), (302, Refused)]
)
async def test_what_a_webhook_answers(
    status: int, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_KEY", "k")
    with loopback(lambda _: Said(status)) as server, pytest.raises(error):
        await WebhookSink(server.url, secret_env="HOOK_KEY").deliver(finding())


def test_a_webhook_needs_its_key_and_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError, match="HOOK_KEY"):
        WebhookSink("https://example.com", secret_env="HOOK_KEY")
    monkeypatch.setenv("HOOK_KEY", "k")
    with pytest.raises(InvalidInputError, match="clear"):
        WebhookSink("http://example.com", secret_env="HOOK_KEY")
    WebhookSink("https://example.com", secret_env="HOOK_KEY")


# --- Alertmanager -------------------------------------------------------------------------------------------


class Alertmanager:
    """Keeps alerts as api/v2/openapi.yaml says: by their labels, until `endsAt`; refuses what is none."""

    def __init__(self) -> None:
        self.alerts: dict[str, dict[str, Any]] = {}
        self.server = LoopbackServer(self._answer)

    def _answer(self, asked: Asked) -> Said:
        from datetime import datetime  # noqa: PLC0415

        if (asked.method, asked.path) != ("POST", "/am/api/v2/alerts"):
            return Said(404)
        try:
            alerts = json.loads(asked.body)
            for one in alerts:
                assert set(one) <= {"labels", "annotations", "startsAt", "endsAt", "generatorURL"}
                assert one["labels"]["alertname"]
                for table in (one["labels"], one["annotations"]):
                    assert all(
                        isinstance(value, str) and name.isidentifier() for name, value in table.items()
                    )
                starts = datetime.fromisoformat(one["startsAt"].replace("Z", "+00:00"))
                ends = datetime.fromisoformat(one["endsAt"].replace("Z", "+00:00"))
                assert starts <= ends
                self.alerts[json.dumps(one["labels"], sort_keys=True)] = {**one, "ends": ends.timestamp()}
        except (AssertionError, KeyError, ValueError, TypeError) as error:
            return Said(400, repr(error).encode())
        return Said(200)

    def firing(self, now_s: float) -> list[dict[str, Any]]:
        return [one for one in self.alerts.values() if one["ends"] > now_s]


@pytest.fixture
def alertmanager() -> Iterator[Alertmanager]:
    fake = Alertmanager()
    yield fake
    fake.server.close()


async def test_alerts_fire_get_worse_and_are_resolved(alertmanager: Alertmanager) -> None:
    now_s = 1_800_000_100.0
    sink = AlertmanagerSink(f"{alertmanager.server.url}/am/", labels={"cluster": "a"}, clock=lambda: now_s)
    warning = finding("temperature-margin", severity=Severity.WARNING, action=Action.NONE)
    await sink.deliver(warning)
    (alert,) = alertmanager.firing(now_s)
    assert alert["labels"] == {
        "alertname": "GPUHealth", "rule": "temperature-margin", "severity": "warning", "action": "none",
        "machine": "node-1", "gpu": "GPU-1", "cluster": "a",
    }  # fmt: skip
    assert alert["startsAt"] == "2027-01-15T08:00:00.000Z"
    # It ends by itself if nobody repeats it.
    assert alertmanager.firing(now_s + 239) and not alertmanager.firing(now_s + 241)
    await sink.deliver(finding("temperature-margin"))
    assert [one["labels"]["severity"] for one in alertmanager.firing(now_s + 1)] == ["critical"]
    await sink.deliver(finding("temperature-margin", resolved=True))
    assert alertmanager.firing(now_s + 1) == []


async def test_an_alert_that_is_refused_and_one_that_is_not_taken(alertmanager: Alertmanager) -> None:
    sink = AlertmanagerSink(f"{alertmanager.server.url}/am", clock=lambda: 1_799_999_000.0)
    await sink.deliver(finding(resolved=True))  # by a clock that is ahead of ours
    with loopback(lambda _: Said(400, b"no")) as server, pytest.raises(Refused, match="no"):
        await AlertmanagerSink(server.url).deliver(finding())
    with pytest.raises(ConnectionError):
        await AlertmanagerSink(alertmanager.server.url).deliver(finding())
    with pytest.raises(InvalidInputError):
        AlertmanagerSink("http://a", labels={"not a name": "x"})


async def test_on_a_real_alertmanager(tmp_path: Path) -> None:
    program = shutil.which("alertmanager") or shutil.which("prometheus-alertmanager")
    if program is None:
        pytest.skip("no Alertmanager: apt-get install prometheus-alertmanager")
    (tmp_path / "am.yml").write_text("route: {receiver: none}\nreceivers: [{name: none}]\n")
    port = free_port()
    process = subprocess.Popen(  # noqa: ASYNC220
        [program, f"--config.file={tmp_path / 'am.yml'}", f"--web.listen-address=127.0.0.1:{port}",
         "--cluster.listen-address=", f"--storage.path={tmp_path / 'data'}"],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"

    async def alerts() -> list[tuple[str, str]]:
        found = (await request("GET", f"{url}/api/v2/alerts")).json()
        return [(one["labels"]["severity"], one["status"]["state"]) for one in found]

    try:
        sink = AlertmanagerSink(url)
        outbox = Outbox(sink, first_pause_s=0.05)
        task = await running(outbox)
        warning = finding("remap-pending", severity=Severity.WARNING, first_at_s=time.time())
        outbox.put([warning])
        assert await outbox.drained(60)
        assert await alerts() in ([("warning", "active")], [("warning", "unprocessed")])
        outbox.put([replace(warning, severity=Severity.CRITICAL)])
        assert await outbox.drained(60)
        await asyncio.sleep(0.5)
        assert [severity for severity, _ in await alerts()] == ["critical"]
        outbox.put([replace(warning, severity=Severity.CRITICAL, resolved=True)])
        assert await outbox.drained(60)
        await asyncio.sleep(0.5)
        assert await alerts() == []
        task.cancel()
    finally:
        process.terminate()
        process.wait(30)


# --- Kubernetes ---------------------------------------------------------------------------------------------


class ApiServer:
    """A node of Kubernetes' API: merges conditions by type, replaces taints, refuses an old resourceVersion.

    What it keeps is held against the client's own models at each change.
    """

    def __init__(self) -> None:
        self.node: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": "node-1", "resourceVersion": "1"},
            "spec": {"taints": [{"key": "others", "effect": "NoExecute"}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        }
        self.conflicts = 0
        self.server = LoopbackServer(self._answer)

    def _answer(self, asked: Asked) -> Said:
        name = "/api/v1/nodes/node-1"
        if asked.path not in (name, f"{name}/status"):
            return self._said({"kind": "Status", "status": "Failure", "code": 404}, 404)
        if asked.method == "PATCH":
            assert asked.headers["content-type"] == "application/strategic-merge-patch+json"
            patch = json.loads(asked.body)
            version = patch.get("metadata", {}).get("resourceVersion")
            if self.conflicts or version not in (None, self.node["metadata"]["resourceVersion"]):
                self.conflicts = max(0, self.conflicts - 1)
                return self._said({"kind": "Status", "status": "Failure", "code": 409}, 409)
            if asked.path == name:
                self.node["spec"].update(patch.get("spec", {}))
            else:
                for one in patch["status"]["conditions"]:
                    others = [c for c in self.node["status"]["conditions"] if c["type"] != one["type"]]
                    self.node["status"]["conditions"] = [*others, one]
            self.node["metadata"]["resourceVersion"] = str(int(self.node["metadata"]["resourceVersion"]) + 1)
        return self._said(self.node, 200)

    def _said(self, document: dict[str, Any], status: int) -> Said:
        return Said(status, json.dumps(document).encode(), {"Content-Type": "application/json"})

    def condition(self) -> dict[str, Any]:
        return next(one for one in self.node["status"]["conditions"] if one["type"] == CONDITION)

    def taints(self) -> dict[str, str]:
        return {one["key"]: one.get("value", "") for one in self.node["spec"]["taints"]}


@pytest.fixture
def cluster() -> Iterator[tuple[ApiServer, Any]]:
    kubernetes = pytest.importorskip("kubernetes", reason="needs the Kubernetes client")
    fake = ApiServer()
    configuration = kubernetes.client.Configuration(host=fake.server.url)
    configuration.retries = False
    yield fake, kubernetes.client.CoreV1Api(kubernetes.client.ApiClient(configuration))
    fake.server.close()


async def test_a_node_gets_a_condition_and_a_taint_and_loses_them(cluster: tuple[ApiServer, Any]) -> None:
    fake, api = cluster
    now = [1_800_000_100.0]
    sink = KubernetesSink(api, nodes={"i-1": "node-1"}, clock=lambda: now[0])
    await sink.deliver(
        finding("temperature-margin", machine="i-1", severity=Severity.WARNING, action=Action.NONE)
    )
    assert (fake.condition()["status"], fake.condition()["reason"]) == ("False", "TemperatureMargin")
    assert TAINT not in fake.taints()
    now[0] += 60
    await sink.deliver(finding(machine="i-1"))
    assert fake.condition()["reason"] == "Xid79" and "GPU-1: XID 79" in fake.condition()["message"]
    assert fake.condition()["lastTransitionTime"][:19] == "2027-01-15T08:01:40"  # it was False before
    assert fake.taints() == {"others": "", TAINT: "reboot"}
    await sink.deliver(finding(machine="i-1", resolved=True))
    assert fake.taints() == {"others": ""} and fake.condition()["status"] == "False"
    await sink.deliver(finding("temperature-margin", machine="i-1", resolved=True))
    assert (
        fake.condition()["status"] == "True"
        and fake.condition()["lastTransitionTime"] == "2027-01-15T08:02:40Z"
    )
    assert {one["type"] for one in fake.node["status"]["conditions"]} == {"Ready", CONDITION}
    node = api.read_node("node-1")  # the client's models take what is kept
    assert {one.type for one in node.status.conditions} == {"Ready", CONDITION}


async def test_another_writer_is_not_overwritten_and_a_strange_node_is_refused(
    cluster: tuple[ApiServer, Any],
) -> None:
    fake, api = cluster
    sink = KubernetesSink(api)
    fake.conflicts = 1
    with pytest.raises(ConnectionError, match="409"):
        await sink.deliver(finding())
    await sink.deliver(finding())
    assert fake.taints() == {"others": "", TAINT: "reboot"}
    with pytest.raises(Refused, match="404"):
        await sink.deliver(finding(machine="node-2"))


async def test_a_cluster_that_is_away_is_tried_again(cluster: tuple[ApiServer, Any]) -> None:
    fake, api = cluster
    fake.server.close()
    started = time.monotonic()
    with pytest.raises(Exception):  # noqa: B017 - urllib3's, whichever it is: the outbox takes any
        await KubernetesSink(api, timeout_s=4.0).deliver(finding())
    assert time.monotonic() - started < 30
