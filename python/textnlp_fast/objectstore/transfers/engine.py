"""Parts on threads: as many as the controller says, each tried again after what passes by itself."""

from __future__ import annotations

import itertools
import queue
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Generic, Protocol, TypeVar

from textnlp_fast.errors import (
    CorruptDataError,
    MissingObjectError,
    StorageUnavailableError,
    UntrustedServerError,
)
from textnlp_fast.objectstore.transfers.concurrency import StreamController
from textnlp_fast.objectstore.transfers.protocol import BackOffError, Part
from textnlp_fast.objectstore.transfers.settings import TransferSettings
from textnlp_fast.objectstore.transfers.watch import Watch

__all__ = ["PartJob", "retrying", "run_parts"]

Result_co = TypeVar("Result_co", covariant=True)
Outcome = TypeVar("Outcome")

_TICK_S: Final = 0.1
_WINDOW_S: Final = 0.25  # a rate over less than this says more about chance than about streams
_PROGRESS_S: Final = 0.2
_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 10.0
_LONGEST_WISH_S: Final = 30.0  # what a Retry-After may ask for


class PartJob(Protocol[Result_co]):
    """Moves one part. Called again after a failure, it may go on where it stood."""

    moved_bytes: int
    """Grows with what was moved: a try that moved something is not held against the part."""

    def run(self) -> Result_co: ...


class _Run(Generic[Outcome]):
    def __init__(
        self,
        parts: Iterable[Part],
        job: Callable[[Part], PartJob[Outcome]],
        claim: Callable[[Part, Outcome], None],
        watch: Watch,
        controller: StreamController,
    ) -> None:
        self._claim = claim
        self.waiting = deque(parts)
        self.left = len(self.waiting)
        self.results: queue.SimpleQueue[tuple[Part, BaseException | None]] = queue.SimpleQueue()
        self._job = job
        self._watch = watch
        self._controller = controller
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._active = 0

    def spawn(self) -> None:
        """As many threads as the controller wants and parts are waiting."""
        with self._lock:
            wanted = min(self._controller.streams - self._active, len(self.waiting))
            self._active += max(0, wanted)
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        for _ in range(wanted):
            thread = threading.Thread(target=self._work, name="textnlp-fast-transfer", daemon=True)
            self._threads.append(thread)
            thread.start()

    def join(self) -> None:
        """Waits until all threads have ended."""
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self.waiting or self._active > self._controller.streams:
                    self._active -= 1
                    return
                part = self.waiting.popleft()
            try:
                outcome = self._tries(part)
                self._claim(part, outcome)  # before another part is begun: a kill loses one a stream at most
            except BaseException as error:  # noqa: BLE001  handed to the thread that waits
                self.results.put((part, error))
            else:
                self.results.put((part, None))

    def _tries(self, part: Part) -> Outcome:
        settings = self._watch.settings
        job = self._job(part)
        failures, moved = 0, 0
        while True:
            self._watch.check()
            try:
                return job.run()
            except (StorageUnavailableError, CorruptDataError) as error:
                if isinstance(error, MissingObjectError | UntrustedServerError):
                    raise
                if job.moved_bytes > moved:
                    failures, moved = 0, job.moved_bytes
                failures += 1
                if failures > settings.retries:
                    raise
                self._watch.meter.retried()
                pause_s = _pause_s(error, failures)
                if isinstance(error, BackOffError):
                    with self._lock:
                        self._controller.refused()
            self._watch.sleep(pause_s)


def retrying(call: Callable[[], Outcome], watch: Watch) -> Outcome:
    """The answer to a small question, which is asked again as a part would be moved again."""
    for failures in itertools.count(1):
        watch.check()
        try:
            return call()
        except StorageUnavailableError as error:
            if failures > watch.settings.retries or isinstance(error, UntrustedServerError):
                raise
            watch.meter.retried()
            watch.sleep(_pause_s(error, failures))
    raise AssertionError  # the count does not end


def _pause_s(error: Exception, failures: int) -> float:
    """How long to wait after so many failures: longer each time, with jitter, and as the other side wishes."""
    ceiling = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(failures - 1, 30))
    wish = min(error.retry_after_s, _LONGEST_WISH_S) if isinstance(error, BackOffError) else 0.0
    return random.uniform(0.0, ceiling) + wish


def run_parts(
    parts: Iterable[Part],
    job: Callable[[Part], PartJob[Outcome]],
    claim: Callable[[Part, Outcome], None],
    *,
    done: Callable[[Part], None] = lambda part: None,
    watch: Watch,
    settings: TransferSettings,
    sequential: bool = False,
) -> None:
    """Moves all parts.

    ``claim`` is called for each by the thread that moved it, before that takes another; ``done`` by this thread, soon
    after.

    Raises the first error that does not pass within ``settings.retries`` tries, or what ends the transfer; all
    threads have ended then.
    """
    if sequential:
        controller = StreamController(most=1, streams=1)
    elif settings.streams is not None:
        controller = StreamController(most=settings.streams, streams=settings.streams)
    else:
        controller = StreamController(most=settings.most_streams)
    run = _Run(parts, job, claim, watch, controller)
    meter = watch.meter
    since, before, told = time.monotonic(), meter.moved_bytes, 0.0
    try:
        while run.left:
            run.spawn()
            meter.streams = controller.streams
            try:
                part, error = run.results.get(timeout=_TICK_S)
            except queue.Empty:
                watch.check()
            else:
                if error is not None:
                    raise error
                run.left -= 1
                meter.part_done()
                done(part)
            now = time.monotonic()
            if now - since >= _WINDOW_S and meter.moved_bytes > before:
                if not sequential and settings.streams is None:
                    controller.observe((meter.moved_bytes - before) / (now - since))
                since, before = now, meter.moved_bytes
            if settings.progress is not None and now - told >= _PROGRESS_S:
                settings.progress(meter.now())
                told = now
    except BaseException:
        watch.stop()
        raise
    finally:
        run.join()
