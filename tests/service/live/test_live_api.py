"""The live side over HTTP, asked of services that really run: transfers, events, the fleet."""

from __future__ import annotations

import asyncio
import datetime
import json
import time
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

from textnlp_fast.gpu.providers.contract import InstanceState
from textnlp_fast.gpu.resources.journal import Journal
from textnlp_fast.gpu.resources.records import InstanceRecord, LaunchRecord, Period, Phase
from textnlp_fast.gpu.scaling.autoscaler.book import Book
from textnlp_fast.gpu.scaling.autoscaler.records import DecisionRecord, State
from textnlp_fast.gpu.types import Market
from textnlp_fast.objectstore import open_store
from textnlp_fast.storage import Registry, Repository

httpx = pytest.importorskip("httpx")

WAIT_S = 180.0
STREAMS = 200


class Place:
    """A repository, a root, a fleet's journal, and two services over them."""

    def __init__(self, folder: Path, serve: Callable[..., str]) -> None:
        self.folder, self.root, self.fleet = folder, folder / "root", folder / "fleet"
        self.root.mkdir()
        self.repository = Repository.open(folder / "repository", create=True, window_bytes=1 << 14)
        fields: dict[str, Any] = {
            "repo": str(folder / "repository"),
            "allowed_paths": [str(self.root)],
            "fleet_state": str(self.fleet),
            "job_lease_s": 5.0,
            "job_poll_s": 0.1,
            "fresh_s": 0.3,
        }
        self.first, self.second = serve(**fields), serve(**fields)
        self.client = httpx.Client(base_url=f"{self.first}/api/v1", timeout=WAIT_S)
        self.other = httpx.Client(base_url=f"{self.second}/api/v1", timeout=WAIT_S)

    def ended(self, job_id: str) -> dict[str, Any]:
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            job: dict[str, Any] = self.client.get(f"/transfers/{job_id}").json()
            if job["state"] in ("done", "failed", "cancelled"):
                return job
            time.sleep(0.05)
        raise AssertionError(job)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, serve: Callable[..., str]) -> Place:
    return Place(tmp_path_factory.mktemp("live"), serve)


def push(path: Path, version: str, model: str = "m") -> dict[str, Any]:
    return {"kind": "push", "path": str(path), "model": model, "version": version}


def test_there_and_back(place: Place, write_model: Any, tree: Any) -> None:
    model = write_model(place.root / "one", 1)
    answer = place.client.post("/transfers", json=push(model, "1.0.0"))
    assert answer.status_code == 202
    job = place.ended(answer.json()["id"])
    assert job["state"] == "done", job["problem"]
    assert answer.headers["location"] == f"/api/v1/transfers/{job['id']}"
    assert job["result"]["raw_bytes"] == sum(map(len, tree(model).values()))
    assert job["created_at"] <= job["started_at"] <= job["ended_at"]
    body = {"kind": "pull", "model": "m", "path": str(place.root / "back")}
    back = place.ended(place.other.post("/transfers", json=body).json()["id"])
    assert back["state"] == "done", back["problem"]
    assert (back["version"], tree(place.root / "back")) == ("1.0.0", tree(model))
    versions = place.client.get("/models/m/versions").json()["items"]
    assert [one["version"] for one in versions] == ["1.0.0"]


def test_the_same_key_is_the_same_transfer(place: Place, write_model: Any) -> None:
    model = write_model(place.root / "keyed", 3)
    key = {"Idempotency-Key": "a-key"}
    ids = {
        client.post("/transfers", json=push(model, "1.0.0", "keyed"), headers=key).json()["id"]
        for client in (place.client, place.other, place.client)
    }
    assert len(ids) == 1
    other = place.client.post("/transfers", json=push(model, "1.0.1", "keyed"), headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "IdempotencyKeyReused")
    assert place.ended(ids.pop())["state"] == "done"
    again = place.client.post("/transfers", json=push(model, "1.0.0", "keyed"), headers=key)
    assert again.json()["state"] == "done"


