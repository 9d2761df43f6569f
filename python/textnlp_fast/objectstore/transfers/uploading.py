"""One file into one object, in parts that the provider keeps until all are there.

A first pass over the file makes its digest and a check of each part; the second sends, straight from the file. Where
the caller knows the digest, the first is only a few parts ahead of the second: `first_look.py`. The
provider holds what arrives against the check: a part that was written to meanwhile is refused, and ends the upload. An
object is never a mixture. After a kill the provider is asked which parts it has.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from textnlp_fast.errors import (
    CorruptDataError,
    DigestMismatchError,
    InvalidInputError,
    SourceChangedError,
    StorageUnavailableError,
    TextnlpFastError,
    TransferCancelledError,
)
from textnlp_fast.objectstore.transfers.engine import retrying, run_parts
from textnlp_fast.objectstore.transfers.first_look import LookAhead, check_digest, checked_digest, look_at
from textnlp_fast.objectstore.transfers.part_body import PartBody
from textnlp_fast.objectstore.transfers.progress import Meter
from textnlp_fast.objectstore.transfers.protocol import (
    Part,
    SourceState,
    UploadPlan,
    UploadTarget,
    plan_parts,
    whole_chunks,
)
from textnlp_fast.objectstore.transfers.settings import TransferSettings
from textnlp_fast.objectstore.transfers.upload_journal import FileState, UploadJournal, locked_journal
from textnlp_fast.objectstore.transfers.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from textnlp_fast.objectstore.transfers.watch import StreamWatch

__all__ = ["UploadReport", "upload_file"]

Outcome = TypeVar("Outcome")


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
    path: str | os.PathLike[str],
    target: UploadTarget,
    settings: TransferSettings | None = None,
    *,
    digest: str | None = None,
) -> UploadReport:
    """Makes the object of ``target`` out of a file, going on where an earlier run stopped.

    ``digest``: what the caller knows of the file (BLAKE3, hexadecimal digits). Sending begins at once then, and ends
    with ``DigestMismatchError``, and without an object, if the file has another.

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
            return _Upload(local, fd, target, settings, journal, checked_digest(digest)).run()
    finally:
        os.close(fd)


class _Upload:
    def __init__(
        self,
        local: Path,
        fd: int,
        target: UploadTarget,
        settings: TransferSettings,
        journal: Path,
        digest: str | None,
    ) -> None:
        self._local = local
        self._fd = fd
        self._target = target
        self._settings = settings
        self._journal = journal
        self._digest = digest
        self._ahead: LookAhead | None = None
        self._begun: UploadJournal | None = None
        self._file = FileState.of(local, os.fstat(fd))
        self._started = time.monotonic()
        self.target = target

    def run(self) -> UploadReport:
        size = self._file.size
        part_bytes = whole_chunks(self._target.part_bytes(size, self._settings.part_bytes))
        parts = plan_parts(size, part_bytes)
        meter = Meter(size, len(parts))
        watch = Watch(self._settings, meter)
        known, restarted = self._known(part_bytes, watch)
        if known is not None:
            plan = known.plan
        elif self._digest is not None and len(parts) > 1 and not self._target.needs_crc32c():
            plan = self._plan_ahead(self._digest, part_bytes, watch)
        else:
            plan = self._plan(part_bytes, watch)
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
            begun_at = time.time()
            upload_id = retrying(lambda: self._target.begin(plan), watch)
            # Of what is still to be looked at the journal knows no checks.
            noted = plan if self._ahead is None else replace(plan, crc32=[])
            known = UploadJournal(self._target.url, self._file, noted, upload_id, begun_at)
            known.write(self._journal)
            self._begun = known
        resumed = sum(there.values())
        whole = {part.number for part in parts if there.get(part.number) == part.length}
        meter.resumed(len(whole), resumed)
        upload_id = known.upload_id
        with self._ending(upload_id), ExitStack() as looking:
            if self._ahead is not None:
                looking.enter_context(self._ahead.running(watch))
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

    def _plan_ahead(self, digest: str, part_bytes: int, watch: Watch) -> UploadPlan:
        """A plan with the digest that the caller named, whose checks come while parts are sent."""

        def noted(found: UploadPlan) -> None:
            assert self._begun is not None  # parts are sent, and so looked at, once it has begun
            replace(self._begun, plan=replace(self._begun.plan, crc32=found.crc32)).write(self._journal)

        def look(seen: Callable[[int, int], None]) -> UploadPlan:
            return self._look(part_bytes, watch, seen)

        count = len(plan_parts(self._file.size, part_bytes))
        self._ahead = LookAhead(look, self._local, digest, count, noted)
        return UploadPlan(self._file.size, digest, part_bytes, self._ahead.crc32)

    def wait(self, part: Part, watch: Watch) -> None:
        """Waits until a part was looked at."""
        if self._ahead is not None:
            self._ahead.wait(part, watch)

    def _known(self, part_bytes: int, watch: Watch) -> tuple[UploadJournal | None, str | None]:
        """The journal of an earlier run if it is of this very file; else why not, and its upload is forgotten."""
        known = UploadJournal.read(self._journal)
        if known is None:
            return None, None
        if known.url == self._target.url and known.file == self._file and known.plan.part_bytes == part_bytes:
            if known.plan.parts and not known.plan.crc32:
                # The run that began it ended before it had looked at all of the file.
                known = self._looked_at(known, part_bytes, watch)
            check_digest(self._local, known.plan.digest, self._digest)
            return known, None
        why = "the file changed since" if known.file != self._file else "its parts had another size"
        if known.upload_id:
            self._target.abort(known.upload_id)
        self._journal.unlink(missing_ok=True)
        return None, why

    def _looked_at(self, known: UploadJournal, part_bytes: int, watch: Watch) -> UploadJournal:
        """The journal with all checks; without its upload, if that was begun under the digest of something else."""
        found = self._look(part_bytes, watch)
        if found.digest != known.plan.digest:
            self._forget(known.upload_id)
            return replace(known, plan=found, upload_id="")
        known = replace(known, plan=found)
        known.write(self._journal)
        return known

    def _plan(self, part_bytes: int, watch: Watch) -> UploadPlan:
        """What the first look says, which is at the whole file. ``DigestMismatchError`` if it is not the one named."""
        plan = self._look(part_bytes, watch)
        check_digest(self._local, plan.digest, self._digest)
        return plan

    def _look(
        self, part_bytes: int, watch: Watch, seen: Callable[[int, int], None] = lambda number, crc32: None
    ) -> UploadPlan:
        plan = look_at(
            self._fd,
            self._local,
            self._file.size,
            part_bytes,
            wants_crc32c=self._target.needs_crc32c(),
            watch=watch,
            seen=seen,
        )
        self._check_unchanged()
        return plan

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
        except (SourceChangedError, DigestMismatchError):
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
        self._upload.wait(self._part, self._watch)
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
