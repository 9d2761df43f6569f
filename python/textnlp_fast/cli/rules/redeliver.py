"""`textnlp-fast rules redeliver`."""

from __future__ import annotations

import click

from textnlp_fast.cli.arguments import StorageVerb, json_option, open_registry, repository_option
from textnlp_fast.cli.output import print_json, print_line, print_table
from textnlp_fast.errors import StorageUnavailableError


@click.command("redeliver", cls=StorageVerb)
@repository_option
@click.option("--dry-run", is_flag=True, help="Only list them.")
@click.option("--forget", is_flag=True, help="Delete those that do not arrive this time either.")
@json_option
def command(*, repo: str | None, dry_run: bool, forget: bool, as_json: bool) -> int:
    """Send again what webhooks did not take; what arrives is taken off the list."""
    registry = open_registry(repo)
    if dry_run:
        waiting = list(registry.undelivered())
        rows = [[at, each.webhook, each.message.action, each.reason] for each, at in waiting]
    else:
        rows = [
            ["", each.webhook, each.message.action, each.reason] for each in registry.redeliver(forget=forget)
        ]
    if as_json:
        print_json([dict(zip(("at", "webhook", "action", "reason"), row, strict=True)) for row in rows])
    elif rows:
        print_table(["date", "webhook", "action", "reason"], rows, left=4, yields=3)
    else:
        print_line("nothing is waiting" if dry_run else "all of it arrived")
    return 0 if dry_run or not rows else StorageUnavailableError.exit_code
