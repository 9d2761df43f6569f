"""`textnlp-fast log`: a model's versions."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from textnlp_fast.cli.arguments import StorageVerb, json_option, open_repository, repository_option
from textnlp_fast.cli.changes import print_history
from textnlp_fast.cli.output import (
    complain_of,
    print_json,
    print_table,
    show_ratio,
    show_size,
    without_empty,
)

if TYPE_CHECKING:
    from textnlp_fast.contents.windows import DataError
    from textnlp_fast.storage import LogRow
    from textnlp_fast.storage.registry.state import References

EPILOG = """\b
Examples:
  textnlp-fast log my-model --repo s3://my-bucket/models
  textnlp-fast log my-model --changes                  (who moved what when)
"""


@click.command("log", cls=StorageVerb, epilog=EPILOG)
@click.argument("name")
@repository_option
@json_option
@click.option(
    "--changes",
    "all_changes",
    is_flag=True,
    help="Show every change of stages, aliases, tags and deployments.",
)
def command(name: str, repo: str | None, as_json: bool, all_changes: bool) -> int:
    """Show the versions of NAME, the newest first: sizes, parents, dates, messages, stages, aliases, deployments,
    pins.

    Versions that cannot be read are named last; the exit code is then that of the first of them.
    """
    from textnlp_fast.storage.registry.overview import overview  # noqa: PLC0415

    repository = open_repository(repo)
    if all_changes:
        from textnlp_fast.storage import Registry  # noqa: PLC0415

        print_history(list(Registry(repository).history(name)), as_json=as_json)
        return 0
    problems: dict[str, DataError] = {}
    rows = repository.log(name, problems=problems)[::-1]
    unread: dict[str, DataError] = {}
    said = overview(repository.store, [name], unread).get(name)
    problems |= {f"what is said of {each}": error for each, error in unread.items()}
    if as_json:
        print_json([{**asdict(row), "ratio": row.ratio, **_document(row.version, said)} for row in rows])
    else:
        _print(rows, said)
    return complain_of(problems)


def _document(version: str, said: References | None) -> dict[str, object]:
    if said is None:
        return {"stage": None, "aliases": None, "targets": None, "pinned": None}
    return {
        "stage": said.stage_of(version),
        "aliases": said.aliases_of(version),
        "targets": said.targets_of(version),
        "pinned": said.state_of(version).pinned,
    }


def _print(rows: list[LogRow], said: References | None) -> None:
    cells = [
        [
            row.version,
            row.parent or "-",
            row.created_at,
            row.message,
            *_said(row.version, said),
            show_size(row.raw_bytes),
            show_size(row.stored_bytes),
            show_ratio(row.ratio),
        ]
        for row in rows
    ]
    columns, cells = without_empty(
        [
            *("version", "parent", "date", "message", "stage", "aliases", "serves", "pinned"),
            *("raw", "stored", "ratio"),
        ],
        cells,
        keep=4,
    )
    print_table(columns, cells, left=len(columns) - 3, yields=3)


def _said(version: str, said: References | None) -> list[str]:
    """Stage, aliases, targets, and why it is pinned; nothing of a model of which nobody ever said anything."""
    if said is None or not said.revision:
        return ["", "", "", ""]
    pinned = said.state_of(version).pinned
    return [
        said.stage_of(version),
        " ".join(said.aliases_of(version)),
        " ".join(said.targets_of(version)),
        "" if pinned is None else pinned or "yes",
    ]
