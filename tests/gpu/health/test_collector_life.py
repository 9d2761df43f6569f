"""Threads of the collector: hung drivers, ends, forks, many of them, and what they cost."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes.nvml.mock import NVML_ERROR_DRIVER_NOT_LOADED, NVML_ERROR_GPU_IS_LOST, NVML_ERROR_UNKNOWN, MockNvml
from textnlp_fast.errors import DeviceError, InvalidInputError
from textnlp_fast.gpu.health.collector import Collector, threads_left_behind
from textnlp_fast.gpu.health.facts import Event

Collect = Callable[..., Collector]


def until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)


def events_until(collector: Collector, count: int, kind: str) -> list[Event]:
    found: list[Event] = []
    end = time.monotonic() + 30
    while len(found) < count and time.monotonic() < end:
        found += [event for event in collector.events(timeout_s=0.5) if event.kind == kind]
    return found


def threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_it_reads_by_itself(nvml: MockNvml, collect: Collect) -> None:
    collector = collect(period_s=0.02)
    until(lambda: collector.state().rounds > 5)
    nvml[7].temperature = 66
    until(lambda: collector.readings()[7].temperature_c == 66)


def test_slow_facts_are_asked_for_rarely_and_after_an_xid(nvml: MockNvml, collect: Collect) -> None:
    collector = collect(period_s=0.02, slow_period_s=3600)
    until(lambda: collector.state().rounds > 10)
    assert nvml.called("nvmlDeviceGetTotalEccErrors") == 2 * 8
    assert nvml.called("nvmlDeviceGetPowerUsage") >= 8 * 10
    nvml[5].ecc_uncorrected = 3
    until(lambda: nvml.called("nvmlEventSetWait") > 0)
    nvml.xid(5, 48)
    until(lambda: collector.readings()[5].ecc_uncorrected == 3)
    assert nvml.called("nvmlDeviceGetTotalEccErrors") == 2 * 9


def test_what_is_not_supported_is_not_asked_for_each_time(nvml: MockNvml, collect: Collect) -> None:
    nvml[0].fail("nvmlDeviceGetPowerUsage", 3)
    for gpu in range(1, 8):
        nvml[gpu].present = 0
    collector = collect(period_s=0.02)
    until(lambda: collector.state().rounds > 10)
    assert nvml.called("nvmlDeviceGetPowerUsage") == 1
    nvml[0].fail("nvmlDeviceGetPowerUsage", 0)
    assert collector.sample()[0].power_w == pytest.approx(71.2)  # unless everything is asked for


def test_several_gpus_hang_and_come_back(nvml: MockNvml, collect: Collect) -> None:
    """Three are given up for lost at a time; the fourth holds its thread, and all come back."""
    collector = collect(deadline_s=0.2, period_s=0.05)
    collector.sample()
    before = collector.state().threads
    for gpu in (1, 3, 5, 6):
        nvml[gpu].hang("nvmlDeviceGetPowerUsage")
    hung = events_until(collector, 4, "driver-hung")
    assert {event.gpu for event in hung} == {nvml[gpu].uuid.decode() for gpu in (1, 3, 5, 6)}
    time.sleep(1)
    assert collector.state().threads <= before + 3
    readings = collector.readings()
    assert [reading.error is None for reading in readings[:1]] == [True]
    assert all(reading.power_w is None for reading in readings if reading.index in (1, 3, 5, 6))
    for gpu in (1, 3, 5, 6):
        nvml[gpu].answer("nvmlDeviceGetPowerUsage")
    answered = events_until(collector, 4, "driver-answers")
    assert {event.gpu for event in answered} == {event.gpu for event in hung}
    until(lambda: collector.state().threads == before)
    until(lambda: all(reading.error is None for reading in collector.readings()))


@pytest.mark.parametrize(
    "function", ["nvmlInit", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetUUID"]
)
def test_a_hang_of_the_whole_driver(nvml: MockNvml, collect: Collect, function: str) -> None:
    nvml.hang(function)
    collector = collect(deadline_s=0.2)
    began = time.monotonic()
    collector.sample(timeout_s=0.5)
    assert time.monotonic() - began < 20
    (event,) = events_until(collector, 1, "driver-hung")
    assert event.gpu is None
    assert collector.state().hung
    nvml.answer(function)
    assert len(events_until(collector, 1, "driver-answers")) == 1
    assert len(collector.sample()) == 8


def test_a_wait_for_events_that_does_not_return(nvml: MockNvml, collect: Collect) -> None:
    collector = collect(deadline_s=0.2)
    collector.sample()
    nvml.hang("nvmlEventSetWait")
    (event,) = events_until(collector, 1, "driver-hung")
    assert event.details["call"] == "nvmlEventSetWait"
    assert all(reading.error is None for reading in collector.sample())
    nvml.answer("nvmlEventSetWait")
    assert len(events_until(collector, 1, "driver-answers")) == 1
    nvml.xid(2, 31)
    assert len(events_until(collector, 1, "xid")) == 1


def test_closing_while_the_driver_hangs(nvml: MockNvml) -> None:
    """The caller is not held up; the threads end when the driver answers."""
    until(lambda: threads_left_behind() == 0)
    before = threads()
    collector = Collector(library=nvml.library, kernel_log=None, period_s=0, deadline_s=0.2)
    collector.sample()
    nvml[0].hang("nvmlDeviceGetPowerUsage")
    collector.sample(timeout_s=1)
    began = time.monotonic()
    collector.close(grace_s=0.2)
    assert time.monotonic() - began < 10
    assert threads_left_behind() >= 1
    with pytest.raises(InvalidInputError, match="not running"):
        collector.readings()
    collector.close()
    nvml[0].answer("nvmlDeviceGetPowerUsage")
    until(lambda: threads_left_behind() == 0)
    until(lambda: threads() <= before)
    until(lambda: nvml.initialised == 0)


def test_collectors_without_end_are_refused(nvml: MockNvml) -> None:
    until(lambda: threads_left_behind() == 0)
    nvml.hang("nvmlInit")
    with pytest.raises(DeviceError, match="too many threads"):
        for _ in range(40):
            with Collector(library=nvml.library, kernel_log=None, deadline_s=0.1) as collector:
                collector.sample(timeout_s=0.05)
                collector.close(grace_s=0.05)
    assert threads_left_behind() <= 16 + 1
    nvml.answer("nvmlInit")
    until(lambda: threads_left_behind() == 0)


@pytest.mark.slow
def test_a_thousand_starts_and_ends(nvml: MockNvml) -> None:
    """No thread, descriptor or start of NVML is left over."""
    for gpu in range(1, 8):
        nvml[gpu].present = 0
    Collector(library=nvml.library, kernel_log=None, period_s=0).close()
    before = threads(), descriptors()
    log = nvml.folder / "kmsg"
    log.touch()
    for _ in range(1000):
        Collector(library=nvml.library, kernel_log=log, period_s=0.001).close(grace_s=30)
    until(lambda: threads() <= before[0])
    assert descriptors() <= before[1]
    assert nvml.initialised == 0


def test_two_at_once(nvml: MockNvml, collect: Collect, tmp_path: Path) -> None:
    """On one driver, and on another."""
    other = MockNvml(tmp_path / "other", gpus=2)
    one, two, three = collect(), collect(), collect(library=other.library)
    nvml[1].temperature = 55
    assert [len(each.sample()) for each in (one, two, three)] == [8, 8, 2]
    nvml.xid(1, 31)
    assert [event.code for event in one.events(timeout_s=30)] == [31]
    assert [event.code for event in two.events(timeout_s=30)] == [31]
    one.close()
    assert two.sample()[1].temperature_c == 55
    assert three.events() == []


def test_many_callers(nvml: MockNvml, collect: Collect) -> None:
    collector = collect(period_s=0.005)
    wrong: list[str] = []

    def call() -> None:
        for _ in range(50):
            if len(collector.sample()) != 8:
                wrong.append("sample")
            collector.readings()
            collector.events()
            collector.state()

    callers = [threading.Thread(target=call) for _ in range(6)]
    for each in callers:
        each.start()
    for each in callers:
        each.join(120)
    assert not wrong
    assert not any(each.is_alive() for each in callers)


def test_closing_ends_every_wait(nvml: MockNvml) -> None:
    collector = Collector(library=nvml.library, kernel_log=None, period_s=0)
    collector.sample()
    ended: list[str] = []

    def wait() -> None:
        try:
            collector.events(timeout_s=300)
        except InvalidInputError:
            ended.append("refused")
        else:
            ended.append("returned")

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.2)
    collector.close()
    waiting.join(30)
    assert len(ended) == 1


def test_a_child_has_none_of_it(nvml: MockNvml, collect: Collect) -> None:
    collector = collect(period_s=0.001)
    collector.sample()
    for _ in range(20):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                try:
                    collector.readings()
                except InvalidInputError as error:
                    assert "forked" in str(error)
                    collector.close()
                    del collector
                    with Collector(library=nvml.library, kernel_log=None, period_s=0) as mine:
                        status = 0 if len(mine.sample()) == 8 else 2
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
    assert len(collector.sample()) == 8


def test_a_process_may_end_without_closing(nvml: MockNvml) -> None:
    program = (
        "import sys; from textnlp_fast.gpu.health.collector import Collector\n"
        "kept = Collector(library=sys.argv[1], kernel_log=None, period_s=0.001, deadline_s=0.1)\n"
        "print(len(kept.sample(timeout_s=0.3)))\n"
    )
    for hang in (False, True):
        if hang:
            nvml.hang("nvmlDeviceGetPowerUsage")
        done = subprocess.run(
            [sys.executable, "-c", program, str(nvml.library)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
    nvml.answer("nvmlDeviceGetPowerUsage")


def test_a_gpu_can_be_reset_while_the_driver_is_released(nvml: MockNvml, collect: Collect) -> None:
    collector = collect(period_s=0.01)
    collector.sample()
    assert nvml.initialised == 1
    with collector.released():
        assert nvml.initialised == 0
        assert collector.state().paused
        assert {reading.error for reading in collector.readings()} == {"the collector is paused"}
    assert {reading.error for reading in collector.sample()} == {None}
    nvml.xid(0, 31)
    assert len(events_until(collector, 1, "xid")) == 1


def test_the_driver_is_not_released_by_a_hung_call(nvml: MockNvml, collect: Collect) -> None:
    collector = collect(deadline_s=0.1)
    collector.sample()
    nvml[2].hang("nvmlDeviceGetPowerUsage")
    collector.sample(timeout_s=0.5)
    with pytest.raises(DeviceError, match="not let go of"), collector.released(timeout_s=0.3):
        pass
    nvml[2].answer("nvmlDeviceGetPowerUsage")
    until(lambda: collector.sample()[2].error is None)


def test_a_lost_gpu_is_looked_for_by_starting_anew(nvml: MockNvml, collect: Collect) -> None:
    collector = collect(period_s=0.02, reinit_s=0.2)
    collector.sample()
    nvml[4].lost = 1
    until(lambda: collector.readings()[4].lost)
    starts = nvml.called("nvmlInit")
    until(lambda: nvml.called("nvmlInit") > starts + 1)
    nvml[4].lost = 0
    until(lambda: not collector.readings()[4].lost)
    assert collector.readings()[4].temperature_c == 34


def test_a_driver_that_is_loaded_anew(nvml: MockNvml, collect: Collect) -> None:
    collector = collect(period_s=0.02)
    collector.sample()
    nvml.fail("nvmlDeviceGetCount", 1)
    nvml.fail("nvmlInit", NVML_ERROR_DRIVER_NOT_LOADED)
    error = events_until(collector, 1, "driver-error")[0]
    assert error.code is not None
    until(lambda: "not loaded" in collector.state().error)
    assert all(
        reading.error is not None and reading.temperature_c is None for reading in collector.readings()
    )
    nvml.fail("nvmlDeviceGetCount", 0)
    nvml.fail("nvmlInit", 0)
    nvml.driver_version = "590.1"
    (event,) = events_until(collector, 1, "driver-loaded")
    assert event.details == {"version": "590.1"}
    until(lambda: all(reading.error is None for reading in collector.readings()))


@pytest.mark.parametrize("code", [NVML_ERROR_GPU_IS_LOST, NVML_ERROR_UNKNOWN, 10])
def test_a_wait_that_fails_at_once_does_not_spin(nvml: MockNvml, collect: Collect, code: int) -> None:
    nvml.fail("nvmlEventSetWait", code)
    collect().sample()
    until(lambda: nvml.called("nvmlEventSetWait") > 0)
    before = nvml.called("nvmlEventSetWait")
    time.sleep(1)
    assert nvml.called("nvmlEventSetWait") - before <= 4


def test_gpus_that_report_no_events_are_noted(nvml: MockNvml, collect: Collect) -> None:
    nvml[3].fail("nvmlDeviceRegisterEvents", 3)
    collector = collect()
    collector.sample()
    assert any("kernel's log alone" in note for note in collector.state().notes)
    nvml.xid(2, 31)
    assert len(events_until(collector, 1, "xid")) == 1


def test_a_driver_without_events(tmp_path: Path) -> None:
    nvml = MockNvml(tmp_path / "old", gpus=1, without=["nvmlEventSetCreate"])
    with Collector(library=nvml.library, kernel_log=None, period_s=0) as collector:
        assert len(collector.sample()) == 1
        assert any("no events" in note for note in collector.state().notes)


def test_rest_costs_next_to_nothing(nvml: MockNvml, collect: Collect, tmp_path: Path) -> None:
    """A collector that has nothing to do sleeps; a log at its end, and a pipe without writers, included."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    collect(kernel_log=pipe).sample()
    collect(kernel_log=nvml.library).sample()
    before = resource.getrusage(resource.RUSAGE_SELF)
    time.sleep(2)
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime) < 0.4
