"""An installed package imports without a GPU driver, is typed, and runs the kernels that were asked for."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import os
import subprocess
import sys

import pytest

import textnlp_fast
from textnlp_fast import _native


def python(code: str, **environment: str) -> str:
    """Runs ``code`` in a fresh interpreter, away from this directory, and returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_versions_agree() -> None:
    assert textnlp_fast.__version__ == importlib.metadata.version("textnlp-fast") == _native.__version__


def test_is_typed() -> None:
    package = importlib.resources.files("textnlp_fast")
    assert package.joinpath("py.typed").is_file()
    assert package.joinpath("_native.pyi").is_file()


def test_has_its_data() -> None:
    data = importlib.resources.files("textnlp_fast.gpu.catalog").joinpath("data").joinpath("catalog.json")
    assert data.is_file()


def test_import_needs_no_cuda_library() -> None:
    maps = python("from textnlp_fast import _native; print(open('/proc/self/maps').read())")
    assert "_native" in maps
    for library in ("libcuda.so", "libcudart.so"):
        assert library not in maps


def test_isa_asked_for_by_the_environment_runs() -> None:
    """Under TEXTNLP_FAST_ISA, as CI sets it, the rest of the suite really runs on that instruction set."""
    asked = os.environ.get("TEXTNLP_FAST_ISA", "")
    if not asked:
        assert _native.isa_name() == _native.available_isas()[0]
        return
    if asked not in _native.available_isas():
        pytest.fail(f"TEXTNLP_FAST_ISA={asked}, but this machine has {_native.available_isas()}")
    assert _native.isa_name() == asked
    assert _native.isa_warning() == ""
