"""The broadcaster by itself: order, places in the history, readers that are slow, limits."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("fastapi")

from textnlp_fast.service.events import Broadcaster, EventStream
from textnlp_fast.service.problems import OverloadedError


@pytest.fixture
async def broadcaster() -> AsyncIterator[Broadcaster]:
    made = Broadcaster(history=16, most_streams=50)
    yield made
    await made.close()


def parsed(data: bytes) -> list[dict[str, str]]:
    """Events by a parser of its own: fields by name, comments left out."""
    found = []
    for block in data.decode().split("\n\n"):
        fields: dict[str, str] = {}
        for line in block.splitlines():
            if line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                fields[name] = f"{fields[name]}\n{value}" if name in fields else value
        if "event" in fields:
            found.append(fields)
    return found


async def test_everybody_hears_everything_in_order(broadcaster: Broadcaster) -> None:
    streams = [broadcaster.open()[0] for _ in range(50)]
    for number in range(10):
        broadcaster.publish("transfer", {"n": number})
    for stream in streams:
        heard = [json.loads(one["data"])["n"] for one in parsed(stream.take())]
        assert heard == list(range(10))
        assert stream.take() == b""
    with pytest.raises(OverloadedError):
        broadcaster.open()
    broadcaster.leave(streams[0])
    broadcaster.open()


async def test_a_topic_hears_of_itself_alone(broadcaster: Broadcaster) -> None:
    stream, _ = broadcaster.open("a")
    broadcaster.publish("transfer", {"n": 1}, topic="b", topic_name="state")
    broadcaster.publish("registry", {"n": 2})
    broadcaster.publish("transfer", {"n": 3}, topic="a", topic_name="progress")
    assert [(one["event"], one["data"]) for one in parsed(stream.take())] == [("progress", '{"n":3}')]


async def test_a_slow_reader_is_told_to_ask_again(broadcaster: Broadcaster) -> None:
    slow, _ = broadcaster.open()
    for number in range(17):
        broadcaster.publish("transfer", {"n": number})
    assert [one["event"] for one in parsed(slow.take())] == ["resync"]
    assert broadcaster.dropped == 1
    broadcaster.publish("transfer", {"n": 17})
    assert [json.loads(one["data"])["n"] for one in parsed(slow.take())] == [17]


async def test_going_on_after_an_event(broadcaster: Broadcaster) -> None:
    first, hello = broadcaster.open()
    start = parsed(hello)[0]["id"]
    for number in range(5):
        broadcaster.publish("transfer", {"n": number})
    ids = [one["id"] for one in parsed(first.take())]
    again, begun = broadcaster.open("", ids[2])
    assert parsed(begun) == []
    assert [json.loads(one["data"])["n"] for one in parsed(again.take())] == [3, 4]
    assert len(parsed(broadcaster.open("", start)[0].take())) == 5
    assert parsed(broadcaster.open("", ids[-1])[0].take()) == []
    for odd in ("nonsense", "00000000-1", f"{ids[0].partition('-')[0]}-99", f"{ids[0].partition('-')[0]}-"):
        stream, begun = broadcaster.open("", odd)
        assert [one["event"] for one in parsed(begun)] == ["hello", "resync"]
        assert stream.take() == b""
    for number in range(20):
        broadcaster.publish("transfer", {"n": number})
    assert "resync" in [one["event"] for one in parsed(broadcaster.open("", ids[0])[1])]


@given(st.text(max_size=200), st.integers(0, 3))
def test_no_data_ends_an_event_early(text: str, lines: int) -> None:
    """Whatever a name or a note holds, it comes out as one event with that data."""

    async def told() -> list[dict[str, str]]:
        broadcaster = Broadcaster()
        stream, _ = broadcaster.open()
        broadcaster.publish("registry", {"note": text + "\n\nevent: forged\ndata: x" * lines})
        data = stream.take()
        await broadcaster.close()
        return parsed(data)

    (event,) = asyncio.run(told())
    assert event["event"] == "registry"
    assert json.loads(event["data"])["note"] == text + "\n\nevent: forged\ndata: x" * lines


async def test_an_event_that_is_too_large_is_no_event(broadcaster: Broadcaster) -> None:
    stream, _ = broadcaster.open()
    broadcaster.publish("transfer", {"n": "x" * 100_000})
    data = stream.take()
    assert len(data) < 1000
    assert parsed(data)[0]["event"] == "resync"


async def test_threads_and_heartbeats() -> None:
    broadcaster = Broadcaster(beat_s=0.1, longest_s=0.5)
    stream, _ = broadcaster.open()
    thread = threading.Thread(target=broadcaster.publish_soon, args=("decision", {"n": 1}))
    thread.start()
    heard = b""
    while b"decision" not in heard or b":\n\n" not in heard:
        await asyncio.wait_for(stream.wait(), 60)
        heard += stream.take()
    while not stream.closed:  # until it has been open for as long as one may be
        stream.take()
        await asyncio.wait_for(stream.wait(), 60)
    thread.join()
    await broadcaster.close()


class Reader:
    """An ASGI server's side of a stream, whose client reads when it is let."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.may = asyncio.Event()
        self.gone = asyncio.Event()

    async def send(self, message: Any) -> None:
        await self.may.wait()
        self.sent.append(message.get("body", b""))

    async def receive(self) -> Any:
        await self.gone.wait()
        return {"type": "http.disconnect"}


async def until(condition: Any) -> None:
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come about")


async def test_a_reader_that_stands_still_holds_nothing_up(broadcaster: Broadcaster) -> None:
    stalled, quick = Reader(), Reader()
    quick.may.set()
    tasks = []
    for reader in (stalled, quick):
        answer = EventStream(broadcaster, *broadcaster.open())
        tasks.append(asyncio.ensure_future(answer({"type": "http"}, reader.receive, reader.send)))
    await until(lambda: len(quick.sent) >= 2)
    for number in range(100):
        broadcaster.publish("transfer", {"n": number})
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    await until(lambda: b'{"n":99}' in b"".join(quick.sent))
    stalled.may.set()
    await until(lambda: b"resync" in b"".join(stalled.sent))
    assert b'{"n":50}' not in b"".join(stalled.sent)
    quick.gone.set()
    await until(lambda: broadcaster.streams == 1)
    await broadcaster.close()
    await asyncio.wait_for(asyncio.gather(*tasks), 60)
    assert broadcaster.streams == 0
