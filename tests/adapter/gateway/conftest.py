"""HAProxy and engines as processes. Skips where there is no HAProxy."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fakes.openai_process import EngineProcess
from free_ports import free_port
from textnlp_fast.adapter.gateway import Endpoint, Gateway, GatewayPlan
from textnlp_fast.adapter.gateway.haproxy_config import haproxy_config
from textnlp_fast.adapter.gateway.running import run_gateway


@pytest.fixture(scope="session")
def haproxy() -> str:
    found = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if found is None:
        pytest.skip("no HAProxy on this machine")
    return found


@dataclass
class Running:
    plan: GatewayPlan
    gateway: Gateway
    loop: asyncio.AbstractEventLoop
    task: Any
    ended: threading.Thread
    errors: list[BaseException] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://{self.plan.listen}"


@pytest.fixture
def engine() -> Iterator[Callable[..., EngineProcess]]:
    started: list[EngineProcess] = []

    def start(name: str, **options: Any) -> EngineProcess:
        started.append(EngineProcess(name, **options))
        return started[-1]

    yield start
    for one in started:
        one.kill()


@pytest.fixture
def gateway(
    haproxy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Running]]:
    """Starts gateways over engines: `run_gateway` in a thread, as the command runs it in a process."""
    started: list[Running] = []
    # Signals are the main thread's.
    monkeypatch.setattr(asyncio.SelectorEventLoop, "add_signal_handler", lambda *_: None)

    def start(
        *engines: EngineProcess, keys: tuple[str, ...] = (), agent: bool = True, **options: Any
    ) -> Running:
        folder = tmp_path / str(len(started))
        plan = GatewayPlan(
            endpoints=tuple(Endpoint("127.0.0.1", one.port) for one in engines),
            socket_path=folder / "s",
            listen=Endpoint("127.0.0.1", free_port()),
            metrics=Endpoint("127.0.0.1", free_port()),
            agent=Endpoint("127.0.0.1", free_port()) if agent else None,
            keys_file=folder / "keys" if keys else None,
            **options,
        )
        ready = threading.Event()
        loop = asyncio.new_event_loop()
        running = Running(plan, Gateway(plan.socket_path), loop, None, threading.Thread())

        def run() -> None:
            asyncio.set_event_loop(loop)
            running.task = loop.create_task(
                run_gateway(plan, haproxy_config(plan), program=haproxy, key_digests=keys, ready=ready.set)
            )
            try:
                loop.run_until_complete(running.task)
            except asyncio.CancelledError:
                pass
            except BaseException as error:  # noqa: BLE001  shown by the test
                running.errors.append(error)
            finally:
                ready.set()
                left = asyncio.all_tasks(loop)
                for task in left:
                    task.cancel()
                loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
                loop.close()

        running.ended = threading.Thread(target=run, daemon=True)
        running.ended.start()
        assert ready.wait(120)
        assert not running.errors, running.errors
        started.append(running)
        return running

    yield start
    for one in started:
        if one.ended.is_alive():
            one.loop.call_soon_threadsafe(one.task.cancel)
        one.ended.join(60)
