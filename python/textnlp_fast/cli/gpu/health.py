"""`textnlp-fast gpu health`: whether machines with GPUs are good, and what to do where they are not."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from textnlp_fast.cli.arguments import AGENT_TOKEN_VARIABLE, FiniteRange, json_option
from textnlp_fast.cli.output import print_json, print_line, print_table
from textnlp_fast.cli.program import AnsweredError, printable
from textnlp_fast.errors import DeviceError, InvalidInputError, TextnlpFastError

if TYPE_CHECKING:
    from textnlp_fast.gpu.health.facts import Finding
    from textnlp_fast.gpu.health.fleet import FleetHealth

SECRET_VARIABLE = "TEXTNLP_FAST_WEBHOOK_SECRET"
EPILOG = f"""\b
Examples:
  textnlp-fast gpu health
  textnlp-fast gpu health --aws i-0123456789abcdef0 --dcgm i-0123456789abcdef0=http://10.0.0.5:9400
  textnlp-fast gpu health --agent node-1=https://node-1:9401 --watch --alertmanager http://alerts:9093
  textnlp-fast gpu health --agent http://127.0.0.1:9401 --json

\b
Without machines it looks at this one. The token of agents is {AGENT_TOKEN_VARIABLE}, the key of the webhook
{SECRET_VARIABLE}.
Exit codes: 0 the fleet is good, 1 it is not (warnings count, too); there is no verdict: 2 wrong call, 9 credentials
or a token were refused, 11 this machine was asked for and has no NVIDIA driver. With --json there is a document
then, too, except for options that cannot be read: its `verdict` is null, and `error` and `hint` say why.
"""
#: What errors and notes say to Python programs, and to those who type commands.
_SPOKEN = (
    ("Pass region=", "Give --region"),
    ("(agents=)", "(--agent)"),
    ("(dcgm=)", "(--dcgm)"),
    (", or pass allow_http=True", ""),
    ("Give its token: Authorization: Bearer ...", f"Set its token: {AGENT_TOKEN_VARIABLE}."),
    (
        "Pass them as headers, from the environment.",
        f"An agent's token is taken from {AGENT_TOKEN_VARIABLE}.",
    ),
)
_OTHERS = "Other machines are asked by name: --agent URL, --dcgm URL, --aws ID."
_MARKS = {"good": ("good", "green"), "degraded": ("DEGRADED", "yellow"), "bad": ("BAD", "bold red")}


@click.command("health", epilog=EPILOG)
@click.option(
    "--agent", "agents", multiple=True, metavar="[NAME=]URL", help="A machine's agent; may be repeated."
)
@click.option(
    "--dcgm", multiple=True, metavar="[NAME=]URL", help="A machine's dcgm-exporter; may be repeated."
)
@click.option("--aws", multiple=True, metavar="ID", help="An EC2 instance; may be repeated.")
@click.option("--region", metavar="NAME", help="The region of the EC2 instances.")
@click.option("--endpoint-url", metavar="URL", help="Where EC2 is, if not at AWS.")
@click.option("--watch", is_flag=True, help="Go on, and print what changes, until it is interrupted.")
@click.option(
    "--look",
    "look_s",
    type=FiniteRange(0, 86400),
    default=0.0,
    metavar="SECONDS",
    help="Look for so long: rates and throttling show in time only.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=FiniteRange(0.1, 3600),
    default=30.0,
    show_default=True,
    help="Seconds to wait for the first answers.",
)
@click.option(
    "--rules",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="What differs from the rules that ship (YAML or JSON).",
)
@click.option("--schema", is_flag=True, help="Print the JSON schema of rules, and exit.")
@click.option(
    "--state",
    "state_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Remember here what is open, from one run to the next.",
)
@click.option("--webhook", metavar="URL", help="With --watch: send findings there, signed.")
@click.option("--alertmanager", metavar="URL", help="With --watch: send findings there as alerts.")
@json_option
def command(
    *,
    agents: tuple[str, ...],
    dcgm: tuple[str, ...],
    aws: tuple[str, ...],
    region: str | None,
    endpoint_url: str | None,
    watch: bool,
    look_s: float,
    timeout_s: float,
    rules: Path | None,
    schema: bool,
    state_file: Path | None,
    webhook: str | None,
    alertmanager: str | None,
    as_json: bool,
) -> int:
    """Say whether machines with GPUs are good, what is wrong, and what to do about it."""
    from textnlp_fast.gpu.health.fleet import fleet_health  # noqa: PLC0415
    from textnlp_fast.gpu.health.rules import rules_schema  # noqa: PLC0415

    if schema:
        print_json(rules_schema())
        return 0
    if (webhook or alertmanager) and not watch:
        raise InvalidInputError("--webhook and --alertmanager need --watch", hint="Add --watch.")
    token = os.environ.get(AGENT_TOKEN_VARIABLE)
    local = None if agents or dcgm or aws else socket.gethostname()
    with _no_verdict(as_json=as_json, lines=watch, local=local is not None):
        named: dict[str, Any] = {
            "aws": list(aws),
            "region": region,
            "endpoint_url": endpoint_url,
            "agents": _named(agents),
            "dcgm": _named(dcgm),
            "headers": {"Authorization": f"Bearer {token}"} if token else None,
            "local": local,
        }
        if watch:
            return asyncio.run(_watch(named, rules, state_file, timeout_s, webhook, alertmanager, as_json))
        health = asyncio.run(
            fleet_health(**named, rules=rules, state_file=state_file, look_s=look_s, timeout_s=timeout_s)
        )
    _show(health, as_json=as_json)
    return 0 if health.good else 1


@contextmanager
def _no_verdict(*, as_json: bool, lines: bool, local: bool) -> Iterator[None]:
    """Says errors in the words of the command, and to scripts as a document; they go on to stderr and the exit code."""
    try:
        yield
    except TextnlpFastError as error:
        error.hint = _spoken(error.hint)
        if local and isinstance(error, DeviceError):
            error.hint = f"{error.hint} {_OTHERS}"
        if as_json:
            document: dict[str, Any] = {
                "verdict": None,
                "machines": [],
                "error": str(error.args[0]),
                "hint": error.hint,
            }
            if lines:
                print_line(json.dumps(document))
            else:
                print_json(document)
            raise AnsweredError(error) from error
        raise


def _spoken(text: str) -> str:
    for to_programs, to_people in _SPOKEN:
        text = text.replace(to_programs, to_people)
    return text


def _named(urls: tuple[str, ...]) -> dict[str, str]:
    """Machines and URLs; a URL without a name is the machine's name."""
    found: dict[str, str] = {}
    for one in urls:
        name, equals, url = one.partition("=")
        if not equals or "/" in name:
            name, url = one, one
        if name in found:
            raise InvalidInputError(f"{name} is named twice")
        found[name] = url
    return found


