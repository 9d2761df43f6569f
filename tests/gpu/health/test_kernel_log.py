"""XIDs and SXIDs in the kernel's log: what lines mean, hostile ones, and one event for what two sources report."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fakes.nvml.mock import MockNvml, kmsg
from textnlp_fast.gpu.health.collector import Collector, parse_kernel_line
from textnlp_fast.gpu.health.facts import Event

Collect = Callable[..., Collector]

# As drivers of several generations write them (NVIDIA's XID guide, and reports of users).
LINES: list[tuple[str, dict[str, Any] | None]] = [
    (
        "NVRM: Xid (PCI:0000:3b:00): 79, pid=1234, name=python3, GPU has fallen off the bus.",
        {"code": 79, "pci_bus_id": "00000000:3B:00.0", "pid": 1234, "process": "python3", "nvswitch": False},
    ),
    ("NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.", {"code": 79, "pid": None, "process": ""}),
    ("NVRM: Xid (0000:03:00): 59, 0098(15b8) 00000000", {"code": 59, "pci_bus_id": "00000000:03:00.0"}),
    (
        "NVRM: Xid (PCI:0001:b7:1f.0): 119, pid='<unknown>', name=<unknown>, Timeout after 6s of waiting for RPC",
        {"code": 119, "pci_bus_id": "00000001:B7:1F.0", "pid": None, "process": ""},
    ),
    (
        "NVRM: Xid (PCI:0000:65:00): 31, pid=7, name=a b, Ch 00000010",
        {"code": 31, "pid": 7, "process": "a b"},
    ),
    ("NVRM: Xid (PCI:DEADBEEF:65:00): 45", {"code": 45, "pci_bus_id": "DEADBEEF:65:00.0", "text": ""}),
    (
        "NVRM: Xid (PCI:0000:9b:00): 149, NETIR_LINK_EVT  Fatal   XC0 i0 Link 08 (0x004505c6 0x00000000)",
        {"code": 149, "fatal": None},
    ),
    (
        "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 28006, Non-fatal, Link 46 MC TS crumbstore MCTO (First)",
        {"code": 28006, "nvswitch": True, "fatal": False, "link": 46, "pci_bus_id": "00000000:C1:00.0"},
    ),
    ("nvidia-nvswitch0: SXid (PCI:0000:06:00.0): 24007, Fatal, Link 5, x", {"fatal": True, "link": 5}),
    ("nvidia-nvswitch3: SXid (PCI:0000:05:00.0): 20034, Severity 5 Engine instance 32", None),
    ("nvidia-nvswitch3: SXid (PCI:0000:05:00.0): 20034, Data {0x50610002, 0x10100030}", None),
    ("NVRM: GPU at PCI:0000:5d:00: GPU-12345678-1234-1234-1234-123456789abc", None),
    ("NVRM: Xid (PCI:0000:3b:00): -79, x", None),
    ("NVRM: Xid (PCI:0000:3b:00): 79x", None),
    ("NVRM: Xid (PCI:0000:3b:20): 79", None),
    ("NVRM: Xid (PCI:0000:100:00): 79", None),
    ("NVRM: Xid (PCI:100000000:3b:00): 79", None),
    ("NVRM: Xid (PCI:0000:3b:00): 99999999999999999999, x", None),
    ("NVRM: Xid (PCI:0000:3b:00: 79", None),
    (" NVRM: Xid (PCI:0000:3b:00): 79", None),
    ("python3[12]: NVRM: Xid (PCI:0000:3b:00): 79", None),
    # A process may be called so, and crash.
    ("NVRM: Xid (PCI:[1234]: segfault at 0 ip 0 sp 0 error 4 in a[1000+1000]", None),
]


@pytest.mark.parametrize(("text", "expected"), LINES)
def test_lines(text: str, expected: dict[str, Any] | None) -> None:
    found = parse_kernel_line(kmsg(text, sequence=12, time_us=5_000_000))
    if expected is None:
        assert found is None
        return
    assert found is not None
    assert expected.items() <= found.items()
    assert (found["priority"], found["sequence"], found["time_us"]) == (4, 12, 5_000_000)


@pytest.mark.parametrize(
    "line",
    [
        b"NVRM: Xid (PCI:0000:3b:00): 79",
        b"4,1,2,-NVRM: Xid (PCI:0000:3b:00): 79",
        b"4,1,-;NVRM: Xid (PCI:0000:3b:00): 79",
        b"-4,1,2,-;NVRM: Xid (PCI:0000:3b:00): 79",
        b"4,1,99999999999999999999999,-;NVRM: Xid (PCI:0000:3b:00): 79",
        b" SUBSYSTEM=pci",
        b"",
    ],
)
def test_records_that_are_none(line: bytes) -> None:
    assert parse_kernel_line(line) is None


@given(st.binary(max_size=200))
@example(b"4,1,2,-;NVRM: Xid (PCI:0000:3b:00): 79, " + b"\xff" * 2000)
@example(b"4,1,2,-;NVRM: Xid (PCI:0000:3b:00): 79, pid=1, name=" + b"\x00\x1b" * 100)
def test_any_bytes(data: bytes) -> None:
    for line in (data, b"4,1,2,-;" + data, b"4,1,2,-;NVRM: Xid (PCI:0000:3b:00): " + data):
        found = parse_kernel_line(line)
        if found is not None:
            assert 0 <= found["code"] <= 999_999
            for text in (found["text"], found["process"], found["pci_bus_id"]):
                assert text.isascii()
                assert text == "" or text.isprintable()
            assert len(found["text"]) <= 512


@given(
    st.integers(0, 0xFFFFFFFF),
    st.integers(0, 255),
    st.integers(0, 31),
    st.integers(0, 999_999),
    st.one_of(st.none(), st.integers(0, (1 << 64) - 1)),
    st.text("abcdefgh-_./ 0123456789", max_size=15),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=100),
)
def test_what_was_written_is_read(
    domain: int, bus: int, device: int, code: int, pid: int | None, name: str, rest: str
) -> None:
    process = "" if pid is None else f"pid={pid}, name={name}, "
    found = parse_kernel_line(
        kmsg(f"NVRM: Xid (PCI:{domain:04x}:{bus:02x}:{device:02x}): {code}, {process}{rest}")
    )
    assert found is not None
    assert found["code"] == code
    assert found["pci_bus_id"] == f"{domain:08X}:{bus:02X}:{device:02X}.0"
    assert found["text"] == f"{process}{rest}".rstrip(" ")
    if pid is not None:
        assert (found["pid"], found["process"]) == (pid, name)


def drain(collector: Collector, count: int, timeout_s: float = 30) -> list[Event]:
    """Events until there are so many, and then those that come a moment later, which should be none."""
    end = time.monotonic() + timeout_s
    events: list[Event] = []
    while len(events) < count and time.monotonic() < end:
        events += collector.events(timeout_s=0.5)
    return events + collector.events(timeout_s=0.3)


def append(path: Path, *texts: str, **options: Any) -> None:
    with path.open("ab") as file:
        for text in texts:
            file.write(kmsg(text, **options))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "kmsg"
    append(path, "NVRM: Xid (PCI:0000:10:00): 13, of before the start")
    return path


def test_only_what_is_to_come(nvml: MockNvml, collect: Collect, log: Path) -> None:
    collector = collect(kernel_log=log)
    collector.sample()
    append(log, "usb 1-1: new device", f"NVRM: Xid (PCI:{nvml.pci(2)}): 48, pid=9, name=train, DBE")
    (event,) = drain(collector, 1)
    assert (event.kind, event.source, event.code, event.gpu) == ("xid", "kmsg", 48, nvml[2].uuid.decode())
    assert event.details == {"pci": "00000000:30:00.0", "pid": "9", "process": "train"}
    assert event.text == "pid=9, name=train, DBE"
    assert abs(event.at_s - time.time()) < 60


def test_all_that_the_kernel_still_holds(collect: Collect, log: Path) -> None:
    collector = collect(kernel_log=log, kernel_log_from_start=True)
    assert [event.code for event in drain(collector, 1)] == [13]


def test_the_moment_is_the_records(collect: Collect, log: Path) -> None:
    collector = collect(kernel_log=log)
    ago = time.monotonic_ns() // 1000 - 30_000_000
    append(log, "NVRM: Xid (PCI:0000:10:00): 13, x", time_us=max(ago, 1))
    (event,) = drain(collector, 1)
    assert time.time() - event.at_s == pytest.approx(30, abs=20)


def test_what_a_process_writes_is_not_the_drivers(collect: Collect, log: Path) -> None:
    collector = collect(kernel_log=log)
    append(log, "NVRM: Xid (PCI:0000:10:00): 79, forged", priority=12)
    append(log, "NVRM: Xid (PCI:0000:10:00): 31, true", priority=4)
    assert [event.code for event in drain(collector, 1)] == [31]


def test_a_switch_is_told_of_once(collect: Collect, log: Path) -> None:
    collector = collect(kernel_log=log)
    start = "nvidia-nvswitch3: SXid (PCI:0000:c1:00.0): 20034, "
    append(
        log, start + "Fatal, Link 3 LTSSM Fault", start + "Severity 5 Engine instance 3", start + "Data {0x1}"
    )
    (event,) = drain(collector, 1)
    assert (event.kind, event.code, event.gpu) == ("sxid", 20034, None)
    assert event.details == {"pci": "00000000:C1:00.0", "fatal": "true", "link": "3"}


def test_uuids_come_from_the_log_where_the_driver_gives_none(
    nvml: MockNvml, collect: Collect, log: Path
) -> None:
    nvml.fail("nvmlInit", 999)
    collector = collect(kernel_log=log)
    collector.sample()
    append(log, "NVRM: GPU at PCI:0000:10:00: GPU-from-the-log", "NVRM: Xid (PCI:0000:10:00): 79, x")
    events = [event for event in drain(collector, 2) if event.kind == "xid"]
    assert [event.gpu for event in events] == ["GPU-from-the-log"]


@pytest.mark.parametrize("first", ["nvml", "kmsg"])
def test_one_event_for_what_two_report(nvml: MockNvml, collect: Collect, log: Path, first: str) -> None:
    collector = collect(kernel_log=log, same_event_s=60)
    collector.sample()
    reports: dict[str, Callable[[], None]] = {
        "nvml": lambda: nvml.xid(3, 94),
        "kmsg": lambda: append(log, f"NVRM: Xid (PCI:{nvml.pci(3)}): 94, x"),
    }
    second = "kmsg" if first == "nvml" else "nvml"
    for _ in range(2):  # two XIDs, each reported twice, are two
        reports[first]()
        (event,) = drain(collector, 1)
        assert (event.source, event.code) == (first, 94)
        reports[second]()
        assert drain(collector, 1, timeout_s=0.5) == []
    # Another GPU, and another number, are other events.
    nvml.xid(4, 94)
    nvml.xid(3, 95)
    append(log, f"NVRM: Xid (PCI:{nvml.pci(3)}): 96, x")
    assert len(drain(collector, 3)) == 3


def test_the_same_again_later_is_another(nvml: MockNvml, collect: Collect, log: Path) -> None:
    collector = collect(kernel_log=log, same_event_s=0.05)
    collector.sample()
    nvml.xid(3, 94)
    drain(collector, 1)
    append(log, f"NVRM: Xid (PCI:{nvml.pci(3)}): 94, x")
    assert [event.source for event in drain(collector, 1)] == ["kmsg"]


def test_a_pipe_whose_writers_come_and_go(collect: Collect, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    collector = collect(kernel_log=pipe)
    for code in (31, 32):
        with pipe.open("wb", buffering=0) as writer:
            line = kmsg(f"NVRM: Xid (PCI:0000:10:00): {code}, in pieces")
            writer.write(line[:20])
            time.sleep(0.05)
            writer.write(line[20:])
        assert [event.code for event in drain(collector, 1)] == [code]


def test_a_flood_is_bounded_and_counted(collect: Collect, log: Path) -> None:
    collector = collect(kernel_log=log)
    with log.open("ab") as file:
        file.write(b"4,1,1,-;" + b"x" * 100_000 + b"\n")  # longer than any line of the kernel's
        file.write(b"\x00" * 5000 + b"\n")
        file.writelines(kmsg(f"NVRM: Xid (PCI:0000:{n % 256:02x}:00): {n}, x") for n in range(6000))
    end = time.monotonic() + 60
    while collector.state().events_dropped < 6000 - 4096 and time.monotonic() < end:
        time.sleep(0.05)
    assert collector.state().events_dropped == 6000 - 4096
    events = collector.events()
    assert [event.code for event in events] == list(range(6000 - 4096, 6000))


def test_a_log_that_may_not_be_read_is_a_note(collect: Collect, tmp_path: Path) -> None:
    collector = collect(kernel_log=tmp_path / "missing")
    assert len(collector.sample()) == 8
    (note,) = collector.state().notes
    assert "No such file" in note
    assert "SXIDs" in note


@pytest.mark.skipif(not os.access("/dev/kmsg", os.R_OK), reason="/dev/kmsg may not be read here")
def test_the_kernels_own(collect: Collect) -> None:
    """The real thing can be opened and read; what it holds is not ours to say."""
    collector = collect(kernel_log="/dev/kmsg", kernel_log_from_start=True)
    time.sleep(0.2)
    assert collector.state().notes == ()
    collector.events()
