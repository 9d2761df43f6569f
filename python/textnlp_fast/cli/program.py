"""The program behind the verbs: which there are, and what an error looks like and exits with."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from textnlp_fast.cli.interrupts import ending_at_once

if TYPE_CHECKING:
    from textnlp_fast.errors import TextnlpFastError

__all__ = ["VERBS", "AnsweredError", "Verbs", "printable", "run"]

# One line each, here and not in the verbs' files, so that `--help` loads none of them.
VERBS = {
    "push": "Publish a model's files as a version.",
    "pull": "Make a directory with a version's files.",
    "sign": "Sign a version with a private key.",
    "log": "Show a model's versions.",
    "diff": "Explain what changed between two versions, or two models on disk.",
    "verify": "Check that everything is there and unharmed.",
    "gc": "Delete what no version needs, and the versions that no rule keeps.",
    "ls": "List the models of a repository.",
    "show": "Show one version: files, tensors, where they are stored.",
    "upload": "Move a file into a bucket; run again, it goes on.",
    "download": "Move an object into a file; run again, it goes on.",
    "shard": "Cut a model into files: by size, layer, expert, stage or rank.",
    "reshard": "Cut shards, or ranks, in another way.",
    "merge": "Make the model again that was sharded.",
    "stage": "Move a version along its life: draft, staging, production, archived.",
    "alias": "Give versions names that can move: champion, canary.",
    "tag": "Tag models and versions, and show their tags.",
    "pin": "Keep a version for good.",
    "search": "Find versions by name, stage, tags, version range and date.",
    "deploy": "Serve a model as one description says, on whatever runs it.",
    "deployments": "Note what serves where, and roll back the note.",
    "lineage": "Show what a version was made of.",
    "card": "Show the README that a version was pushed with.",
    "rules": "Show and set the registry's rules: stages, roles, webhooks.",
    "import-hub": "Publish what the local cache of Hugging Face has of a model.",
    "export-hub": "Write a version into the local cache of Hugging Face.",
    "export-oci": "Write a version as an OCI image layout.",
    "delta": "Make, apply, inspect and squash patches: no repository needed.",
    "gpu": "Choose, rent and watch the machines that serve.",
    "serve": "Serve repository, registry and fleet over HTTP, with a dashboard.",
    "gateway": "Put one OpenAI-compatible address in front of many engines.",
    "node-cache": "Keep pieces of a repository on this machine, and give them to others.",
    "audit": "Show who changed what, and check that the log of it is whole.",
    "config": "Show settings and where each comes from.",
    "info": "Show what this machine and this build offer.",
}

EPILOG = """\b
Examples:
  export TEXTNLP_FAST_REPO=s3://my-bucket/models
  textnlp-fast push my-model/ my-model@1.0.0
  textnlp-fast pull my-model@1.0.0 out/