def test_many_at_once_with_one_key(place: Place, write_model: Any) -> None:
    model = write_model(place.root / "crowd", 4)

    async def asked() -> set[str]:
        async with httpx.AsyncClient(timeout=WAIT_S) as client:
            answers = await asyncio.gather(
                *(
                    client.post(
                        f"{(place.first, place.second)[number % 2]}/api/v1/transfers",
                        json=push(model, "1.0.0", "crowd"),
                        headers={"Idempotency-Key": "crowd"},
                    )
                    for number in range(20)
                )
            )
        assert {answer.status_code for answer in answers} == {202}
        return {answer.json()["id"] for answer in answers}

    ids = asyncio.run(asked())
    assert len(ids) == 1
    assert place.ended(ids.pop())["attempts"] == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"kind": "push", "path": "/etc", "model": "m", "version": "1.0.0"}, 403),
        ({"kind": "pull", "model": "m", "path": "/tmp/../etc/x"}, 403),
        ({"kind": "push", "path": "{root}/../fleet", "model": "m", "version": "9.0.0"}, 403),
        ({"kind": "push", "path": "{root}/none", "model": "m", "version": "9.0.0"}, 422),
        ({"kind": "push", "path": "{root}", "model": "../m", "version": "9.0.0"}, 422),
        ({"kind": "push", "path": "{root}", "model": "m", "version": "latest"}, 422),
        ({"kind": "push", "path": "s3://bucket/x", "model": "m", "version": "9.0.0"}, 422),
        ({"kind": "push", "path": "http://169.254.169.254/", "model": "m", "version": "9.0.0"}, 422),
        ({"kind": "push", "path": "{root}", "model": "m", "version": "9.0.0", "url": "http://x"}, 422),
        ({"kind": "push", "path": "{root}", "model": "m", "version": "9.0.0", "metadata": {"transfer": "x"}}, 422),
        ({"kind": "pull", "model": "nobody/has-it", "path": "{root}/x"}, 404),
        ({"kind": "pull", "model": "m", "version": "99.0.0", "path": "{root}/x"}, 404),
        ({"kind": "delta", "model": "m", "from_version": "1.0.0", "to_version": "1.0.0", "path": "/x"}, 403),
        ({"kind": "shell", "path": "{root}"}, 422),
        ({"kind": "collect", "grace_s": -1}, 422),
        ({"kind": "collect", "grace_s": "NaN"}, 422),
        ([], 422),
    ],
)  # fmt: skip
def test_refused(place: Place, write_model: Any, body: Any, status: int) -> None:
    if "m" not in place.repository.models():
        place.repository.push(write_model(place.root / "one", 1), "m", "1.0.0")
        time.sleep(1.0)
    text = json.dumps(body).replace("{root}", str(place.root))
    answer = place.client.post("/transfers", content=text, headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]


def test_a_refusal_says_the_path_as_it_was_typed(place: Place) -> None:
    (place.root / "away").symlink_to(place.fleet)
    for path, status in ((f"{place.root}/away/x", 403), ("/etc/x y", 403), (f"{place.root}/none", 422)):
        body = {"kind": "push", "path": path, "model": "m", "version": "9.0.0"}
        answer = place.client.post("/transfers", json=body)
        assert answer.status_code == status, answer.text
        assert path in answer.json()["detail"]
        assert str(place.fleet) not in answer.text  # where the link leads


