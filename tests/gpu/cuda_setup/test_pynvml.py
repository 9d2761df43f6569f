"""Which pynvml is imported: packages are installed by pip into a folder, and a real Python says what it loads."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from textnlp_fast.gpu.cuda_setup import Level, Machine, Verdict, diagnose
from textnlp_fast.gpu.cuda_setup.facts import Facts
from textnlp_fast.gpu.cuda_setup.probes.packages import read_pynvml

pytestmark = pytest.mark.skipif(find_spec("pip") is None, reason="needs pip")

Install = Callable[..., None]

# The files that the packages of these names and versions have on PyPI.
LAYOUTS = {
    ("nvidia-ml-py", "13.580.82"): {
        "pynvml.py": "def nvmlSystemGetCudaDriverVersion_v2(): pass\n",
        "example.py": "",
    },
    ("pynvml", "11.5.0"): {
        "pynvml/__init__.py": "from .nvml import *\n",
        "pynvml/nvml.py": "",
        "pynvml/smi.py": "",
    },
    ("pynvml", "12.0.0"): {"pynvml_utils/__init__.py": ""},
    ("pynvml", "13.0.1"): {
        "pynvml_utils/__init__.py": "",
        "_pynvml_redirector.py": "",
        "_pynvml_redirector.pth": "",
    },
    ("nvidia-ml-py3", "7.352.0"): {"pynvml.py": "", "nvidia_smi.py": ""},
}


def wheel_of(folder: Path, name: str, version: str) -> Path:
    """A wheel with a package's layout, to be installed without an index."""
    plain = name.replace("-", "_")
    path = folder / f"{plain}-{version}-py3-none-any.whl"
    info = f"{plain}-{version}.dist-info"
    files = {
        **LAYOUTS[name, version],
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(file, text)
    return path


@pytest.fixture(scope="module")
def install(tmp_path_factory: pytest.TempPathFactory) -> Install:
    """Fills a folder as pip does when it installs packages one after the other.

    pip starts slowly: what it made of the same packages before is copied, and only what comes after them installed.
    """
    wheels = tmp_path_factory.mktemp("wheels")
    made: dict[tuple[tuple[str, str], ...], Path] = {(): tmp_path_factory.mktemp("empty")}

    def site_with(packages: tuple[tuple[str, str], ...]) -> Path:
        if packages not in made:
            site = tmp_path_factory.mktemp("site")
            shutil.copytree(site_with(packages[:-1]), site, dirs_exist_ok=True)
            wheel = str(wheel_of(wheels, *packages[-1]))
            words = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
            words += ["--no-compile", "--disable-pip-version-check", "--target", str(site), wheel]
            subprocess.run(words, check=True, capture_output=True, timeout=300)
            made[packages] = site
        return made[packages]

    def fill(site: Path, *packages: tuple[str, str]) -> None:
        shutil.copytree(site_with(packages), site)

    return fill


def imported(site: Path) -> str | None:
    """The file that a Python of its own imports as pynvml from there."""
    script = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "try:\n import pynvml\n print(pynvml.__file__)\nexcept ImportError: pass"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script], check=True, capture_output=True, text=True
    )
    return done.stdout.strip() or None


def verdicts_on(site: Path) -> list[Verdict]:
    facts = replace(Facts(), pynvml=read_pynvml(Machine(site_paths=(str(site),))))
    return [one for one in diagnose(facts) if one.rule == "pynvml"]


@pytest.mark.parametrize(
    ("packages", "level", "owner"),
    [
        ([("nvidia-ml-py", "13.580.82")], Level.OK, "nvidia-ml-py"),
        ([("pynvml", "11.5.0")], Level.PROBLEM, "pynvml"),
        ([("pynvml", "11.5.0"), ("nvidia-ml-py", "13.580.82")], Level.PROBLEM, "pynvml"),
        ([("nvidia-ml-py", "13.580.82"), ("pynvml", "11.5.0")], Level.PROBLEM, "pynvml"),
        ([("nvidia-ml-py", "13.580.82"), ("pynvml", "12.0.0")], Level.WARNING, "nvidia-ml-py"),
        ([("nvidia-ml-py", "13.580.82"), ("pynvml", "13.0.1")], Level.WARNING, "nvidia-ml-py"),
        ([("nvidia-ml-py3", "7.352.0")], Level.PROBLEM, "nvidia-ml-py3"),
        ([], None, None),
    ],
)
def test_what_pip_installed_is_what_is_imported(
    install: Install,
    tmp_path: Path,
    packages: list[tuple[str, str]],
    level: Level | None,
    owner: str | None,
) -> None:
    site = tmp_path / "site"
    install(site, *packages)
    found = read_pynvml(Machine(site_paths=(str(site),)))
    assert found.origin == imported(site)
    assert found.owner == owner
    assert set(found.installed) == set(packages)
    assert [one.level for one in verdicts_on(site)] == ([level] if level else [])


def test_an_older_folder_before_the_package_s(install: Install, tmp_path: Path) -> None:
    """A user's site-packages before the environment's."""
    user, site = tmp_path / "user", tmp_path / "site"
    install(user, ("nvidia-ml-py3", "7.352.0"))
    install(site, ("nvidia-ml-py", "13.580.82"))
    found = read_pynvml(Machine(site_paths=(str(user), str(site))))
    assert found.origin == str(user / "pynvml.py")
    assert found.owner == "nvidia-ml-py3"
