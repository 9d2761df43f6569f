"""Arguments that several verbs take."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, TypeVar

import click

from textnlp_fast.cli.configured import current_settings, reach, repository_url, setting
from textnlp_fast.cli.interrupts import ending_at_once
from textnlp_fast.cli.listening import listening
from textnlp_fast.cli.program import printable
from textnlp_fast.cli.waiting import tell_if_waiting_for
from textnlp_fast.errors import InvalidInputError

if TYPE_CHECKING:
    from textnlp_fast.storage import Registry, Repository, TransferOptions
    from textnlp_fast.storage.registry.delivery import Failure

__all__ = [
    "AGENT_TOKEN_VARIABLE",
    "FiniteRange",
    "FleetVerb",
    "Number",
    "PatchVerb",
    "StorageVerb",
    "agent_token",
    "chosen_prerelease",
    "json_option",
    "named_version",
    "note_option",
    "notes",
    "open_registry",
    "open_repository",
    "repository_option",
    "threads_option",
    "transfer_options",
    "tuning_options",
    "version_reference",
]

AGENT_TOKEN_VARIABLE: Final = "TEXTNLP_FAST_AGENT_TOKEN"
"""The token of agents, of health and of replicas."""
Command = TypeVar("Command", bound=Callable[..., Any])


class Number(click.types.FloatParamType):
    """Any number but NaN, which no comparison refuses; infinities where they mean "no bound"."""

    def __init__(self, *, finite: bool = True) -> None:
        self._finite = finite

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if math.isnan(number) or (self._finite and math.isinf(number)):
            self.fail(f"{value!r} is no {'finite ' if self._finite else ''}number.", param, ctx)
        return number


class FiniteRange(click.FloatRange):
    """Numbers in a range; NaN, which click's own comparisons let pass, is none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is no finite number.", param, ctx)
        return number


class _LoadingVerb(click.Command):
    """A verb that loads what it takes to work once it is known that no help was asked for."""

    takes: ClassVar[str]

    def invoke(self, ctx: click.Context) -> Any:
        with ending_at_once():
            import_module(self.takes)
        with listening():
            return super().invoke(ctx)


class StorageVerb(_LoadingVerb):
    """A verb that works on a repository."""

    takes = "textnlp_fast.storage"


class PatchVerb(_LoadingVerb):
    """A verb that works on patches, without a repository."""

    takes = "textnlp_fast.delta"


class FleetVerb(_LoadingVerb):
    """A verb that works on the fleet."""

    takes = "textnlp_fast.gpu.resources"


def repository_option(command: Command) -> Command:
    """`--repo`, or the environment's TEXTNLP_FAST_REPO."""
    return click.option(
        "--repo",
        envvar="TEXTNLP_FAST_REPO",
        show_envvar=True,
        metavar="URL",
        help="The repository: a folder or s3://bucket/prefix.",
    )(command)


def json_option(command: Command) -> Command:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")(command)


def note_option(command: Command) -> Command:
    """`--note`."""
    return click.option("--note", default="", help="Why, for the history.")(command)


def threads_option(command: Command) -> Command:
    """`--threads`."""
    return click.option(
        "--threads",
        type=click.IntRange(0, 4096),
        default=setting("threads", 0),
        help="0 takes every processor.",
    )(command)


def tuning_options(command: Command) -> Command:
    """`--threads` and `--memory-mib`."""
    memory = click.option(
        "--memory-mib",
        type=click.IntRange(176, 1 << 20),
        default=setting("memory_mib", 384),
        show_default="384",
        help="Budget for buffers.",
    )
    return threads_option(memory(command))


def transfer_options(
    threads: int | None = None, memory_mib: int | None = None, **chosen: Any
) -> TransferOptions:
    """How to code and move: as chosen here, else as settings say."""
    from textnlp_fast.storage import TransferOptions  # noqa: PLC0415

    if threads is not None:
        chosen["threads"] = threads
    if memory_mib is not None:
        chosen["memory_budget_bytes"] = memory_mib << 20
    settings = current_settings()
    return (
        TransferOptions(**chosen) if settings is None else TransferOptions.from_settings(settings, **chosen)
    )


def open_repository(
    repo: str | None,
    *,
    create: bool | Literal["at push"] = False,
    threads: int | None = None,
    memory_mib: int | None = None,
    **chosen: Any,
) -> Repository:
    """Opens what `--repo` or the settings name. Raises InvalidInputError if they name nothing that lasts."""
    from textnlp_fast.storage import Repository  # noqa: PLC0415

    url = repository_url(repo)
    if url.startswith("memory:"):
        raise InvalidInputError(
            f"{url} is gone when this command ends",
            hint="Name a folder or s3://bucket/prefix; memory:// is for use from Python.",
        )
    options = transfer_options(threads, memory_mib, **chosen)
    if "://" in url:
        tell_if_waiting_for(url)
    return Repository.open(url, create=create, options=options, **reach())


def open_registry(repo: str | None) -> Registry:
    """The registry of what `--repo` names; webhooks that cannot be delivered are warned of."""
    from textnlp_fast.storage import Registry  # noqa: PLC0415

    def warn(failure: Failure) -> None:
        where = f"kept as {failure.key}" if failure.key else "and not kept"
        told = f"webhook {failure.webhook} was not told of this: {failure.reason} ({where})"
        click.echo(f"{click.style('warning:', fg='yellow', bold=True)} {printable(told)}", err=True)

    return Registry(open_repository(repo), on_failure=warn)


def named_version(reference: str) -> tuple[str, str]:
    """Name and version of `NAME@VERSION`, both of which must be given."""
    from textnlp_fast.storage.version_manager import parse_reference  # noqa: PLC0415

    parsed = parse_reference(reference)
    if parsed.version is None or not parsed.is_exact:
        raise InvalidInputError(
            f"{reference!r} names no version", hint=f"Write {parsed.name}@1.0.0, for example."
        )
    return parsed.name, parsed.version


def version_reference(reference: str) -> tuple[str, str]:
    """Name, and version, alias or stage, of `NAME@VERSION`; both must be given."""
    from textnlp_fast.storage.version_manager import parse_reference  # noqa: PLC0415

    parsed = parse_reference(reference)
    if parsed.version is None and not reference.endswith(("@latest", "/latest")):
        raise InvalidInputError(
            f"{reference!r} names no version", hint=f"Write {parsed.name}@1.0.0, or {parsed.name}@latest."
        )
    return parsed.name, parsed.version or "latest"


def chosen_prerelease(asked: str | None, version: str) -> str:
    """What to say where the latest was asked for and is a pre-release, for want of others; else nothing."""
    if asked is not None or "-" not in version:
        return ""
    return f"{version} is a pre-release: there is no other version"


def notes(texts: Iterable[str], what: str = "--meta") -> dict[str, str]:
    """What `--meta KEY=VALUE` said, given any number of times; `what` names it in errors."""
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InvalidInputError(f"{what} {text!r} is not KEY=VALUE")
        if key in found:
            raise InvalidInputError(
                f"{what} gives {key!r} twice: {found[key]!r} and {value!r}", hint="Give each key once."
            )
        found[key] = value
    return found


def agent_token(file: Path | None) -> str | None:
    """The token of a file, or of the environment; None if there is neither."""
    if file is None:
        return os.environ.get(AGENT_TOKEN_VARIABLE) or None
    token = file.read_text(encoding="utf-8", errors="replace").strip()
    if not token:
        raise InvalidInputError(f"{file} is empty", hint="Write a token into it: openssl rand -hex 32")
    return token
