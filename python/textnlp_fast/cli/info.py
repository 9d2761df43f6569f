"""`textnlp-fast info`: what this machine and this build offer."""

from __future__ import annotations

import os
import platform
from typing import Any

import click

from textnlp_fast.cli.arguments import json_option
from textnlp_fast.cli.output import print_json, print_line

EPILOG = """\b
Example:
  textnlp-fast info --json
"""


@click.command("info", epilog=EPILOG)
@json_option
def command(as_json: bool) -> None:
    """Show what the core found: instruction set, threads, CUDA or why not."""
    facts = _facts()
    if as_json:
        print_json(facts)
        return
    print_line(f"textnlp-fast  {facts['version']}, Python {facts['python']}, {facts['platform']}")
    print_line(f"kernels       {facts['isa']} (this processor runs: {', '.join(facts['available_isas'])})")
    if facts["isa_warning"]:
        print_line(f"              {facts['isa_warning']}")
    print_line(f"threads       {facts['threads']}")
    print_line(f"cuda          {_describe(facts['cuda'])}")
    print_line(f"repository    {facts['repository'] or 'TEXTNLP_FAST_REPO is not set'}")


def isa_warning() -> str:
    """Why TEXTNLP_FAST_ISA was not obeyed; "" if it was, or was not set."""
    from textnlp_fast import _native  # noqa: PLC0415

    return _native.isa_warning()


def _facts() -> dict[str, Any]:
    from textnlp_fast import _native  # noqa: PLC0415

    return {
        "version": _native.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "isa": _native.isa_name(),
        "available_isas": list(_native.available_isas()),
        "isa_warning": _native.isa_warning(),
        "threads": _native.default_threads(),
        "cuda": _cuda(_native),
        "repository": os.environ.get("TEXTNLP_FAST_REPO"),
    }


def _cuda(native: Any) -> dict[str, Any]:
    return {**native.cuda_info(), "devices": native.cuda_devices()}


def _describe(cuda: dict[str, Any]) -> str:
    if not cuda["device_count"]:
        return f"none: {cuda['reason']}"
    if cuda["emulated"]:
        return "emulated on this processor, for tests"
    runtime = cuda["runtime_version"]
    names = ", ".join(f"{device['name']} ({device['memory_bytes'] >> 30} GiB)" for device in cuda["devices"])
    return f"{names}; runtime {runtime // 1000}.{runtime % 1000 // 10}"
