"""`textnlp-fast deployments list`."""

from __future__ import annotations

import click

from textnlp_fast.cli.arguments import StorageVerb, json_option, open_registry, repository_option
from textnlp_fast.cli.deployments.listing import deployment_document
from textnlp_fast.cli.output import print_json, print_table


@click.command("list", cls=StorageVerb)
@click.argument("name", required=False)
@repository_option
@json_option
def command(*, name: str | None, repo: str | None, as_json: bool) -> None:
    """List what serves where: of NAME, or of all models."""
    found = open_registry(repo).deployments(name)
    rows = [
        (model, target, each)
        for model, deployed in found.items()
        for target, each in sorted(deployed.items())
    ]
    if as_json:
        print_json([deployment_document(*row) for row in rows])
        return
    print_table(
        ["target", "model", "version", "since", "by", "state", "before", "note"],
        [
            [
                target,
                model,
                each.version,
                each.since,
                each.by,
                each.state,
                *(each.previous[:1] or [""]),
                each.note,
            ]
            for model, target, each in rows
        ],
        left=8,
        yields=7,
    )