def _show(health: FleetHealth, *, as_json: bool) -> None:
    from textnlp_fast.gpu.health.judging import ACTION_WORDS  # noqa: PLC0415

    if as_json:
        print_json(
            {
                "verdict": health.verdict.value,
                "machines": [{**asdict(one), "note": _spoken(one.note)} for one in health.machines],
            }
        )
        return
    rows = [
        [
            printable(one.machine),
            _MARKS[one.verdict.value][0],
            str(one.gpus) if one.gpus else "-",
            ACTION_WORDS[one.action],
        ]
        for one in health.machines
    ]
    print_table(["machine", "verdict", "GPUs", "to do"], rows, left=4)
    for machine in health.machines:
        for finding in machine.findings:
            click.echo(_line(finding))
        if machine.note:
            click.echo(
                f"{click.style('note:', fg='cyan')} {printable(machine.machine)}: {_spoken(machine.note)}"
            )
    word, colour = _MARKS[health.verdict.value]
    count = len(health.machines)
    click.echo(f"{count} machine{'s' if count != 1 else ''}: {click.style(word, fg=colour.split()[-1])}")


def _line(finding: Finding) -> str:
    colours = {"info": "cyan", "warning": "yellow", "critical": "red"}
    word = "resolved" if finding.resolved else finding.severity.value
    colour = "green" if finding.resolved else colours[finding.severity.value]
    where = f"{finding.machine} {finding.gpu}" if finding.gpu else finding.machine
    times = f" ({finding.count} times)" if finding.count > 1 else ""
    said = printable(f"{where}: [{finding.rule}] {finding.summary}{times} {finding.evidence}")
    return f"{click.style(word + ':', fg=colour)} {said}"


async def _watch(
    named: dict[str, Any],
    rules: Path | None,
    state_file: Path | None,
    timeout_s: float,
    webhook: str | None,
    alertmanager: str | None,
    as_json: bool,
) -> int:
    from textnlp_fast.gpu.health.fleet import verdict_of, watch_fleet  # noqa: PLC0415
    from textnlp_fast.gpu.health.monitor import GPUHealthMonitorManager  # noqa: PLC0415

    sinks: list[Any] = []
    if webhook:
        from textnlp_fast.gpu.health.sinks.webhook import WebhookSink  # noqa: PLC0415

        sinks.append(WebhookSink(webhook, secret_env=SECRET_VARIABLE))
    if alertmanager:
        from textnlp_fast.gpu.health.sinks.alertmanager import AlertmanagerSink  # noqa: PLC0415

        sinks.append(AlertmanagerSink(alertmanager))
    monitor = GPUHealthMonitorManager(rules=rules, sinks=sinks, state_file=state_file)

    async def told(finding: Finding) -> None:
        if as_json:
            print_line(json.dumps(asdict(finding), ensure_ascii=True))
        else:
            click.echo(_line(finding))

    monitor.on_finding(told, name="terminal")
    async with monitor:
        await watch_fleet(monitor, **named, first_round_s=timeout_s)
        if not as_json:
            _show(verdict_of(monitor), as_json=False)
        await _until_interrupted()
        health = verdict_of(monitor)
    if as_json:
        print_line(json.dumps({"verdict": health.verdict.value}))
    return 0 if health.good else 1


async def _until_interrupted() -> None:
    import signal  # noqa: PLC0415

    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    try:
        await ended.wait()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
