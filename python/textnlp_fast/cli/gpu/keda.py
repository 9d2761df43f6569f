"""`textnlp-fast gpu keda`: serves KEDA as an external scaler."""

from __future__ import annotations

import asyncio
import functools
import signal
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from textnlp_fast.errors import InvalidInputError, MissingPackageError

EPILOG = """\b
Examples:
  textnlp-fast gpu keda
  textnlp-fast gpu keda --listen 0.0.0.0:6000 --allow-host 'prometheus.monitoring*'
  textnlp-fast gpu keda --listen 0.0.0.0:6000 --tls-cert tls.crt --tls-key tls.key --client-ca ca.crt
"""
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("keda", epilog=EPILOG)
@click.option(
    "--listen", default="127.0.0.1:6000", show_default=True, metavar="HOST:PORT", help="Where to listen."
)
@click.option("--tls-cert", type=_FILE, metavar="FILE", help="The server's certificate, PEM; with --tls-key.")
@click.option("--tls-key", type=_FILE, metavar="FILE", help="Its key, PEM.")
@click.option(
    "--client-ca", type=_FILE, metavar="FILE", help="Serve only clients whose certificates this CA signed."
)
@click.option(
    "--allow-host",
    "allowed_hosts",
    multiple=True,
    metavar="PATTERN",
    help="Hosts that ScaledObjects may name in metricsUrl, as prometheus.*; by default any. May be repeated.",
)
@click.option(
    "--most-fleets",
    type=click.IntRange(1, 100_000),
    default=1000,
    show_default=True,
    help="Refuse more than these.",
)
def command(
    *,
    listen: str,
    tls_cert: Path | None,
    tls_key: Path | None,
    client_ca: Path | None,
    allowed_hosts: tuple[str, ...],
    most_fleets: int,
) -> None:
    """Serve KEDA as an external scaler, until it is ended.

    A ScaledObject's trigger of type `external` or `external-push` says in its metadata what is observed and how the
    policy is set; the guide (gpu-autoscaler-engines.md) has one to start from.
    """
    if (tls_cert is None) != (tls_key is None) or (client_ca is not None and tls_cert is None):
        raise InvalidInputError(
            "a certificate needs its key, and a CA of clients needs both",
            hint="Give --tls-cert and --tls-key.",
        )
    # What integrates others stands above the commands; it is opened by name, as actuators are.
    try:
        scaler: Any = import_module("textnlp_fast.integrations.keda.serving")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("textnlp_fast"):
            raise
        raise MissingPackageError(
            f"KEDA's protocol needs {error.name}", hint="Install it: pip install 'textnlp-fast[keda]'"
        ) from error
    observing: Any = import_module("textnlp_fast.integrations.observing")
    deciding: Any = import_module("textnlp_fast.integrations.deciding")
    tls = None
    if tls_cert is not None and tls_key is not None:
        tls = scaler.TlsFiles(
            certificate=tls_cert.read_bytes(),
            key=tls_key.read_bytes(),
            client_ca=None if client_ca is None else client_ca.read_bytes(),
        )
    host = listen.rpartition(":")[0]
    if tls is None and host not in ("127.0.0.1", "localhost", "[::1]"):
        click.echo(
            f"warning: {host} is served without TLS: whoever reaches it may ask, and have metricsUrl fetched; "
            "--tls-cert, --tls-key and --client-ca keep others out",
            err=True,
        )
    observer_for = functools.partial(observing.prometheus_observer, allowed_hosts=allowed_hosts or ("*",))

    async def serve() -> None:
        stop = until_ended()
        await scaler.serve(
            listen,
            observer_for=observer_for,
            board=board,
            tls=tls,
            ready=lambda port: click.echo(
                f"serving KEDA on {host}:{port}{'' if tls is None else ' with TLS'}"
            ),
            stop=stop,
        )

    with deciding.DecisionBoard(most_fleets=most_fleets) as board:
        asyncio.run(serve())


def until_ended() -> asyncio.Event:
    """Set when the process is told to end."""
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    return ended
