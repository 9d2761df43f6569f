"""What is read out of the compiler's words about kernels."""

from __future__ import annotations

import re
from pathlib import Path

from registers import ARCHITECTURES, figures_of

WORDS = """\
ptxas info    : 2048 bytes gmem
ptxas info    : Compiling entry function 'void textnlp_fast::simt::run<textnlp_fast::(anonymous namespace)::\
Elementwise<textnlp_fast::(anonymous namespace)::Add, unsigned char> >(textnlp_fast::Other)' for 'sm_90'
ptxas info    : Function properties for void textnlp_fast::simt::run<X>(X)
    32 bytes stack frame, 44 bytes spill stores, 108 bytes spill loads
ptxas info    : Used 63 registers, used 1 barriers, 32 bytes cumulative stack size
ptxas info    : Compiling entry function 'void textnlp_fast::simt::run<textnlp_fast::device::CountPieces\
<textnlp_fast::DeviceSpan> >(textnlp_fast::device::CountPieces<textnlp_fast::DeviceSpan>)' for 'sm_120'
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 28 registers, used 0 barriers
"""


def test_kernels_and_architectures() -> None:
    first, second = figures_of(WORDS)
    assert (first.kernel, first.architecture) == ("Elementwise<Add, unsigned char>", "90")
    assert str(first) == "63, stack 32, spilled 152"
    assert (second.kernel, second.architecture) == ("CountPieces<DeviceSpan>", "120")
    assert str(second) == "28"


def test_all_that_is_built_is_listed() -> None:
    text = (Path(__file__).resolve().parents[2] / "cmake" / "cuda.cmake").read_text(encoding="utf-8")
    assert tuple(re.findall(r"\b(\d+)-real", text)) == ARCHITECTURES
