"""`textnlp-fast search`: versions that fit a query."""

from __future__ import annotations

from itertools import islice

import click

from textnlp_fast.cli.arguments import StorageVerb, json_option, open_repository, repository_option
from textnlp_fast.cli.output import print_json, print_line, print_table

EPILOG = """\b
Examples:
  textnlp-fast search 'name = "org/*" and stage = production'
  textnlp-fast search 'tag.team = nlp and version = ^1.2.0 and created >= 2025-01-01'
  textnlp-fast search 'alias = champion or target = eu/*'
  textnlp-fast search 'not stage = archived and meta.architecture = transformer'
"""


@click.command("search", cls=StorageVerb, epilog=EPILOG)
@click.argument("query", required=False, default="")
@repository_option
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Versions to show.")
@json_option
def command(*, query: str, repo: str | None, limit: int, as_json: bool) -> None:
    """Find versions: comparisons of name, version, stage, alias, target, created, tag.KEY and meta.KEY.

    Join them by `and`, `or`, `not` and parentheses. = and != compare; names, aliases and targets take * and ?; versions
    and dates also take < <= > >=, and versions ranges: = ^1.2.0 (compatible), = ~1.2.0 (patches).
    """
    from textnlp_fast.storage.registry.searching import search  # noqa: PLC0415

    found = list(islice(search(open_repository(repo), query), limit + 1))
    rows, more = found[:limit], len(found) > limit
    if as_json:
        print_json(
            [
                {
                    "name": row.name,
                    "version": row.version,
                    "stage": row.stage,
                    "aliases": list(row.aliases),
                    "targets": list(row.targets),
                    "tags": dict(row.tags),
                    "created_at": row.created_at,
                }
                for row in rows
            ]
        )
        return
    print_table(
        ["model", "version", "stage", "aliases", "serves", "date", "tags"],
        [
            [
                row.name,
                row.version,
                row.stage,
                " ".join(row.aliases),
                " ".join(row.targets),
                row.created_at,
                " ".join(f"{key}={value}" for key, value in sorted(row.tags.items())),
            ]
            for row in rows
        ],
        left=7,
        yields=6,
    )
    if more:
        print_line(f"there are more: --limit {2 * limit} shows them")
