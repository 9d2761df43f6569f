"""What listeners hear of operations."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from textnlp_fast.telemetry import Operation, adopting, count, listen, operation, phase


class Ear:
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.operations: list[Operation] = []
        self.phases: list[tuple[str, str]] = []
        self.stray: list[dict[str, int]] = []

    def began(self, operation: Operation) -> None:
        self.begun.append(operation.name)

    def ended(self, operation: Operation) -> None:
        self.operations.append(operation)

    def phase_ended(self, operation: Operation, name: str, started_ns: int, seconds: float) -> None:
        assert started_ns >= operation.started_ns
        assert seconds >= 0
        self.phases.append((operation.name, name))

    def counted(self, counts: dict[str, int]) -> None:
        self.stray.append(counts)


@pytest.fixture
def ear() -> Iterator[Ear]:
    ear = Ear()
    stop = listen(ear)
    yield ear
    stop()


def test_an_operation_tells_what_it_counted_and_how_it_ended(ear: Ear) -> None:
    with operation("push", model="m", version="1.0.0", repository="file:///r") as op, phase("hash"):
        op.count(bytes_saved=3)
        count(bytes_read=4, retries=1)
        count(bytes_read=5)
    (heard,) = ear.operations
    assert (heard.name, heard.model, heard.version, heard.repository) == ("push", "m", "1.0.0", "file:///r")
    assert heard.counts == {"bytes_saved": 3, "bytes_read": 9, "retries": 1}
    assert heard.outcome == "ok"
    assert heard.seconds > 0
    assert ear.phases == [("push", "hash")]


def test_an_error_passes_and_is_told(ear: Ear) -> None:
    with pytest.raises(KeyError), operation("pull"), phase("decode"):
        raise KeyError("x")
    assert ear.operations[0].outcome == "KeyError"
    assert ear.phases == [("pull", "decode")]


def test_the_innermost_operation_counts(ear: Ear) -> None:
    with operation("publish") as outer:
        with operation("push") as inner:
            count(versions=1)
        count(retries=1)
    assert inner.parent is outer
    assert inner.counts == {"versions": 1}
    assert outer.counts == {"retries": 1}
    assert ear.begun == ["publish", "push"]


def test_threads_of_a_pool_count_for_whoever_made_it(ear: Ear) -> None:
    with operation("pull"), ThreadPoolExecutor(4, initializer=adopting()) as pool:
        list(pool.map(lambda _: count(bytes_read=1), range(1000)))
    assert ear.operations[0].counts == {"bytes_read": 1000}


def test_what_no_operation_counts_is_heard_too(ear: Ear) -> None:
    count(retries=2)
    assert ear.stray == [{"retries": 2}]


def test_a_count_of_another_name_is_a_mistake(ear: Ear) -> None:
    with operation("push") as op, pytest.raises(TypeError, match="bytes_read"):
        op.count(bites_read=1)


def test_nobody_is_told_while_nobody_listens() -> None:
    ear = Ear()
    with operation("push") as op:
        op.count(bytes_read=1)
        count(bytes_read=1)
        stop = listen(ear)  # too late for this one
        count(bytes_read=1)
    stop()
    assert ear.operations == []
    assert op.counts == {}


def test_a_listener_that_fails_harms_nothing(ear: Ear, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Ear):
        def ended(self, operation: Operation) -> None:
            raise RuntimeError("no room for metrics")

    stop = listen(Broken())
    with operation("push"):
        pass
    stop()
    assert ear.operations[0].outcome == "ok"
    assert "no room for metrics" in caplog.text
