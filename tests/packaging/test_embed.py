"""A C++ program finds the installed core with find_package, links it, and agrees with the Python module."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import blake3
import pytest

from textnlp_fast import _native, chunking

ROOT = Path(__file__).resolve().parents[2]
EMBED = ROOT / "tests" / "native" / "embed"

pytestmark = pytest.mark.skipif(
    shutil.which("cmake") is None, reason="no cmake on the PATH (pip install cmake)"
)


def run(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The core, configured without Python and installed into a folder of its own.

    ``TEXTNLP_FAST_CORE_BUILD`` names a build folder to keep, so that the suite can run several times for one build.
    """
    kept = os.environ.get("TEXTNLP_FAST_CORE_BUILD")
    build = Path(kept) if kept else tmp_path_factory.mktemp("core-build")
    prefix = tmp_path_factory.mktemp("core-prefix")
    run("cmake", "-S", ROOT, "-B", build, "-DTEXTNLP_FAST_CUDA=OFF", "-DCMAKE_INSTALL_LIBDIR=lib")
    run("cmake", "--build", build, "--parallel", "2")
    run("cmake", "--install", build, "--prefix", prefix)
    return prefix


@pytest.fixture(scope="module")
def facts(prefix: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the embedding program printed: its first word of a line -> the rest."""
    build = tmp_path_factory.mktemp("embed-build")
    run("cmake", "-S", EMBED, "-B", build, f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", build)
    lines = run(build / "embed").splitlines()
    return {name: rest for name, _, rest in (line.partition(" ") for line in lines)}


def test_installs_every_public_header_and_nothing_private(prefix: Path) -> None:
    public = ROOT / "cpp" / "include"
    wanted = sorted(str(path.relative_to(public)) for path in public.rglob("*.h"))
    include = prefix / "include"
    assert sorted(str(path.relative_to(include)) for path in include.rglob("*") if path.is_file()) == wanted
    assert (prefix / "lib" / "libtextnlp_fast.a").is_file()


def test_each_public_header_compiles_alone(prefix: Path, tmp_path: Path) -> None:
    compiler = os.environ.get("CXX", "c++")
    for header in sorted((prefix / "include" / "textnlp_fast").glob("*.h")):
        source = tmp_path / f"only_{header.stem}.cpp"
        source.write_text(f'#include "textnlp_fast/{header.name}"\n#include "textnlp_fast/{header.name}"\n')
        run(
            compiler,
            "-std=c++20",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-fsyntax-only",
            f"-I{prefix / 'include'}",
            source,
        )


def test_embedding_program_agrees_with_python(facts: dict[str, str]) -> None:
    assert facts["isa"] == _native.isa_name()
    assert facts["isas"].split() == _native.available_isas()
    assert int(facts["threads"]) == _native.default_threads()


def test_cuda_answers_without_nvcc(facts: dict[str, str]) -> None:
    assert facts["cuda_devices"] == "0"


def test_status_carries_code_position_and_reason(facts: dict[str, str]) -> None:
    assert facts["status"] == "failed 42 torn frame"
    assert facts["bf16_bytes"] == "2"


def test_hash_is_blake3(facts: dict[str, str]) -> None:
    assert facts["blake3"] == blake3.blake3(b"weights").hexdigest()


def test_chunks_end_where_the_protocol_ends_them(facts: dict[str, str]) -> None:
    ends = chunking.boundaries(bytes(300_000)).tolist()
    assert facts["chunks"] == "ok " + " ".join(map(str, ends))
    assert ends[-1] == 300_000


def test_codec_gives_back_the_tensor_from_fewer_bytes(facts: dict[str, str]) -> None:
    verdict, written, _, raw = facts["codec"].split()
    assert verdict == "same"
    assert 0 < int(written) < int(raw) // 8


def test_an_incompatible_version_is_refused(prefix: Path, tmp_path: Path) -> None:
    asked = (
        (EMBED / "CMakeLists.txt").read_text().replace("textnlp_fast 0.1 CONFIG", "textnlp_fast 99.0 CONFIG")
    )
    assert "99.0" in asked
    (tmp_path / "CMakeLists.txt").write_text(asked)
    done = subprocess.run(
        ["cmake", "-S", str(tmp_path), "-B", str(tmp_path / "build"), f"-DCMAKE_PREFIX_PATH={prefix}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "99.0" in done.stderr


@pytest.mark.parametrize(
    ("setting", "reason"), [("OFF", "switched off (TEXTNLP_FAST_CUDA=OFF)"), ("AUTO", "no nvcc was found")]
)
def test_a_build_without_cuda_says_why(setting: str, reason: str, tmp_path: Path) -> None:
    build = tmp_path / "build"
    without_nvcc = "-DCMAKE_CUDA_COMPILER=NOTFOUND"
    run("cmake", "-S", ROOT, "-B", build, f"-DTEXTNLP_FAST_CUDA={setting}", without_nvcc)
    commands = json.loads((build / "compile_commands.json").read_text())
    absent = [entry["command"] for entry in commands if entry["file"].endswith("cuda/absent.cpp")]
    assert len(absent) == 1
    definitions = [word for word in absent[0].split() if word.startswith("-D")]
    program = tmp_path / "main.cpp"
    program.write_text(
        "#include <cstdio>\n"
        '#include "textnlp_fast/cuda.h"\n'
        "int main() { std::puts(textnlp_fast::cuda_info().reason); }\n"
    )
    compiler = os.environ.get("CXX", "c++")
    includes = f"-I{ROOT / 'cpp/include'}"
    executable = tmp_path / "main"
    run(
        compiler,
        "-std=c++20",
        includes,
        *definitions,
        program,
        ROOT / "cuda/absent.cpp",
        "-o",
        executable,
    )
    assert reason in run(executable)
