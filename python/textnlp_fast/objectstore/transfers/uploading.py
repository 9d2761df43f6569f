"""One file into one object, in parts that the provider keeps until all are there.

A first pass over the file makes its digest and a check of each part; the second sends, straight from the file. The
provider holds what arrives against the check: a part that was written to meanwhile is refused, and ends the upload. An
object is never a mixture. After a kill the provider is asked which parts it has.
"""

from __future__ import annotations

import importlib
import os
import stat
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from textnlp_fast.errors import (
    CorruptDataError,
    InvalidInputError,
    SourceChangedError,
    StorageUnavailableError,
    TextnlpFastError,
    TransferCancelledError,
)
from textnlp_fast.hashing import Blake3
from textnlp_fast.objectstore.transfers.engine import retrying, run_parts
from textnlp_fast.objectstore.transfers.part_body import PartBody
from textnlp_fast.objectstore.transfers.progress import Meter
from textnlp_fast.objectstore.transfers.protocol import (
    Part,
    PartsDigest,
    SourceState,
    UploadPlan,
    UploadTarget,
    plan_parts,
)
from textnlp_fast.objectstore.transfers.settings import TransferSettings
from textnlp_fast.objectstore.transfers.upload_journal import FileState, UploadJournal, locked_journal
from textnlp_fast.objectstore.transfers.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from textnlp_fast.objectstore.transfers.watch import StreamWatch

__all__ = ["UploadReport", "upload_file"]

Outcome = TypeVar("Outcome")

_PIECE_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class UploadReport:
    """What an upload did. Sizes in bytes; ``moved_bytes`` went over the network in this run, ``resumed_bytes`` the
    provider had from an earlier one. ``identity`` is the new object's ETag or generation. ``restarted`` says why an
    unfinished upload was not gone on with, where there was one."""

    url: str
    path: str
    size: int
    moved_bytes: int
    resumed_bytes: int
    digest: str
    identity: str
    restarted: str | None
    retries: int
    seconds: float


