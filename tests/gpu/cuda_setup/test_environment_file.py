"""The environment file does in a real sh what it says, and is written whole or not at all."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.cuda_machine import CudaMachine
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.cuda_setup import environment_file, environment_of, write_environment
from textnlp_fast.gpu.cuda_setup.facts import Facts, Gpu, System, Toolkit
from textnlp_fast.gpu.cuda_setup.probes.gathering import gather
from textnlp_fast.gpu.cuda_setup.versions import Version

SHELLS = [path for name in ("sh", "dash", "bash") if (path := shutil.which(name))]
NAMES = ("CUDA_HOME", "PATH", "LD_LIBRARY_PATH", "CUDA_DEVICE_ORDER")


def sourced(
    file: Path, before: Mapping[str, str], *, times: int = 1, shell: str = "sh"
) -> dict[str, str | None]:
    """The variables after a real shell has sourced a file."""
    script = f". {file}\n" * times + "".join(
        f'printf "%s\\0%s\\0" "${{{name}+set}}" "${{{name}-}}"\n' for name in NAMES
    )
    done = subprocess.run(
        [shell, "-euc", script], env=dict(before), capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    fields = done.stdout.split("\0")
    return {name: fields[2 * n + 1] if fields[2 * n] else None for n, name in enumerate(NAMES)}


def facts_with(path: str = "/usr/local/cuda-13.0", **more: object) -> Facts:
    version = Version.parse("13.0")
    toolkit = Toolkit(path=path, version=version, has_nvcc=True, has_runtime=True, origin="system")
    return Facts(toolkits=(toolkit,), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("shell", SHELLS)
def test_it_sets_what_a_build_needs(tmp_path: Path, shell: str) -> None:
    file = tmp_path / "cuda.env"
    assert write_environment(facts_with(), file)
    after = sourced(file, {"PATH": "/usr/bin:/bin"}, shell=shell)
    assert after == {
        "CUDA_HOME": "/usr/local/cuda-13.0",
        "PATH": "/usr/local/cuda-13.0/bin:/usr/bin:/bin",
        "LD_LIBRARY_PATH": "/usr/local/cuda-13.0/lib64",
        "CUDA_DEVICE_ORDER": None,
    }


@pytest.mark.parametrize("shell", SHELLS)
def test_sourced_twice_it_does_no_more_than_once(tmp_path: Path, shell: str) -> None:
    file = tmp_path / "cuda.env"
    write_environment(facts_with(), file)
    for before in (
        {},
        {"LD_LIBRARY_PATH": "/opt/lib"},
        {"LD_LIBRARY_PATH": "/usr/local/cuda-13.0/lib64"},
        {"LD_LIBRARY_PATH": ""},
    ):
        environment = {"PATH": "/usr/bin:/bin", **before}
        once = sourced(file, environment, shell=shell)
        assert sourced(file, environment, times=3, shell=shell) == once
        assert "" not in (once["LD_LIBRARY_PATH"] or "").split(":")
        assert (once["PATH"] or "").split(":").count("/usr/local/cuda-13.0/bin") == 1


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0/:\n"), min_size=1, max_size=30))
@settings(max_examples=200 if "TEXTNLP_FAST_NIGHTLY" in os.environ else 30)
def test_any_folder_comes_through_the_shell_as_it_is(name: str) -> None:
    text = environment_of(facts_with(f"/opt/{name}"))
    script = text + 'printf "%s\\0%s\\0%s" "$CUDA_HOME" "$PATH" "$LD_LIBRARY_PATH"'
    done = subprocess.run(["sh", "-euc", script], env={"PATH": "/bin"}, capture_output=True, check=True)
    home, path, libraries = done.stdout.decode("utf-8").split("\0")
    assert (home, path, libraries) == (f"/opt/{name}", f"/opt/{name}/bin:/bin", f"/opt/{name}/lib64")


def test_a_name_with_stars_is_no_pattern(tmp_path: Path) -> None:
    """`case` would otherwise think that a folder is in the list already."""
    file = tmp_path / "cuda.env"
    write_environment(facts_with("/opt/*"), file)
    after = sourced(file, {"PATH": "/opt/cuda/bin:/bin"})
    assert after["PATH"] == "/opt/*/bin:/opt/cuda/bin:/bin"


def test_what_brings_its_own_cuda_is_left_to_it(fake: CudaMachine, tmp_path: Path) -> None:
    facts = gather(fake.gpus(["A100"]).toolkit("12.8.1").torch("2.8.0+cu128", "12.8").machine())
    write_environment(facts, tmp_path / "cuda.env")
    after = sourced(tmp_path / "cuda.env", {"PATH": "/bin"})
    assert after["CUDA_HOME"] == "/usr/local/cuda-12.8"
    assert after["LD_LIBRARY_PATH"] is None


def test_bad_entries_are_left_out(fake: CudaMachine, tmp_path: Path) -> None:
    fake.gpus(["A100"]).toolkit("13.0.2").folder("/usr/local/cuda-13.0/lib64/stubs").folder("/opt/my lib")
    value = "/usr/local/cuda-13.0/lib64/stubs:/gone:/opt/my lib:"
    facts = gather(fake.set(LD_LIBRARY_PATH=value).machine())
    write_environment(facts, tmp_path / "cuda.env")
    after = sourced(tmp_path / "cuda.env", {"PATH": "/bin", "LD_LIBRARY_PATH": value})
    assert after["LD_LIBRARY_PATH"] == "/usr/local/cuda-13.0/lib64:/opt/my lib"


def test_the_toolkit_that_the_driver_runs_is_taken(fake: CudaMachine) -> None:
    facts = gather(fake.gpus(["A100"], "550.54.14", "12.4").toolkit("12.4.1").toolkit("13.0.2").machine())
    assert "export CUDA_HOME=/usr/local/cuda-12.4\n" in environment_of(facts)


def test_gpus_of_several_kinds_are_counted_by_the_bus(fake: CudaMachine, tmp_path: Path) -> None:
    write_environment(gather(fake.gpus(["T4", "4090"]).machine()), tmp_path / "cuda.env")
    assert sourced(tmp_path / "cuda.env", {"PATH": "/bin"})["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_hints_for_nccl_are_comments() -> None:
    gpus = (Gpu(index=0, name="A"), Gpu(index=1, name="A"))
    system = System(shm_bytes=64 << 20, infiniband=("mlx5_0", "mlx5_1\nexport EVIL=1"))
    text = environment_of(Facts(gpus=gpus, system=system))
    assert all(line.startswith("#") for line in text.splitlines())
    assert "# export NCCL_IB_HCA=mlx5_0\n" in text
    assert "EVIL" not in text


def test_a_machine_without_cuda_has_nothing_to_set(tmp_path: Path) -> None:
    write_environment(Facts(), tmp_path / "cuda.env")
    after = sourced(tmp_path / "cuda.env", {"PATH": "/bin"})
    assert after == {"CUDA_HOME": None, "PATH": "/bin", "LD_LIBRARY_PATH": None, "CUDA_DEVICE_ORDER": None}


# --- writing ----------------------------------------------------------------------------------------------------


def test_the_same_text_is_not_written_again(tmp_path: Path) -> None:
    file = tmp_path / "cuda.env"
    assert write_environment(facts_with(), file)
    before = file.stat()
    assert not write_environment(facts_with(), file)
    assert file.stat().st_ino == before.st_ino
    assert write_environment(facts_with("/opt/cuda"), file)
    assert "/opt/cuda" in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o644
    assert [one.name for one in file.parent.iterdir()] == ["cuda.env"]


def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / ".bashrc"
    file.write_text("alias ll='ls -l'\n")
    with pytest.raises(InvalidInputError, match="not written by this command"):
        write_environment(facts_with(), file)
    assert file.read_text() == "alias ll='ls -l'\n"
    with pytest.raises(InvalidInputError, match="is a folder"):
        write_environment(facts_with(), tmp_path)


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "cuda.env").symlink_to("shared/cuda.env")
    assert write_environment(facts_with(), tmp_path / "cuda.env")
    assert (tmp_path / "cuda.env").is_symlink()
    assert "CUDA_HOME" in (tmp_path / "shared/cuda.env").read_text()


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "cuda.env"
    write_environment(facts_with(), file)
    old = file.read_text()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(environment_file.os, "fsync", full)
    with pytest.raises(InvalidInputError, match="No space left"):
        write_environment(facts_with("/opt/cuda"), file)
    assert file.read_text() == old
    assert [one.name for one in tmp_path.iterdir()] == ["cuda.env"]


def test_a_place_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInputError, match="cannot be written"):
        write_environment(facts_with(), tmp_path / "file" / "cuda.env")
    with pytest.raises(InvalidInputError, match="there is no folder"):
        write_environment(facts_with(), tmp_path / "new" / "cuda.env")
    assert [one.name for one in tmp_path.iterdir()] == ["file"]
