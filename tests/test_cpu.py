"""The dispatch table: one choice, made once, that the environment and tests can force."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from textnlp_fast import _native

KNOWN = ("avx512_gather", "avx512", "avx2", "neon", "portable")
ASK = (
    "from textnlp_fast import _native as n;"
    "print(n.isa_name(), '|', n.isa_warning(), '|', *n.available_isas())"
)


@pytest.fixture(autouse=True)
def same_isa_afterwards() -> Iterator[None]:
    before = _native.isa_name()
    yield
    assert _native.force_isa(before)


def ask(forced: str | None, code: str = ASK) -> tuple[str, str, list[str]]:
    """Name, warning and available sets of a fresh process."""
    environment = {name: value for name, value in os.environ.items() if name != "TEXTNLP_FAST_ISA"}
    if forced is not None:
        environment["TEXTNLP_FAST_ISA"] = forced
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    name, warning, available = run.stdout.split("|")
    return name.strip(), warning.strip(), available.split()


def test_the_list_is_known_ordered_and_ends_with_portable() -> None:
    available = _native.available_isas()
    assert available == [name for name in KNOWN if name in available]
    assert available[-1] == "portable"


def test_the_best_is_chosen_without_a_word() -> None:
    name, warning, available = ask(None)
    assert name == available[0]
    assert warning == ""
    assert available == _native.available_isas()


@pytest.mark.parametrize("isa", _native.available_isas())
def test_the_environment_forces_each(isa: str) -> None:
    name, warning, available = ask(isa)
    assert name == isa
    assert warning == ""
    assert available == _native.available_isas()


@pytest.mark.parametrize("value", ["sse9", "AVX2", " portable", "portable,avx2", "x" * 4096])
def test_an_unknown_name_is_not_obeyed_and_said(value: str) -> None:
    name, warning, available = ask(value)
    assert name == available[0]
    assert "TEXTNLP_FAST_ISA" in warning


def test_a_set_of_another_processor_is_not_obeyed() -> None:
    lacking = next(name for name in KNOWN if name not in _native.available_isas())
    name, warning, available = ask(lacking)
    assert name == available[0]
    assert "TEXTNLP_FAST_ISA" in warning


def test_an_empty_value_means_not_given() -> None:
    name, warning, available = ask("")
    assert name == available[0]
    assert warning == ""


@pytest.mark.parametrize("isa", _native.available_isas())
def test_force_isa_switches_this_process(isa: str) -> None:
    assert _native.force_isa(isa)
    assert _native.isa_name() == isa


def test_force_isa_refuses_what_is_not_there_and_changes_nothing() -> None:
    assert _native.force_isa("portable")
    lacking = [name for name in KNOWN if name not in _native.available_isas()]
    for name in ("sse9", "", "Portable", *lacking):
        assert not _native.force_isa(name)
        assert _native.isa_name() == "portable"


def test_default_threads_follow_the_affinity() -> None:
    assert _native.default_threads() >= 1
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system has no affinity")
    allowed = os.sched_getaffinity(0)
    assert _native.default_threads() == len(allowed)
    code = (
        "import os; from textnlp_fast import _native as n;"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); print(n.default_threads(), '||')"
    )
    assert ask(None, code)[0] == "1"
