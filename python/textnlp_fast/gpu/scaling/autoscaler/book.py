"""What outlives a process: one state, changed by compare-and-swap, and a log of decisions in segments.

The newest decisions are in the state itself; so a decision and what it is based on are stored by one write, before the
actuator hears of it. Full segments are created before the state lets go of their records: a crash in between leaves a
segment that is created once more, with the same bytes.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from textnlp_fast.errors import MissingObjectError, ObjectExistsError
from textnlp_fast.gpu.scaling.autoscaler.records import (
    DecisionRecord,
    State,
    parse_records,
    parse_state,
    records_document,
    state_document,
)
from textnlp_fast.objectstore import ObjectStore, Version

__all__ = ["Book"]

_LIMIT_BYTES: Final = 16 << 20
_SEGMENT: Final = re.compile(r".*/log/(\d{12})-(\d{15})\.json", re.ASCII)


class Book:
    """The state and the log of one fleet, below `autoscalers/<name>` in a store. For one thread at a time.

    A segment has `segment_records` decisions; the newest `keep_segments` are kept.
    """

    def __init__(
        self, store: ObjectStore, name: str, *, segment_records: int = 30, keep_segments: int = 3000
    ) -> None:
        self.store = store
        self.name = name
        self._root = f"autoscalers/{name}"
        self._segment_records = segment_records
        self._keep_segments = keep_segments
        self._version: Version | None = None

    @property
    def lease_key(self) -> str:
        return f"{self._root}/lease.json"

    def load(self) -> State:
        """The state that is stored, and none where there is none. Later writes are on the condition of this one."""
        state, self._version = self._read()
        return state

    def peek(self) -> State:
        """The same, for readers that do not write."""
        return self._read()[0]

    def write(self, state: State) -> State:
        """Stores the state. Raises ConflictError where another has written since, StorageUnavailableError.

        Returns what was stored, which is without the records that went into the log.
        """
        if len(state.recent) > self._segment_records:
            # The last one may still get its outcome: it stays.
            full, left = state.recent[:-1], state.recent[-1:]
            self._log(full)
            state = replace(state, recent=left)
        key = f"{self._root}/state.json"
        self._version = self.store.compare_and_swap(
            key, state_document(state, secrets.token_hex(16)), self._version
        )
        return state

    def decisions(
        self, *, since_s: float | None = None, until_s: float | None = None
    ) -> Iterator[DecisionRecord]:
        """Decisions, the newest first, from those made at `until_s` back to those at `since_s`."""
        # Before the segments are listed: what moves there meanwhile is then seen twice, and not missed.
        recent = self._read()[0].recent
        numbers: set[int] = set()
        for one in reversed(recent):
            numbers.add(one.number)
            if (until_s is None or one.time_s <= until_s) and (since_s is None or one.time_s >= since_s):
                yield one
        for key, begun_s in reversed(self._segments()):
            if until_s is not None and begun_s > until_s:
                continue
            try:
                data = self.store.get(key, limit_bytes=_LIMIT_BYTES)
            except MissingObjectError:
                continue  # it was too old to be kept
            for one in reversed(parse_records(data, f"{key} in {self.store.url}")):
                if one.number in numbers or (until_s is not None and one.time_s > until_s):
                    continue
                numbers.add(one.number)
                if since_s is not None and one.time_s < since_s:
                    return
                yield one

    def _read(self) -> tuple[State, Version | None]:
        key = f"{self._root}/state.json"
        try:
            data, version = self.store.get_versioned(key, limit_bytes=_LIMIT_BYTES)
        except MissingObjectError:
            return State(), None
        return parse_state(data, f"{key} in {self.store.url}"), version

    def _log(self, records: tuple[DecisionRecord, ...]) -> None:
        first = records[0]
        key = f"{self._root}/log/{first.number:012d}-{max(0, int(first.time_s * 1000)):015d}.json"
        try:
            self.store.create(key, records_document(records))
        except ObjectExistsError as error:
            # Written by a process that died before the state let go of these; it may have had fewer of them.
            if len(parse_records(error.existing, f"{key} in {self.store.url}")) < len(records):
                self.store.put_object(key, records_document(records))
        for old, _ in self._segments()[: -self._keep_segments]:
            self.store.delete(old)

    def _segments(self) -> list[tuple[str, float]]:
        found = []
        for meta in self.store.list(f"{self._root}/log"):
            match = _SEGMENT.fullmatch(meta.key)
            if match:
                found.append((meta.key, int(match[2]) / 1000))
        return found
