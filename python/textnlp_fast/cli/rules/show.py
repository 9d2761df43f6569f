"""`textnlp-fast rules show`."""

from __future__ import annotations

import click

from textnlp_fast.cli.arguments import StorageVerb, json_option, open_registry, repository_option
from textnlp_fast.cli.output import print_json, print_line, print_table


@click.command("show", cls=StorageVerb)
@repository_option
@json_option
def command(*, repo: str | None, as_json: bool) -> None:
    """Show the rules; --json prints them as `rules set` reads them."""
    from textnlp_fast.storage.registry.rules import rules_document  # noqa: PLC0415

    rules = open_registry(repo).rules()
    if as_json:
        print_json(rules_document(rules))
        return
    stages = []
    for stage in rules.lifecycle.stages:
        facts = ["every version begins here"] if stage.name == rules.lifecycle.initial else []
        facts += ["keeps its versions"] if stage.keep else []
        facts += [f"holds one, the one before goes to {stage.replaces_to}"] if stage.replaces_to else []
        facts += ["final"] if stage.final else []
        moves = [
            move.target + (f" ({move.role})" if move.role else "")
            for move in rules.lifecycle.moves
            if move.source == stage.name
        ]
        stages.append([stage.name, ", ".join(moves), ", ".join(facts)])
    print_table(["stage", "moves to", ""], stages, left=3)
    for role, patterns in rules.roles.items():
        print_line(f"role {role}: {', '.join(patterns)}")
    print_line(f"protected aliases: {rules.protected_aliases or 'anybody who asks to'}")
    for webhook in rules.webhooks.values():
        print_line(
            f"webhook {webhook.name}: {webhook.url}, hears of {', '.join(webhook.events)}, "
            f"signed with {webhook.secret_env}"
        )