def test_lists(place: Place) -> None:
    seen: list[str] = []
    cursor = None
    while True:
        page = place.client.get(
            "/transfers", params={"limit": 2, **({"cursor": cursor} if cursor else {})}
        ).json()
        seen += [one["created_at"] for one in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == sorted(seen, reverse=True)
    assert len(seen) == len(place.client.get("/transfers").json()["items"])
    pulls = place.client.get("/transfers", params={"kind": "pull", "state": "done"}).json()["items"]
    assert {(one["kind"], one["state"]) for one in pulls} <= {("pull", "done")}
    assert place.client.get("/transfers/roots").json()["items"] == [str(place.root)]
    assert place.client.get(f"/transfers/{'0' * 24}").status_code == 404
    assert place.client.post(f"/transfers/{'0' * 24}/cancel").status_code == 404


# --- events -----------------------------------------------------------------------------------------------------


async def heard(
    address: str,
    path: str,
    wanted: Callable[[list[dict[str, str]]], bool],
    ready: asyncio.Event | None = None,
) -> list[dict[str, str]]:
    """The events of a stream until there are enough, by a reader of a plain socket."""
    host, port = address.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET /api/v1{path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert b" 200 " in head.splitlines()[0], head
    assert b"text/event-stream" in head
    events: list[dict[str, str]] = []
    text = b""
    while not wanted(events):
        size = int(await reader.readline(), 16)
        text += (await reader.readexactly(size + 2))[:-2]
        *whole, text = text.split(b"\n\n")
        for block in whole:
            lines = [line.partition(": ") for line in block.decode().splitlines()]
            fields = {name: value for name, _, value in lines if name}
            if "event" in fields:
                events.append(fields)
        if ready is not None and events:
            ready.set()
    writer.close()
    return events


def test_two_hundred_streams_hear_of_a_transfer(place: Place, write_model: Any) -> None:
    """All of them, from the replica that does it and from the other one, and requests are answered meanwhile."""
    model = write_model(place.root / "heard", 5)

    async def told() -> list[list[dict[str, str]]]:
        def is_done(events: list[dict[str, str]]) -> bool:
            return any(
                one["event"] == "transfer" and json.loads(one["data"])["state"] == "done" for one in events
            ) and any(  # what other tests published may be told here, too
                one["event"] == "registry" and json.loads(one["data"]).get("model") == "heard"
                for one in events
            )

        readies = [asyncio.Event() for _ in range(STREAMS)]
        streams = [
            asyncio.ensure_future(
                heard((place.first, place.second)[number % 2], "/events", is_done, readies[number])
            )
            for number in range(STREAMS)
        ]
        await asyncio.wait_for(asyncio.gather(*(ready.wait() for ready in readies)), WAIT_S)
        async with httpx.AsyncClient(timeout=WAIT_S) as client:
            await client.post(f"{place.first}/api/v1/transfers", json=push(model, "1.0.0", "heard"))
            for _ in range(20):
                assert (await client.get(f"{place.first}/api/v1/models")).status_code == 200
        return await asyncio.wait_for(asyncio.gather(*streams), WAIT_S)

    found = asyncio.run(told())
    assert len(found) == STREAMS
    for events in found:
        numbers = [int(one["id"].partition("-")[2]) for one in events]
        assert numbers == sorted(numbers)
        changes = [json.loads(one["data"]) for one in events if one["event"] == "registry"]
        assert {"model": "heard", "version": "1.0.0", "kind": "published"} in changes


def test_events_of_one_transfer(place: Place, write_model: Any) -> None:
    model = write_model(place.root / "single", 6)
    job_id = place.client.post("/transfers", json=push(model, "1.0.0", "single")).json()["id"]

    def is_done(events: list[dict[str, str]]) -> bool:
        return any(json.loads(one["data"]).get("state") == "done" for one in events)

    for address in (place.first, place.second):
        events = asyncio.run(asyncio.wait_for(heard(address, f"/transfers/{job_id}/events", is_done), WAIT_S))
        assert {one["event"] for one in events} <= {"hello", "state", "progress"}
        assert {json.loads(one["data"])["id"] for one in events if one["event"] != "hello"} == {job_id}
    answer = place.client.get(f"/transfers/{'0' * 24}/events")
    assert answer.status_code == 404


def test_changes_by_others_are_told(place: Place, write_model: Any) -> None:
    """Somebody with the command line pushes and moves an alias; an autoscaler decides."""
    book = Book(open_store(place.fleet), "fleet-1")
    first = DecisionRecord(
        number=1, decision_id="a", time_s=time.time() - 60, target=2, before=None, wanted=2,
        observed={"ready": 1.0, "starting": 1.0, "slo_attainment": 0.99},
        reasons=(("load", 2.0, "so many\nrequests"),), outcome="told",
    )  # fmt: skip
    state = book.load()
    state = book.write(State(token=1, number=1, target=2, policy_name="llm", recent=(first,)))

    async def told() -> list[dict[str, str]]:
        ready = asyncio.Event()

        def enough(events: list[dict[str, str]]) -> bool:
            kinds = {json.loads(one["data"]).get("kind") for one in events if one["event"] == "registry"}
            return {"published", "alias.set"} <= kinds and any(
                one["event"] == "decision" and json.loads(one["data"])["number"] == 2 for one in events
            )

        stream = asyncio.ensure_future(heard(place.first, "/events", enough, ready))
        await asyncio.wait_for(ready.wait(), WAIT_S)
        await asyncio.sleep(3)  # a look at what is there before it changes
        model = write_model(place.root / "elsewhere", 7)
        await asyncio.to_thread(place.repository.push, model, "elsewhere", "1.0.0")
        registry = Registry(place.repository, actor="bob")
        await asyncio.to_thread(registry.set_alias, "elsewhere", "champion", "1.0.0")
        second = replace(first, number=2, decision_id="b", time_s=time.time(), target=3, before=2)
        await asyncio.to_thread(
            book.write, State(token=1, number=2, target=3, policy_name="llm", recent=(*state.recent, second))
        )
        return await asyncio.wait_for(stream, WAIT_S)

    events = asyncio.run(told())
    decision = [json.loads(one["data"]) for one in events if one["event"] == "decision"][-1]
    assert (decision["fleet"], decision["number"], decision["wanted"]) == ("fleet-1", 2, 3)
    alias = next(json.loads(one["data"]) for one in events if '"alias.set"' in one["data"])
    assert (alias["model"], alias["actor"]) == ("elsewhere", "bob")
    fleets = place.client.get("/autoscaler").json()["items"]
    assert [(one["name"], one["wanted"], one["replicas"], one["paused"]) for one in fleets] == [
        ("fleet-1", 3, 1, False)
    ]
    page = place.client.get("/autoscaler/fleet-1/decisions", params={"limit": 1}).json()
    assert (page["items"][0]["number"], page["next_cursor"]) == (2, "2")
    page = place.client.get("/autoscaler/fleet-1/decisions", params={"limit": 1, "before": 2}).json()
    assert (page["items"][0]["number"], page["next_cursor"]) == (1, None)
    assert page["items"][0]["reasons"] == ["load: so many requests"]
    why = place.client.get("/autoscaler/fleet-1/explain").json()
    assert why["decision"]["number"] == 2
    assert any("3 replicas" in sentence for sentence in why["sentences"])
    assert place.client.get("/autoscaler/fleet-9/explain").status_code == 404
    assert place.client.get("/autoscaler/fleet-1/explain", params={"at": "noon"}).status_code == 422


# --- the fleet --------------------------------------------------------------------------------------------------


def test_the_fleet_by_its_journal(place: Place) -> None:
    now = datetime.datetime.now(datetime.timezone.utc)
    hours = datetime.timedelta(hours=10)
    journal = Journal.open(place.fleet)
    alive = LaunchRecord(
        acquisition="acq-1", number=1, owner="o", phase=Phase.LAUNCHED, provider="aws", region="us-east-1",
        zone="us-east-1a", market=Market.SPOT, instance_type="p5.48xlarge", gpu_type="h100", gpu_count=8.0, count=1,
        min_count=1, usd_per_hour=Decimal("40"), on_demand_usd_per_hour=Decimal("100"), max_usd_per_hour=None,
        image=None, disk_gib=100, user_data_digest=None, created_at=now - hours, process="p",
        instances=(
            InstanceRecord(
                instance_id="i-1", zone="us-east-1a", state=InstanceState.RUNNING, wanted=InstanceState.RUNNING,
                periods=(Period(began=now - hours),),
            ),
        ),
    )  # fmt: skip
    ended = replace(
        alive, acquisition="acq-2", provider="gcp", market=Market.ON_DEMAND, usd_per_hour=Decimal("10"),
        on_demand_usd_per_hour=Decimal("10"),
        instances=(
            replace(
                alive.instances[0], instance_id="g-1", state=InstanceState.TERMINATED,
                periods=(Period(began=now - hours, ended=now - hours / 2),),
            ),
        ),
    )  # fmt: skip
    assert journal.create(alive)
    assert journal.create(ended)
    deadline = time.monotonic() + WAIT_S
    while not (found := place.client.get("/fleet/instances").json())["items"]:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    (one,) = found["items"]
    assert (one["id"], one["gpus"], one["market"], one["usd_per_hour"]) == ("i-1", 8.0, "spot", 40.0)
    assert one["spent_usd"] == pytest.approx(400, rel=0.02)
    assert one["saved_usd"] == pytest.approx(600, rel=0.02)
    costs = place.client.get("/fleet/costs").json()
    assert costs["spent_usd"] == pytest.approx(450, rel=0.02)
    assert (costs["usd_per_hour"], costs["running"]) == (40.0, 1)
    assert {one["provider"]: round(one["spent_usd"]) for one in costs["by_provider"]} == {
        "aws": 400,
        "gcp": 50,
    }
    spent = [point["spent_usd"] for point in costs["points"]]
    assert spent == sorted(spent)
    middle = costs["points"][len(spent) // 2 - 1]
    assert middle["spent_usd"] == pytest.approx(250, rel=0.1), (
        "half of it, when both had run for half the time"
    )
    assert costs["points"][10]["usd_per_hour"] == 50.0
    health = place.client.get("/fleet/health").json()
    assert (health["verdict"], health["machines"]) == (None, [])
    assert "--health-agent" in health["note"]
