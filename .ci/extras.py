"""What the extras of pyproject.toml name, for a shell: `$(PIP) install $(python -c ...)` without the package itself."""

from __future__ import annotations

import re
import shlex
import sys
from importlib import import_module
from pathlib import Path
from typing import Any


def requirements(extra: str) -> list[str]:
    """The requirements of an extra. Python 3.10 has no reader of TOML, and pip brings one along."""
    toml: Any = import_module("tomllib" if sys.version_info >= (3, 11) else "pip._vendor.tomli")
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    project = toml.loads(text)["project"]
    found: list[str] = project["optional-dependencies"][extra]
    return found


def quoted(extra: str) -> str:
    """The same as words of a command line."""
    return " ".join(shlex.quote(re.sub(r"\s*;\s*", " ; ", one)) for one in requirements(extra))
