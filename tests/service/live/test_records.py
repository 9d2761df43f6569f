"""The state machine of jobs: whatever happens in whatever order, it keeps its promises, and can be stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textnlp_fast.errors import CorruptDataError, InvalidInputError
from textnlp_fast.service.jobs.places import Roots
from textnlp_fast.service.jobs.records import (
    MAX_FAILURES,
    Job,
    JobEndedError,
    JobTakenError,
    Problem,
    Standing,
    State,
    job_document,
    new_id,
    parse_job,
    repeatable_id,
    time_text,
)
from textnlp_fast.service.transfer_views import transfer_view


def new_job(**fields: object) -> Job:
    values: dict[str, object] = {
        "id": new_id(),
        "kind": "push",
        "request": {"kind": "push", "path": "/x", "grace_s": 0.5},
        "asked": "0" * 64,
        "by": "alice",
        "model": "org/m",
        "version": "1.0.0",
        "created_s": 1_700_000_000.25,
    }
    return Job(**{**values, **fields})  # type: ignore[arg-type]


_STEPS = st.sampled_from(["take", "stand", "done", "fail", "cancelled", "interrupt", "put off", "cancel"])


def after(step: str, job: Job, token: int, now: float) -> Job:
    """What one step makes of a job."""
    problem = Problem(code="X", detail="y")
    changes: dict[str, Callable[[], Job]] = {
        "take": lambda: job.taken(token=1, holder="h", now_s=now),
        "stand": lambda: job.stands(Standing(phase="push", done_bytes=1, total_bytes=2), token=token),
        "done": lambda: job.done({"n": 1}, token=token, now_s=now),
        "fail": lambda: job.failed(problem, token=token, now_s=now),
        "cancelled": lambda: job.cancelled(token=token, now_s=now),
        "interrupt": lambda: job.interrupted(token=token),
        "put off": lambda: job.put_off(problem, token=token, now_s=now),
        "cancel": lambda: job.told_to_stop(now_s=now),
    }
    return changes[step]()


def test_what_is_told_of_one_that_is_done_is_not_from_before_its_end() -> None:
    job = new_job().taken(token=1, holder="h", now_s=1_700_000_001.0)
    job = job.stands(Standing(phase="push", done_bytes=1, total_bytes=2), token=1)
    progress = transfer_view(job).progress
    assert progress is not None and (progress.done_bytes, progress.total_bytes) == (1, 2)
    assert transfer_view(replace(job, state=State.DONE)).progress is None


@given(st.lists(st.tuples(_STEPS, st.booleans()), max_size=40))
def test_whatever_happens(steps: list[tuple[str, bool]]) -> None:
    """A model of what must hold: who was taken over from has no say, ends are final, deaths are bounded."""
    job, now = new_job(), 1_700_000_001.0
    tokens: list[int] = [0]
    for step, late in steps:
        now += 1
        before = job
        token = tokens[-2] if late and len(tokens) > 1 else tokens[-1]
        try:
            job = after(step, before, token, now)
        except JobEndedError:
            assert before.state.ended
            continue
        except JobTakenError:
            assert step not in ("take", "cancel")
            assert before.state is not State.RUNNING or token != before.token
            continue
        assert not before.state.ended or job == before
        if step == "take" and job.state is State.RUNNING:
            assert job.token > max(tokens), "a token that was given before would let its old holder speak"
            assert not before.cancelling
            tokens.append(job.token)
        assert job.failures <= MAX_FAILURES + 1
        assert (job.ended_s is not None) == job.state.ended
        stored = parse_job(job_document(job), "it")
        assert stored == job


def test_a_job_whose_workers_die_is_given_up() -> None:
    job = new_job()
    for _ in range(MAX_FAILURES + 1):
        job = job.taken(token=1, holder="h", now_s=1.7e9)
        assert job.state is State.RUNNING
    job = job.taken(token=1, holder="h", now_s=1.7e9)
    assert job.state is State.FAILED
    assert job.problem is not None
    assert job.problem.code == "WorkerLost"


def test_a_service_that_was_stopped_on_purpose_is_no_failure() -> None:
    job = new_job()
    for _ in range(50):
        job = job.taken(token=1, holder="h", now_s=1.7e9)
        job = job.interrupted(token=job.token)
    assert job.failures == 0
    assert job.attempts == 50


def test_what_is_put_off_waits_longer_each_time() -> None:
    job, waits = new_job(), []
    while not job.state.ended:
        job = job.taken(token=1, holder="h", now_s=1.7e9)
        job = job.put_off(Problem(code="StorageUnavailable", detail="away"), token=job.token, now_s=1.7e9)
        waits.append(job.not_before_s - 1.7e9)
    assert waits[:-1] == [2.0, 4.0, 8.0, 16.0, 32.0]
    assert job.state is State.FAILED
    assert job.problem is not None
    assert job.problem.code == "StorageUnavailable"


def test_a_large_result_is_not_stored_whole() -> None:
    job = new_job().taken(token=1, holder="h", now_s=1.7e9)
    done = job.done({"lines": ["x" * 1000] * 1000}, token=job.token, now_s=1.7e9)
    assert done.result == {"truncated": True}
    assert len(job_document(done)) < 1 << 20


def test_errors_of_others_do_not_tell_what_they_say() -> None:
    assert "secret" not in Problem.of(RuntimeError("secret /etc/passwd")).detail
    told = Problem.of(InvalidInputError("no", hint="do"))
    assert (told.code, told.detail, told.hint) == ("InvalidInput", "no", "do")
    place = InvalidInputError("file:///srv/models has no /srv/models/x")
    assert Problem.of(place, hide="file:///srv/models").detail == "the repository has no the repository/x"
    beside = InvalidInputError("/srv/models-2/x is damaged")
    assert Problem.of(beside, hide="file:///srv/models").detail == "/srv/models-2/x is damaged"


def test_errors_name_places_as_the_request_does(tmp_path: Path) -> None:
    target, link = tmp_path / "real" / "disk7", tmp_path / "models"
    target.mkdir(parents=True)
    link.symlink_to(target)
    names = Roots.typed([f"{link}/step-1"])
    assert names == {str(target): str(link), f"{target}/step-1": f"{link}/step-1"}
    assert Roots.typed([str(target), f"{target}/x/", "/", "//"]) == {}
    error = InvalidInputError(f"{target}/step-1/model.safetensors is damaged; see {target}/.scratch")
    told = Problem.of(error, hide="file:///srv/models", typed=names).detail
    assert told == f"{link}/step-1/model.safetensors is damaged; see {link}/.scratch"


@given(st.binary(max_size=200), st.integers(0, 10_000))
def test_damage_is_told(noise: bytes, at: int) -> None:
    data = bytearray(job_document(new_job()))
    at %= len(data)
    damaged = bytes(data[:at] + noise + data[at + len(noise) :])
    try:
        found = parse_job(damaged, "it")
    except CorruptDataError:
        return
    assert found == parse_job(bytes(data), "it")


def test_fields_of_other_types_are_told() -> None:
    from textnlp_fast.contents.documents import parse_document, seal_document  # noqa: PLC0415

    whole = parse_document(job_document(new_job()), "it")
    wrong = {
        "id": "../x", "kind": "shell", "request": "[]", "state": "gone", "token": -1, "attempts": 1.5, "by": None,
        "standing": [1, 2, 3, 4], "problem": ["a"], "result": 3, "created_ms": "now", "cancelling": 0,
    }  # fmt: skip
    for key, value in wrong.items():
        with pytest.raises(CorruptDataError):
            parse_job(seal_document({**whole, key: value}), "it")
        with pytest.raises(CorruptDataError):
            parse_job(seal_document({name: kept for name, kept in whole.items() if name != key}), "it")


def test_ids_of_keys_are_apart() -> None:
    ids = {repeatable_id(subject, key) for subject in ("a", "a,b", '"') for key in ("k", "b,k", "")}
    assert len(ids) == 9
    assert repeatable_id("a", "k") == repeatable_id("a", "k")


def test_times() -> None:
    assert time_text(0) == "1970-01-01T00:00:00.000Z"
    assert replace(new_job(), created_s=1.5).created_s == 1.5