\b
Exit codes: 2 wrong call or input, 3 not found, 4 version exists or wrong base of a patch, 5 corrupt or missing
data, 6 newer format, 7 conflict, 8 store unavailable, 9 not authorised or not allowed, 10 disk full, 11 device,
12 signature missing or wrong, 13 nothing serves the workload, 14 no capacity or quota, 15 over a price cap or budget,
70 bug, 130 interrupted.
"""


class AnsweredError(Exception):
    """An error that a verb has said on stdout in a document of its own."""

    def __init__(self, error: TextnlpFastError) -> None:
        super().__init__(error)
        self.error = error


class Verbs(click.Group):
    """Verbs with a line each, whose files lie in a package; loads a file when its verb is called."""

    def __init__(self, *arguments: Any, verbs: Mapping[str, str], package: str, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._verbs = verbs
        self._package = package

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._verbs:
            return None
        with ending_at_once():
            command: click.Command = import_module(f"{self._package}.{cmd_name.replace('-', '_')}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self._verbs:
            with formatter.section("Commands"):
                formatter.write_dl(list(self._verbs.items()))


def _version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from textnlp_fast import __version__  # noqa: PLC0415

        click.echo(f"textnlp-fast {__version__}")
        ctx.exit()


@click.command(
    cls=Verbs,
    verbs=VERBS,
    package="textnlp_fast.cli",
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Print the version and exit.",
)
def group() -> None:
    """Store every version of a model in your own bucket, move only what changed."""
    with ending_at_once():
        from textnlp_fast.cli.info import isa_warning  # noqa: PLC0415

        warning = isa_warning()
    if warning:
        click.echo(f"{click.style('warning:', fg='yellow', bold=True)} {warning}", err=True)


def run(arguments: list[str] | None = None) -> None:
    """Runs the command line and exits the process with the code of what happened."""
    from textnlp_fast.errors import NoPlanError, OutOfSpaceError, TextnlpFastError  # noqa: PLC0415

    words = sys.argv[1:] if arguments is None else arguments
    answer = _answer if _wants_json(words) else _no_answer
    try:
        result = group.main(arguments, prog_name="textnlp-fast", standalone_mode=False)
        sys.stdout.flush()
        sys.exit(result if isinstance(result, int) else 0)
    except AnsweredError as answered:
        _complain(str(answered.error.args[0]), answered.error.hint)
        sys.exit(answered.error.exit_code)
    except NoPlanError as error:
        # In Python the message lists the reasons, a line each: they are said apart here.
        message = str(error.args[0]).split("\n", 1)[0]
        answer(message, error.hint, rejected=[{"what": what, "why": why} for what, why in error.rejected])
        _say_why_not(error.rejected)
        _complain(message, error.hint)
        sys.exit(error.exit_code)
    except TextnlpFastError as error:
        answer(str(error.args[0]), error.hint)
        _complain(str(error.args[0]), error.hint)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        answer(error.format_message(), _way_out(error))
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output went away; say nothing, and keep Python from trying again at exit.
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:
        code = OutOfSpaceError.exit_code if error.errno == errno.ENOSPC else 1
        what = "the output cannot be written" if error.filename is None else str(error.filename)
        message = f"{what}: {error.strerror or error}"
        if error.filename is not None:
            with suppress(OSError):  # stdout may be what is full
                answer(message, "")
        _forget_output()
        _complain(message, "")
        sys.exit(code)


def _wants_json(words: Sequence[str]) -> bool:
    """Whether `--json` is among the options: known even of words that no verb can read."""
    return "--json" in words[: words.index("--") if "--" in words else len(words)]


def _answer(message: str, hint: str, **more: Any) -> None:
    """What went wrong, as a document for scripts on stdout; in words for people it goes to stderr all the same."""
    text = json.dumps({"error": message, "hint": hint, **more}, indent=2, ensure_ascii=False)
    click.echo(text.encode("utf-8", "backslashreplace").decode())


def _no_answer(message: str, hint: str, **more: Any) -> None:
    """Nothing on stdout: a table was asked for, and there is none."""


def _way_out(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return "" if context is None else f"`{context.command_path} --help` says what it takes."


def _forget_output() -> None:
    """Sends what is still buffered nowhere: Python would try to write it again at exit."""
    with suppress(OSError, ValueError):  # a stdout that is no file has nothing to redirect
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _say_why_not(rejected: tuple[tuple[str, str], ...]) -> None:
    """The reasons as under the plans of an answer that has some; on stderr, as no answer is on stdout."""
    if rejected:
        click.echo("Not these:", err=True)
    for what, why in rejected:
        click.echo(printable(f"  {what}: {why}"), err=True)


def _complain(message: str, hint: str) -> None:
    click.echo(f"{click.style('error:', fg='red', bold=True)} {printable(message)}", err=True)
    if hint:
        click.echo(f"{click.style('hint:', fg='cyan')}  {printable(hint)}", err=True)


def printable(text: str) -> str:
    """The text with control characters spelled out: names and messages come from whoever pushed them."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
