"""Server-sent events: one broadcaster a process, one bounded history that all streams read from, and no queue a stream.

A stream is a place in the history. Who reads too slowly falls out of it at its end, and is told so by one event,
`resync`: ask again for what you show. Memory is that of the history and of what the sockets hold, however many streams
there are and however slow they are.

Streams are woken a few at a time, with the loop's other work between: an event for a thousand streams must not keep
requests waiting.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from textnlp_fast.service.problems import OverloadedError

__all__ = ["Broadcaster", "EventStream", "Stream"]

_ID: Final = re.compile(r"([0-9a-f]{8})-([0-9]{1,15})", re.ASCII)
_AT_ONCE: Final = 8
"""Streams that are woken in one turn of the loop."""
_MOST_IN_A_CHUNK: Final = 64
_BEAT: Final = b":\n\n"


@dataclass(frozen=True, slots=True)
class _Event:
    number: int
    topic: str
    data: bytes
    """As all streams get it."""
    of_topic: bytes
    """As those get it that hear of this topic alone."""


class Stream:
    """One reader: where it stands, and what it hears of (`topic`; empty: everything)."""

    __slots__ = ("_broadcaster", "_woken", "beat", "closed", "next", "opened_s", "topic")

    def __init__(self, broadcaster: Broadcaster, topic: str, next_number: int, opened_s: float) -> None:
        self._broadcaster = broadcaster
        self._woken: asyncio.Future[None] | None = None
        self.topic = topic
        self.next = next_number
        self.opened_s = opened_s
        self.beat = False
        self.closed = False

    def take(self) -> bytes:
        """What it has not had yet, a bounded part of it; empty: nothing."""
        return self._broadcaster.since(self)

    async def wait(self) -> None:
        """Until there may be something, or it was closed."""
        if self.closed or self.beat:
            return
        self._woken = asyncio.get_running_loop().create_future()
        try:
            await self._woken
        finally:
            self._woken = None

    def wake(self) -> None:
        """Lets `wait` return."""
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    def close(self) -> None:
        """It has no more to say."""
        self.closed = True
        self.wake()


class Broadcaster:
    """For one event loop; `publish_soon` may be called from any thread.

    `history` events are kept, each of at most `most_event_bytes`; more than `most_streams` are refused. A stream that
    has heard nothing for `beat_s` gets a comment, so that what stands in between keeps it open, and ends after
    `longest_s`: whoever's token was taken away hears no more then.
    """

    def __init__(
        self,
        *,
        history: int = 1024,
        most_streams: int = 2000,
        most_event_bytes: int = 64 << 10,
        beat_s: float = 15.0,
        longest_s: float = 3600.0,
    ) -> None:
        self._epoch = secrets.token_hex(4)
        self._events: deque[_Event] = deque(maxlen=history)
        self._next = 1
        self._streams: dict[Stream, None] = {}
        self._most_streams = most_streams
        self._most_event_bytes = most_event_bytes
        self._beat_s = beat_s
        self._longest_s = longest_s
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._tasks = [asyncio.ensure_future(self._pump()), asyncio.ensure_future(self._keep())]
        self.dropped = 0
        """Times that a reader was too slow and was told to ask again."""

    @property
    def streams(self) -> int:
        """How many there are."""
        return len(self._streams)

    # --- events -------------------------------------------------------------------------------------------------

    def publish(
        self, name: str, data: dict[str, Any] | str, *, topic: str = "", topic_name: str = ""
    ) -> None:
        """Tells all streams, and those of `topic` under `topic_name`. `data` is JSON, or is made it."""
        text = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"))
        if len(text) > self._most_event_bytes:
            name, topic_name, text = "resync", "resync", '{"reason":"an event was too large to be sent"}'
        number = self._next
        self._next += 1
        shown = "".join(f"data: {line}\n" for line in text.splitlines() or [""])
        head = f"id: {self._epoch}-{number}\n"
        whole = f"{head}event: {name}\n{shown}\n".encode()
        part = f"{head}event: {topic_name}\n{shown}\n".encode() if topic else whole
        self._events.append(_Event(number, topic, whole, part))
        self._news.set()

    def publish_soon(
        self, name: str, data: dict[str, Any] | str, *, topic: str = "", topic_name: str = ""
    ) -> None:
        """The same, from another thread. Does nothing once the loop has ended."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(
                lambda: self.publish(name, data, topic=topic, topic_name=topic_name)
            )

    # --- streams ------------------------------------------------------------------------------------------------

    def open(self, topic: str = "", last_id: str | None = None) -> tuple[Stream, bytes]:
        """A stream of what comes from now on, or after the event `last_id`, and what it begins with.

        Raises OverloadedError where there are too many.
        """
        if len(self._streams) >= self._most_streams:
            raise OverloadedError(f"{len(self._streams)} event streams are open already")
        stream = Stream(self, topic, self._next, self._loop.time())
        first = f"retry: 2000\nid: {self._epoch}-{self._next - 1}\nevent: hello\ndata: {{}}\n\n".encode()
        if last_id:
            match = _ID.fullmatch(last_id)
            oldest = self._events[0].number if self._events else self._next
            if match and match[1] == self._epoch and oldest <= int(match[2]) + 1 <= self._next:
                stream.next = int(match[2]) + 1
                first = b"retry: 2000\n\n"
            else:
                first += self._resync("the events since then are not known here")
        self._streams[stream] = None
        return stream, first

    def leave(self, stream: Stream) -> None:
        """Forgets a stream."""
        stream.closed = True
        self._streams.pop(stream, None)

    def since(self, stream: Stream) -> bytes:
        """What a stream has not had yet, and moves it on."""
        beat, stream.beat = stream.beat, False
        if stream.next >= self._next:
            return _BEAT if beat else b""
        oldest = self._events[0].number
        if stream.next < oldest:
            self.dropped += 1
            stream.next = self._next
            return self._resync("events came faster than they were read")
        parts: list[bytes] = []
        for number in range(stream.next - oldest, len(self._events)):
            event = self._events[number]
            stream.next = event.number + 1
            if not stream.topic:
                parts.append(event.data)
            elif event.topic == stream.topic:
                parts.append(event.of_topic)
            if len(parts) >= _MOST_IN_A_CHUNK:
                break
        if not parts and beat:
            return _BEAT
        return b"".join(parts)

    def _resync(self, why: str) -> bytes:
        return f"id: {self._epoch}-{self._next - 1}\nevent: resync\ndata: {json.dumps({'reason': why})}\n\n".encode()

    # --- waking -------------------------------------------------------------------------------------------------

    async def _pump(self) -> None:
        """Wakes whom there is something for, a few in each turn of the loop."""
        while True:
            await self._news.wait()
            self._news.clear()
            for group in _groups(list(self._streams)):
                for stream in group:
                    if stream.next < self._next and self._concerns(stream):
                        stream.wake()
                await asyncio.sleep(0)

    def _concerns(self, stream: Stream) -> bool:
        if not stream.topic:
            return True
        oldest = self._events[0].number
        if stream.next < oldest:
            return True
        begin = max(0, stream.next - oldest)
        if any(self._events[number].topic == stream.topic for number in range(begin, len(self._events))):
            return True
        stream.next = self._next
        return False

    async def _keep(self) -> None:
        """Heartbeats, spread over their time, and the end of streams that are old."""
        turns = 60
        turn = 0
        while True:
            await asyncio.sleep(self._beat_s / turns)
            turn = (turn + 1) % turns
            now = self._loop.time()
            streams = list(self._streams)
            for stream in streams[len(streams) * turn // turns : len(streams) * (turn + 1) // turns]:
                stream.beat = True
                if now - stream.opened_s > self._longest_s:
                    self.leave(stream)
                stream.wake()

    async def close(self) -> None:
        """Ends all streams."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for group in _groups(list(self._streams)):
            for stream in group:
                stream.close()
            await asyncio.sleep(0)


def _groups(streams: list[Stream]) -> Iterable[list[Stream]]:
    for begin in range(0, len(streams), _AT_ONCE):
        yield streams[begin : begin + _AT_ONCE]


class EventStream(Response):
    """An answer that goes on until its reader goes away, or the service ends. `first` is sent before all events."""

    def __init__(self, broadcaster: Broadcaster, stream: Stream, first: bytes) -> None:
        super().__init__(
            media_type="text/event-stream", headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )
        del self.headers["content-length"]
        self._broadcaster = broadcaster
        self._stream = stream
        self._first = first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        stream = self._stream
        gone = asyncio.ensure_future(_gone(receive))
        gone.add_done_callback(lambda _: stream.close())
        try:
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            await send({"type": "http.response.body", "body": self._first, "more_body": True})
            while not stream.closed:
                chunk = stream.take()
                if chunk:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                else:
                    await stream.wait()
            if not gone.done():
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._broadcaster.leave(stream)
            gone.cancel()


async def _gone(receive: Receive) -> None:
    """Until the reader has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass
