"""Jobs in one process and in two over one repository: each is done once, ends as it should, and gives way to leases."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from textnlp_fast.errors import ObjectNotFoundError, StorageUnavailableError
from textnlp_fast.objectstore.lease import acquire
from textnlp_fast.service.jobs import Job, JobBook, JobRunner, Roots, State, TooManyJobsError, Work
from textnlp_fast.service.jobs.attempt import Attempt, WorkStoppedError
from textnlp_fast.service.jobs.book import lease_key
from textnlp_fast.service.jobs.pruning import Pruner
from textnlp_fast.service.jobs.records import new_id
from textnlp_fast.service.jobs.work import JOB_KEY
from textnlp_fast.storage import Repository, TransferOptions
from textnlp_fast.storage.audit import Filter, log_of, newest

WAIT_S = 120.0


def job_of(work: Work, request: dict[str, Any], job_id: str | None = None) -> Job:
    request, model, version = work.prepared(request)
    return Job(
        id=job_id or new_id(),
        kind=request["kind"],
        request=request,
        asked="0" * 64,
        by="alice",
        model=model,
        version=version,
        created_s=time.time(),
    )


def push(path: Path, version: str = "1.0.0", model: str = "m") -> dict[str, Any]:
    return {
        "kind": "push", "path": str(path), "model": model, "version": version, "parent": "auto",
        "base_path": None, "message": "", "metadata": {},
    }  # fmt: skip


def collect(**more: Any) -> dict[str, Any]:
    return {
        "kind": "collect", "delete": True, "rebase": False, "grace_s": 0.0, "models": "*", "keep_last": None,
        "keep_stages": [], "older_than_s": None, "versions": [], **more,
    }  # fmt: skip


class Place:
    """A repository with a root beside it, and as many runners over it as a test wants."""

    def __init__(self, repository: Repository, tmp_path: Path, options: TransferOptions) -> None:
        self.repository = repository
        self.root = tmp_path / "root"
        self.root.mkdir()
        self.book = JobBook(repository.store)
        self.work = Work(repository.store, Roots([self.root], repository.store), options)
        self.runners: list[JobRunner] = []

    def runner(self, work: Work | None = None, **more: Any) -> JobRunner:
        settings: dict[str, Any] = {"poll_s": 0.05, "lease_s": 2.0, **more}
        runner = JobRunner(JobBook(self.repository.store), work or self.work, **settings)
        self.runners.append(runner)
        runner.start()
        return runner

    def wait(self, job_id: str, until: Callable[[Job], bool] = lambda job: job.state.ended) -> Job:
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            job = self.book.load(job_id)
            if until(job):
                return job
            time.sleep(0.02)
        raise AssertionError(f"still {self.book.load(job_id)}")


@pytest.fixture
def place(repository: Repository, tmp_path: Path, options: TransferOptions) -> Iterator[Place]:
    place = Place(repository, tmp_path, options)
    yield place
    for runner in place.runners:
        runner.stop()


class Held(Work):
    """Work that waits at its first step until it is let go."""

    begun: threading.Event
    go: threading.Event

    @classmethod
    def of(cls, work: Work) -> Held:
        held = cls(work.store, work.roots, work.options)
        object.__setattr__(held, "begun", threading.Event())
        object.__setattr__(held, "go", threading.Event())
        return held

    def carry_out(self, job: Job, attempt: Attempt) -> dict[str, Any]:
        self.begun.set()
        while not self.go.wait(0.02):
            attempt.check()
        return super().carry_out(job, attempt)


def test_every_kind(place: Place, write_model: Any, tree: Any) -> None:
    runner = place.runner()
    one, two = write_model(place.root / "one", 1), write_model(place.root / "two", 2)

    def done(request: dict[str, Any]) -> dict[str, Any]:
        job = place.wait(runner.submit(job_of(place.work, request))[0].id)
        assert job.state is State.DONE, job.problem
        assert job.result is not None
        return dict(job.result)

    plan = done({**push(one), "kind": "dry_run"})
    assert plan["raw_bytes"] == sum(map(len, tree(one).values()))
    assert "m" not in place.repository.models()
    assert done(push(one))["already_there"] is False
    done(push(two, "1.1.0"))
    assert place.repository.manifest("m", "1.1.0").metadata[JOB_KEY]
    pushes = newest(log_of(place.repository.store), Filter(action="push"), 10)
    assert [one.actor for one in pushes] == [{"name": "alice"}] * 2
    pulled = done({"kind": "pull", "model": "m", "version": None, "path": str(place.root / "out")})
    assert pulled["version"] == "1.1.0"
    assert tree(place.root / "out") == tree(two)
    verified = done({"kind": "verify", "model": None, "version": None, "deep": True})
    assert (verified["ok"], verified["versions"], verified["unreferenced"]) == (True, 2, 0)
    delta = {"kind": "delta", "model": "m", "from_version": "1.0.0", "to_version": "1.1.0"}
    patch = done({**delta, "path": str(place.root / "x.tnpatch")})
    assert patch["patch_bytes"] == (place.root / "x.tnpatch").stat().st_size
    assert not list(place.root.glob(".textnlp-fast*")), "scratch is left"
    from textnlp_fast.delta import apply_patch  # noqa: PLC0415

    apply_patch(place.root / "x.tnpatch", one, place.root / "applied")
    assert tree(place.root / "applied") == tree(two)
    gone = done(collect(versions=["m@1.0.0"], delete=False))
    assert gone["going"] == ["m@1.0.0"]
    assert sorted(place.repository.models()["m"]) == ["1.0.0", "1.1.0"]


def test_collections_and_listings_leave_jobs_alone(place: Place, write_model: Any) -> None:
    runner = place.runner()
    ids = [
        runner.submit(job_of(place.work, push(write_model(place.root / "one", 1))))[0].id,
        runner.submit(job_of(place.work, push(place.root / "one", "1.1.0")))[0].id,
    ]
    for job_id in ids:
        assert place.wait(job_id).state is State.DONE
    for _ in range(2):  # condemned, then swept
        job = place.wait(runner.submit(job_of(place.work, collect(versions=["m@1.0.0"][: 1 - _])))[0].id)
        assert job.state is State.DONE, job.problem
        ids.append(job.id)
    assert {job.id for job in runner.jobs()} == set(ids)
    assert place.repository.models() == {"m": ["1.1.0"]}
    report = place.repository.verify()
    assert report.ok
    assert report.unreferenced == []


def test_two_runners_share_and_neither_repeats(place: Place, write_model: Any) -> None:
    counts: dict[str, int] = {}
    lock = threading.Lock()

    class Counted(Work):
        def carry_out(self, job: Job, attempt: Attempt) -> dict[str, Any]:
            with lock:
                counts[job.id] = counts.get(job.id, 0) + 1
            return super().carry_out(job, attempt)

    counted = Counted(place.work.store, place.work.roots, place.work.options)
    write_model(place.root / "one", 1)
    runners = [place.runner(counted), place.runner(counted)]
    jobs = [
        runners[number % 2].submit(job_of(place.work, push(place.root / "one", f"1.{number}.0")))[0]
        for number in range(12)
    ]
    ended = [place.wait(job.id) for job in jobs]
    assert {job.state for job in ended} == {State.DONE}
    assert counts == {job.id: 1 for job in jobs}
    assert len(place.repository.models()["m"]) == 12


def test_a_replica_leaves_what_it_may_not_touch_to_others(
    place: Place, write_model: Any, tmp_path: Path
) -> None:
    write_model(place.root / "one", 1)
    (tmp_path / "elsewhere").mkdir()
    store = place.repository.store
    stranger = place.runner(Work(store, Roots([tmp_path / "elsewhere"], store), place.work.options))
    job, _ = stranger.submit(job_of(place.work, push(place.root / "one")))
    time.sleep(1.0)
    assert place.book.load(job.id).state is State.QUEUED
    place.runner()
    assert place.wait(job.id).state is State.DONE


def test_a_dead_workers_job_is_taken_over(place: Place, write_model: Any) -> None:
    """Somebody took the job and the lease, and is never heard of again."""
    write_model(place.root / "one", 1)
    job, _ = place.book.create(job_of(place.work, push(place.root / "one")))
    lease = acquire(place.book.store, lease_key(job.id), holder="dead", seconds=1.0)
    place.book.update(job.id, lambda one: one.taken(token=lease.token, holder="dead", now_s=time.time()))
    place.runner(lease_s=1.0)
    ended = place.wait(job.id)
    assert ended.state is State.DONE
    assert (ended.attempts, ended.failures) == (2, 1)
    assert ended.token > lease.token


def test_a_living_worker_keeps_its_job(place: Place, write_model: Any) -> None:
    held = Held.of(place.work)
    write_model(place.root / "one", 1)
    first = place.runner(held, lease_s=1.0, workers=1)
    job, _ = first.submit(job_of(place.work, push(place.root / "one")))
    assert held.begun.wait(WAIT_S)
    place.runner(lease_s=1.0, workers=1)
    time.sleep(4.0)  # several times the lease: nothing shows that it lives but its renewals
    now = place.book.load(job.id)
    assert (now.state, now.attempts, now.holder) == (State.RUNNING, 1, first.holder)
    held.go.set()
    assert place.wait(job.id).attempts == 1


def test_a_lost_lease_stops_before_publication(place: Place, write_model: Any) -> None:
    """Its lease is taken away while it works: it publishes nothing, and has no say in what became of the job."""
    held = Held.of(place.work)
    write_model(place.root / "one", 1)
    runner = place.runner(held, lease_s=60.0, workers=1)
    job, _ = runner.submit(job_of(place.work, push(place.root / "one")))
    assert held.begun.wait(WAIT_S)
    place.wait(job.id, lambda one: one.state is State.RUNNING)
    taker = place.book.update(job.id, lambda one: one.taken(token=99, holder="other", now_s=time.time()))
    runner._attempts[job.id].lose()
    held.go.set()
    deadline = time.monotonic() + WAIT_S
    while runner._attempts and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not runner._attempts
    assert place.book.load(job.id).token == taker.token
    assert place.book.load(job.id).holder == "other"
    assert place.repository.models() == {}


def test_the_guard_stops_every_write(place: Place, write_model: Any) -> None:
    """A lease that runs out in the middle of a push, at each of its writes in turn: nothing follows."""
    place.repository.push(write_model(place.root / "first", 0), "first", "1.0.0")
    allowed = 0
    while True:
        model, left = write_model(place.root / f"{allowed}", allowed + 1), allowed

        def check() -> None:
            nonlocal left
            if not left:
                raise WorkStoppedError("lost")
            left -= 1

        store = place.repository.store.guarded(check)
        try:
            Repository(store, place.work.options).push(model, f"part-{allowed}", "1.0.0")
        except StorageUnavailableError:
            assert f"part-{allowed}" not in place.repository.models()
            assert left == 0
        else:
            break
        allowed += 1
    # Shards, the audit log, the intent and the manifest; to take the intent back comes after the publication.
    assert allowed >= 4
    assert set(place.repository.models()) == {"first", f"part-{allowed}"}


def test_published_and_killed_before_that_was_written_down(place: Place, write_model: Any) -> None:
    """The folder has changed since: a second push would fail, and the job had come off."""
    model = write_model(place.root / "one", 1)
    job, _ = place.book.create(job_of(place.work, push(model)))
    place.book.update(job.id, lambda one: one.taken(token=1, holder="dead", now_s=time.time()))
    place.repository.push(model, "m", "1.0.0", metadata={JOB_KEY: job.id})
    write_model(model, 2)
    place.book.update(job.id, lambda one: one.told_to_stop(now_s=time.time()))  # too late
    place.runner()
    ended = place.wait(job.id)
    assert ended.state is State.DONE, ended.problem
    assert ended.result is not None
    assert ended.result["version"] == "1.0.0"


def test_cancel(place: Place, write_model: Any) -> None:
    held = Held.of(place.work)
    write_model(place.root / "one", 1)
    runner = place.runner(held, workers=1)
    first, _ = runner.submit(job_of(place.work, push(place.root / "one")))
    assert held.begun.wait(WAIT_S)
    second, _ = runner.submit(job_of(place.work, push(place.root / "one", "2.0.0")))
    assert runner.cancel(second.id).state is State.CANCELLED
    other = place.runner(workers=0)  # a replica that does not run it
    assert other.cancel(first.id).cancelling
    assert place.wait(first.id).state is State.CANCELLED
    assert runner.cancel(first.id).state is State.CANCELLED
    assert place.repository.models() == {}
    with pytest.raises(ObjectNotFoundError):
        runner.cancel(new_id())
    with pytest.raises(ObjectNotFoundError):
        runner.cancel("../../repository")


def test_a_service_that_ends_gives_its_jobs_back(place: Place, write_model: Any) -> None:
    held = Held.of(place.work)
    write_model(place.root / "one", 1)
    first = place.runner(held, lease_s=600.0)
    job, _ = first.submit(job_of(place.work, push(place.root / "one")))
    assert held.begun.wait(WAIT_S)
    first.stop()
    assert place.book.load(job.id).state is State.INTERRUPTED
    place.runner(lease_s=600.0)  # takes it up at once, without waiting for the lease
    ended = place.wait(job.id)
    assert (ended.state, ended.attempts, ended.failures) == (State.DONE, 2, 0)


def test_failures_and_stores_that_go_away(place: Place, write_model: Any) -> None:
    away = 2

    class Flaky(Work):
        def carry_out(self, job: Job, attempt: Attempt) -> dict[str, Any]:
            nonlocal away
            if away:
                away -= 1
                raise StorageUnavailableError("the store went away")
            return super().carry_out(job, attempt)

    write_model(place.root / "one", 1)
    runner = place.runner(Flaky(place.work.store, place.work.roots, place.work.options))
    job, _ = runner.submit(job_of(place.work, push(place.root / "one")))
    ended = place.wait(job.id)
    assert (ended.state, ended.attempts, ended.failures) == (State.DONE, 3, 2)
    write_model(place.root / "other", 2)
    failed = place.wait(runner.submit(job_of(place.work, push(place.root / "other")))[0].id)
    assert failed.state is State.FAILED
    assert failed.problem is not None
    assert failed.problem.code == "VersionExists"


def test_progress_is_told(place: Place, write_model: Any) -> None:
    told: list[Job] = []
    runner = place.runner(told=told.append)
    write_model(place.root / "one", 1, rows=512)
    job, _ = runner.submit(job_of(place.work, push(place.root / "one")))
    place.wait(job.id)
    deadline = time.monotonic() + WAIT_S
    while not any(one.state.ended for one in told) and time.monotonic() < deadline:
        time.sleep(0.01)
    states = [str(one.state) for one in told if one.id == job.id]
    assert states[0] == "queued"
    assert states[-1] == "done"
    phases = {one.standing.phase for one in told if one.standing is not None}
    assert {"hash", "push"} <= phases
    assert all(
        one.standing.done_bytes <= one.standing.total_bytes for one in told if one.standing is not None
    )


def test_limits_and_forgetting(place: Place, write_model: Any) -> None:
    write_model(place.root / "one", 1)
    idle = place.runner(workers=0, most_waiting=3)
    for number in range(3):
        idle.submit(job_of(place.work, push(place.root / "one", f"1.{number}.0")))
    with pytest.raises(TooManyJobsError):
        idle.submit(job_of(place.work, push(place.root / "one", "2.0.0")))
    for job in idle.jobs():
        idle.cancel(job.id)
    now = time.time()
    pruner = Pruner(place.book, holder="x", keep=2, pause_s=0.0, now=lambda: now)
    assert pruner.prune(place.book.scan()) == 1
    assert len(place.book.scan().jobs) == 2
    later = Pruner(place.book, holder="x", keep_s=60.0, pause_s=0.0, now=lambda: now + 3600)
    assert later.prune(place.book.scan()) == 2
    assert place.book.scan().leases == {}


def test_a_record_that_cannot_be_read_stops_nothing(place: Place, write_model: Any) -> None:
    store = place.repository.store
    store.put_object(f"jobs/{new_id()}.json", b"{}")
    store.put_object("jobs/notes.txt", b"hello")
    store.put_object(f"jobs/{new_id()}.lease", b"no lease")
    runner = place.runner()
    write_model(place.root / "one", 1)
    assert place.wait(runner.submit(job_of(place.work, push(place.root / "one")))[0].id).state is State.DONE
