"""HAProxy as a child, and the agent beside it: checked before it starts, ended when its streams have."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from textnlp_fast.adapter.gateway.agent import WeightAgent
from textnlp_fast.adapter.gateway.plan import GatewayPlan
from textnlp_fast.errors import InvalidInputError, MissingPackageError, ProviderUnavailableError

__all__ = ["check_config", "find_haproxy", "run_gateway", "write_files"]

_CHECK_S: Final = 30.0
_START_S: Final = 30.0


def find_haproxy(program: str = "haproxy") -> str:
    """HAProxy's path. Raises MissingPackageError where there is none."""
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise MissingPackageError(
            f"there is no {program} here", hint="Install HAProxy, 2.6 or newer: apt-get install haproxy"
        )
    return found


def write_files(plan: GatewayPlan, config: str, key_digests: Sequence[str] | None) -> Path:
    """Writes configuration and keys beside the socket, for the user alone; the configuration's path."""
    folder = plan.socket_path.parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.geteuid():
        raise InvalidInputError(f"{folder} belongs to somebody else", hint="Give --folder.")
    if plan.keys_file is not None:
        _write(plan.keys_file, "".join(f"{one}\n" for one in key_digests or ()))
    path = folder / "haproxy.cfg"
    _write(path, config)
    return path


async def check_config(program: str, path: Path) -> None:
    """Has HAProxy read a configuration. Raises InvalidInputError with what it says."""
    process = await asyncio.create_subprocess_exec(
        program,
        "-c",
        "-q",
        "-f",
        str(path),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), _CHECK_S)
    except asyncio.TimeoutError:
        process.kill()
        raise ProviderUnavailableError(f"{program} did not read {path} in {_CHECK_S:g} s") from None
    if process.returncode != 0:
        text = output.decode("utf-8", "replace").strip()
        raise InvalidInputError(
            f"HAProxy refuses {path}: {text[-600:]}",
            hint="It has to be 2.6 or newer; `haproxy -v` says what it is.",
        )


async def run_gateway(
    plan: GatewayPlan,
    config: str,
    *,
    program: str = "haproxy",
    key_digests: Sequence[str] | None = None,
    drain_s: float = 600.0,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Runs until it is told to end, or HAProxy ends by itself, which raises ProviderUnavailableError."""
    _check_descriptors(plan)
    path = write_files(plan, config, key_digests)
    haproxy = find_haproxy(program)
    await check_config(haproxy, path)
    agent = WeightAgent(plan.agent) if plan.agent is not None else None
    serving = asyncio.create_task(agent.serve()) if agent is not None else None
    process = await asyncio.create_subprocess_exec(
        haproxy, "-db", "-f", str(path), stdin=asyncio.subprocess.DEVNULL
    )
    told, loop = asyncio.Event(), asyncio.get_running_loop()
    ending = asyncio.create_task(told.wait())
    ended = asyncio.create_task(process.wait())
    watched = {ending, ended} | ({serving} if serving is not None else set())
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told.set)
    try:
        await _listening(process, plan)
        ready()
        done, _ = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
        if serving is not None and serving in done:
            serving.result()  # the port of the agent is taken, say
        if ended in done:
            raise ProviderUnavailableError(f"HAProxy ended with status {process.returncode}")
        told.clear()
        process.send_signal(signal.SIGUSR1)  # listens no more; streams go on
        again = asyncio.create_task(told.wait())
        await asyncio.wait({again, ended}, timeout=drain_s, return_when=asyncio.FIRST_COMPLETED)
        again.cancel()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.terminate()
        for task in (ending, serving):
            if task is not None:
                task.cancel()
        await asyncio.gather(
            *(task for task in (ending, serving) if task is not None), return_exceptions=True
        )
        await ended


def _check_descriptors(plan: GatewayPlan) -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    needed = 2 * plan.connections + 4 * plan.slots + 100
    if most not in (resource.RLIM_INFINITY, -1) and most < needed:
        raise InvalidInputError(
            f"{plan.connections} connections need {needed} file descriptors, and {most} are allowed here",
            hint="Raise the limit (ulimit -Hn), or allow fewer connections.",
        )


async def _listening(process: asyncio.subprocess.Process, plan: GatewayPlan) -> None:
    for _ in range(int(_START_S / 0.05)):
        if process.returncode is not None:
            raise ProviderUnavailableError(
                f"HAProxy ended with status {process.returncode}", hint="What it said stands above."
            )
        with suppress(OSError):
            _, writer = await asyncio.open_unix_connection(str(plan.socket_path))
            writer.close()
            return
        await asyncio.sleep(0.05)
    raise ProviderUnavailableError(f"HAProxy did not start in {_START_S:g} s")


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    temporary.replace(path)
