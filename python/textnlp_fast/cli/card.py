"""`textnlp-fast card`: the README of a version."""

from __future__ import annotations

import click

from textnlp_fast.cli.arguments import StorageVerb, json_option, open_repository, repository_option
from textnlp_fast.cli.output import print_json, print_line
from textnlp_fast.errors import InvalidInputError

EPILOG = """\b
Example:
  textnlp-fast card my-model@1.2.0
"""


@click.command("card", cls=StorageVerb, epilog=EPILOG)
@click.argument("reference", metavar="NAME[@VERSION]")
@repository_option
@json_option
def command(*, reference: str, repo: str | None, as_json: bool) -> None:
    """Show the README.md that a version was pushed with: its front matter, then its text. Nothing else is read."""
    from textnlp_fast.storage.registry.cards import read_card  # noqa: PLC0415
    from textnlp_fast.storage.version_manager import parse_reference  # noqa: PLC0415

    parsed = parse_reference(reference)
    card = read_card(open_repository(repo), parsed.name, parsed.version)
    if card is None:
        raise InvalidInputError(
            f"{reference} was pushed without a README.md",
            hint="Push the next version from a directory with one.",
        )
    if as_json:
        print_json(
            {
                "model": card.model,
                "version": card.version,
                "metadata": card.metadata,
                "text": card.text,
                "problem": card.problem,
            }
        )
        return
    print_line(f"{card.model}@{card.version}")
    for key, value in card.metadata.items():
        print_line(f"{key:20s} {_plain(value)}")
    if card.problem:
        print_line(f"the front matter cannot be read: {card.problem}")
    print_line("")
    for line in card.text.splitlines():
        print_line(line)


def _plain(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_plain(each)}" for key, each in value.items()) + "}"
    return str(value)
