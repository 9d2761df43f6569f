"""`textnlp-fast gpu agent`: reads this machine's GPUs and serves what it finds."""

from __future__ import annotations

import signal
import threading
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from textnlp_fast.cli.arguments import AGENT_TOKEN_VARIABLE, FiniteRange, agent_token
from textnlp_fast.cli.output import print_json
from textnlp_fast.cli.program import printable
from textnlp_fast.errors import DeviceError

if TYPE_CHECKING:
    from textnlp_fast.gpu.health.collector import Collector

EPILOG = """\b
Examples:
  textnlp-fast gpu agent
  textnlp-fast gpu agent --once
  textnlp-fast gpu agent --host 0.0.0.0 --token-file /run/secrets/agent-token
  curl http://127.0.0.1:9401/metrics

\b
At /metrics Prometheus finds names of our own and those of dcgm-exporter; /readings and /events are JSON.
"""


@click.command("agent", epilog=EPILOG)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; one that others reach needs a token.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=9401,
    show_default=True,
    help="Port to listen on; 0: any free one.",
)
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help=f"Ask for this token; {AGENT_TOKEN_VARIABLE} does, too.",
)
@click.option(
    "--machine", metavar="NAME", help="What the readings call this machine; by default its host name."
)
@click.option(
    "--period",
    "period_s",
    type=FiniteRange(0.05, 3600),
    default=1.0,
    show_default=True,
    help="Seconds between readings.",
)
@click.option(
    "--deadline",
    "deadline_s",
    type=FiniteRange(0.1, 600),
    default=5.0,
    show_default=True,
    help="Seconds after which a call is a driver that hangs.",
)
@click.option(
    "--library", type=click.Path(path_type=Path), metavar="FILE", help="The driver's libnvidia-ml.so.1."
)
@click.option(
    "--kernel-log",
    type=click.Path(path_type=Path),
    default=Path("/dev/kmsg"),
    show_default=True,
    help="Where the kernel tells of XIDs and SXIDs.",
)
@click.option("--no-kernel-log", is_flag=True, help="Leave the kernel's log alone.")
@click.option("--once", is_flag=True, help="Print one reading of each GPU as JSON, and exit.")
def command(
    *,
    host: str,
    port: int,
    token_file: Path | None,
    machine: str | None,
    period_s: float,
    deadline_s: float,
    library: Path | None,
    kernel_log: Path,
    no_kernel_log: bool,
    once: bool,
) -> None:
    """Read this machine's GPUs through the NVIDIA driver and serve what it finds, until it is ended.

    Use a token only where the network is yours: nothing is encrypted.
    """
    from textnlp_fast.gpu.health.agent import Agent  # noqa: PLC0415
    from textnlp_fast.gpu.health.collector import Collector  # noqa: PLC0415

    token = agent_token(token_file)
    collector = Collector(
        machine=machine,
        library=library,
        period_s=0 if once else period_s,
        deadline_s=deadline_s,
        kernel_log=None if no_kernel_log or once else kernel_log,
    )
    with collector:
        if once:
            _print_once(collector)
            return
        with Agent(collector, host=host, port=port, token=token) as agent:
            click.echo(f"serving {agent.url}/metrics, /readings and /events")
            for note in collector.state().notes:
                click.echo(f"{click.style('note:', fg='yellow')} {printable(note)}", err=True)
            _wait_for_the_end()


def _print_once(collector: Collector) -> None:
    readings = collector.sample()
    state = collector.state()
    if not readings and not state.ready:
        raise DeviceError(
            state.error or "the driver does not answer", hint="`nvidia-smi` should say the same."
        )
    print_json([asdict(reading) for reading in readings])


def _wait_for_the_end() -> None:
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    ended.wait()