def upload_file(
    path: str | os.PathLike[str], target: UploadTarget, settings: TransferSettings | None = None
) -> UploadReport:
    """Makes the object of ``target`` out of a file, going on where an earlier run stopped.

    Raises ``InvalidInputError`` for what is no readable file, ``SourceChangedError`` if it was written to meanwhile
    (the unfinished upload is removed then), ``TransferCancelledError``, ``TransferTimeoutError``,
    ``StorageUnavailableError``, ``AuthenticationError`` and ``ConflictError`` if another process uploads the same; the
    object is then as it was.
    """
    settings = settings or TransferSettings()
    local = Path(path).expanduser().absolute()
    try:
        fd = os.open(local, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO keeps nobody waiting
    except OSError as error:
        raise InvalidInputError(f"cannot read {local}: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise InvalidInputError(f"{local} is no file", hint="Give the name of one file.")
        with locked_journal(settings.uploads_folder, local, target.url) as journal:
            return _Upload(local, fd, target, settings, journal).run()
    finally:
        os.close(fd)


class _Upload:
    def __init__(
        self, local: Path, fd: int, target: UploadTarget, settings: TransferSettings, journal: Path
    ) -> None:
        self._local = local
        self._fd = fd
        self._target = target
        self._settings = settings
        self._journal = journal
        self._file = FileState.of(local, os.fstat(fd))
        self._started = time.monotonic()
        self.target = target

    def run(self) -> UploadReport:
        size = self._file.size
        part_bytes = self._target.part_bytes(size, self._settings.part_bytes)
        parts = plan_parts(size, part_bytes)
        meter = Meter(size, len(parts))
        watch = Watch(self._settings, meter)
        known, restarted = self._known(part_bytes)
        plan = known.plan if known is not None else self._plan(part_bytes, watch)
        if len(parts) <= 1:
            return self._put_whole(plan, meter, watch)
        there: dict[int, int] = {}
        if known is not None and known.upload_id:
            asked = known.upload_id
            found = retrying(
                lambda: self._target.present(asked, plan, lambda part: self._body(plan, part)), watch
            )
            if found is None:
                restarted, known = "the provider no longer knows the unfinished upload", None
            else:
                there = dict(found)
        if known is None or not known.upload_id:
            known = UploadJournal(self._target.url, self._file, plan, "", time.time())
            known = UploadJournal(
                known.url,
                known.file,
                known.plan,
                retrying(lambda: self._target.begin(plan), watch),
                known.begun_at,
            )
            known.write(self._journal)
        resumed = sum(there.values())
        whole = {part.number for part in parts if there.get(part.number) == part.length}
        meter.resumed(len(whole), resumed)
        upload_id = known.upload_id
        with self._ending(upload_id):
            run_parts(
                [part for part in parts if part.number not in whole],
                lambda part: _PartUpload(self, upload_id, plan, part, watch),
                lambda part, outcome: None,
                watch=watch,
                settings=self._settings,
                sequential=self._target.sequential,
            )
            self._check_unchanged()
            state = retrying(lambda: self._target.complete(upload_id, plan), watch)
        self._journal.unlink(missing_ok=True)
        return self._report(plan, state, meter, resumed, restarted)

    def _report(
        self, plan: UploadPlan, state: SourceState, meter: Meter, resumed: int, restarted: str | None
    ) -> UploadReport:
        if self._settings.progress is not None:
            self._settings.progress(meter.now())
        return UploadReport(
            self._target.url,
            str(self._local),
            plan.size,
            meter.moved_bytes,
            resumed,
            plan.digest,
            state.identity,
            restarted,
            meter.retries,
            time.monotonic() - self._started,
        )

    def _put_whole(self, plan: UploadPlan, meter: Meter, watch: Watch) -> UploadReport:
        made: list[SourceState] = []
        part = Part(0, 0, plan.size)
        run_parts(
            [part],
            lambda part: _WholeUpload(self, plan, part, watch),
            lambda part, state: made.append(state),
            watch=watch,
            settings=self._settings,
            sequential=True,
        )
        return self._report(plan, made[0], meter, 0, None)

    def _known(self, part_bytes: int) -> tuple[UploadJournal | None, str | None]:
        """The journal of an earlier run if it is of this very file; else why not, and its upload is forgotten."""
        known = UploadJournal.read(self._journal)
        if known is None:
            return None, None
        if known.url == self._target.url and known.file == self._file and known.plan.part_bytes == part_bytes:
            return known, None
        why = "the file changed since" if known.file != self._file else "its parts had another size"
        if known.upload_id:
            self._target.abort(known.upload_id)
        self._journal.unlink(missing_ok=True)
        return None, why

    def _plan(self, part_bytes: int, watch: Watch) -> UploadPlan:
        """The first pass: digest of the whole on all processors, checks of parts beside it, one piece read ahead."""
        hasher = Blake3()
        whole = PartBody(self._fd, self._local, Part(0, 0, self._file.size), 0)
        parts = plan_parts(self._file.size, part_bytes)
        pieces = [
            (part.number, part.offset + begin, min(_PIECE_BYTES, part.length - begin))
            for part in parts
            for begin in range(0, part.length, _PIECE_BYTES)
        ]
        crc32, crc32c = [0] * len(parts), 0
        hashers = [Blake3() for _ in parts]
        wants_crc32c = self._target.needs_crc32c()
        buffers = [memoryview(bytearray(_PIECE_BYTES)) for _ in range(2)]

        def fill(number: int) -> None:
            _, offset, length = pieces[number]
            whole.read_into(offset, buffers[number % 2][:length])

        with ThreadPoolExecutor(4, thread_name_prefix="textnlp-fast-check") as pool:
            following = pool.submit(fill, 0) if pieces else None
            for number, (part_number, _, length) in enumerate(pieces):
                watch.check()
                assert following is not None
                following.result()
                if number + 1 < len(pieces):
                    following = pool.submit(fill, number + 1)
                view = buffers[number % 2][:length]
                first = pool.submit(zlib.crc32, view, crc32[part_number])
                second = pool.submit(_crc32c, crc32c, view) if wants_crc32c else None
                third = pool.submit(hashers[part_number].update, view, threads=1)
                hasher.update(view)
                third.result()
                crc32[part_number] = first.result()
                crc32c = 0 if second is None else second.result()
        self._check_unchanged()
        return UploadPlan(
            self._file.size,
            hasher.hexdigest(),
            part_bytes,
            crc32,
            crc32c if wants_crc32c else None,
            PartsDigest.of(part_bytes, (each.digest() for each in hashers)).digest,
        )

    def send(
        self, plan: UploadPlan, part: Part, watch: Watch, how: Callable[[PartBody, StreamWatch], Outcome]
    ) -> Outcome:
        """Sends a part. One that was refused because the file changed ends the upload."""
        body, stream = self._body(plan, part), watch.stream()
        try:
            return how(body, stream)
        except BaseException as error:
            stream.take_back()
            if isinstance(error, StorageUnavailableError | CorruptDataError | InvalidInputError):
                body.check()
                self._check_unchanged()
            raise

    def _body(self, plan: UploadPlan, part: Part) -> PartBody:
        return PartBody(self._fd, self._local, part, plan.crc32[part.number] if plan.crc32 else 0)

    def _check_unchanged(self) -> None:
        if FileState.of(self._local, os.fstat(self._fd)) != self._file:
            raise SourceChangedError(f"{self._local} was written to while it was sent")

    @contextmanager
    def _ending(self, upload_id: str) -> Iterator[None]:
        """Forgets the upload where nobody can or wants to go on with it; keeps it otherwise."""
        try:
            yield
        except SourceChangedError:
            self._forget(upload_id)
            raise
        except (TransferCancelledError, KeyboardInterrupt) as error:
            if self._settings.on_cancel == "discard":
                self._forget(upload_id)
            elif isinstance(error, TransferCancelledError):
                error.kept = True
                error.hint = "Run the transfer again: it goes on where it stood."
            raise

    def _forget(self, upload_id: str) -> None:
        with suppress(
            TextnlpFastError
        ):  # the first error is the one to report; `find_uploads` finds what is left
            self._target.abort(upload_id)
        self._journal.unlink(missing_ok=True)


class _PartUpload:
    """One part: read, checked against the first pass, sent."""

    moved_bytes = 0

    def __init__(self, upload: _Upload, upload_id: str, plan: UploadPlan, part: Part, watch: Watch) -> None:
        self._upload = upload
        self._upload_id = upload_id
        self._plan = plan
        self._part = part
        self._watch = watch

    def run(self) -> None:
        self._upload.send(self._plan, self._part, self._watch, self._put)

    def _put(self, body: PartBody, stream: StreamWatch) -> None:
        self._upload.target.put(self._upload_id, self._plan, self._part, body, stream)


class _WholeUpload:
    """A file that is one part."""

    moved_bytes = 0

    def __init__(self, upload: _Upload, plan: UploadPlan, part: Part, watch: Watch) -> None:
        self._upload = upload
        self._plan = plan
        self._part = part
        self._watch = watch

    def run(self) -> SourceState:
        return self._upload.send(self._plan, self._part, self._watch, self._put)

    def _put(self, body: PartBody, stream: StreamWatch) -> SourceState:
        return self._upload.target.put_whole(self._plan, body, stream)


def _crc32c(before: int, data: memoryview) -> int:
    google_crc32c = cast("Any", importlib.import_module("google_crc32c"))  # comes with Google's client
    return int(google_crc32c.extend(before, bytes(data)))
