"""`textnlp-fast gpu external-metrics`: serves Kubernetes' HPAs with what our policy decides."""

from __future__ import annotations

import asyncio
import ssl
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from textnlp_fast.cli.gpu.keda import until_ended
from textnlp_fast.errors import InvalidInputError

EPILOG = """\b
Examples:
  textnlp-fast gpu external-metrics --fleets fleets.yaml
  textnlp-fast gpu external-metrics --fleets fleets.yaml --listen 0.0.0.0:6443 --tls-cert tls.crt --tls-key tls.key \\
      --requestheader-ca ca.crt --allowed-name front-proxy-client
"""
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("external-metrics", epilog=EPILOG)
@click.option("--fleets", "fleets_file", type=_FILE, required=True, metavar="FILE", help="The fleets, YAML.")
@click.option(
    "--listen", default="127.0.0.1:6443", show_default=True, metavar="HOST:PORT", help="Where to listen."
)
@click.option("--tls-cert", type=_FILE, metavar="FILE", help="The server's certificate, PEM; with --tls-key.")
@click.option("--tls-key", type=_FILE, metavar="FILE", help="Its key, PEM.")
@click.option(
    "--requestheader-ca",
    type=_FILE,
    metavar="FILE",
    help="The CA of the API server's proxy certificate: extension-apiserver-authentication in kube-system has it.",
)
@click.option(
    "--allowed-name",
    "allowed_names",
    multiple=True,
    metavar="NAME",
    help="Common names of that certificate; by default any. May be repeated.",
)
@click.option(
    "--user",
    "users",
    multiple=True,
    metavar="NAME",
    help="Who may read values; by default the HPA controller's service account. May be repeated.",
)
def command(
    *,
    fleets_file: Path,
    listen: str,
    tls_cert: Path | None,
    tls_key: Path | None,
    requestheader_ca: Path | None,
    allowed_names: tuple[str, ...],
    users: tuple[str, ...],
) -> None:
    """Serve external.metrics.k8s.io, until it is ended.

    Behind an APIService, HorizontalPodAutoscalers with an External metric follow our policy. Where others than this
    machine reach it, it needs a certificate and the request-header CA.
    """
    metrics: Any = import_module("textnlp_fast.integrations.kubernetes_metrics")
    reading: Any = import_module("textnlp_fast.integrations.fleet_file")
    deciding: Any = import_module("textnlp_fast.integrations.deciding")
    fleets = reading.read_fleets(fleets_file)
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal():
        raise InvalidInputError(f"{listen!r} is not HOST:PORT", hint="Give, for example, 127.0.0.1:6443.")
    proxy, tls = None, _tls(tls_cert, tls_key, requestheader_ca)
    if requestheader_ca is not None:
        proxy = metrics.FrontProxy(
            allowed_names=allowed_names, users=frozenset(users) or frozenset({metrics.HPA_USER})
        )

    async def serve(series: list[Any]) -> None:
        ended = until_ended()
        api = metrics.ExternalMetrics(series=series, proxy=proxy)
        async with metrics.serving(api, host=host, port=int(port), tls=tls) as bound:
            click.echo(f"serving {len(series)} fleets on {host}:{bound}{'' if tls is None else ' with TLS'}")
            await ended.wait()

    # Nobody may ask for an hour, and the policies shall have learned all the same.
    with deciding.DecisionBoard(most_fleets=len(fleets), forget_after_s=float("inf")) as board:
        asyncio.run(serve([_series(board, one) for one in fleets]))


def _series(board: Any, one: Any) -> Any:
    metrics: Any = import_module("textnlp_fast.integrations.kubernetes_metrics")
    deciding: Any = import_module("textnlp_fast.integrations.deciding")
    policies: Any = import_module("textnlp_fast.integrations.policy_settings")
    observing: Any = import_module("textnlp_fast.integrations.observing")

    def fleet() -> Any:
        return deciding.Fleet(
            settings=one.settings.policy,
            policy=policies.default_policy(one.settings.policy),
            observe=observing.prometheus_observer(one.settings),
            tolerance=one.settings.hpa_tolerance,
            hold_s=one.settings.hold_s,
        )

    key = (one.namespace, one.settings.metric_name, tuple(sorted(one.labels.items())))
    return metrics.MetricSeries(
        namespace=one.namespace,
        metric=one.settings.metric_name,
        labels=one.labels,
        entry=board.enrol(key, fleet),
    )


def _tls(certificate: Path | None, key: Path | None, client_ca: Path | None) -> ssl.SSLContext | None:
    if (certificate is None) != (key is None) or (client_ca is not None and certificate is None):
        raise InvalidInputError(
            "a certificate needs its key, and the request-header CA needs both",
            hint="Give --tls-cert and --tls-key.",
        )
    if certificate is None or key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
        if client_ca is not None:
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_OPTIONAL
    except (OSError, ssl.SSLError) as error:
        raise InvalidInputError(
            f"the certificates cannot be used: {error}", hint="They are PEM files."
        ) from error
    return context
