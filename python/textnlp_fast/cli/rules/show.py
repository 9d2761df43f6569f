"""`textnlp-fast rules show`."""

from __future__ import annotations

from dataclasses import asdict

import click

from textnlp_fast.cli.arguments import (
    StorageVerb,
    json_option,
    open_registry,
    open_repository,
    repository_option,
)
from textnlp_fast.cli.output import print_json, print_line, print_table


@click.command("show", cls=StorageVerb)
@repository_option
@click.option("--history", is_flag=True, help="Show who set them when, and what that changed.")
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=50,
    show_default=True,
    help="The newest so many changes.",
)
@json_option
def command(*, repo: str | None, history: bool, limit: int, as_json: bool) -> None:
    """Show the rules; --json prints them as `rules set` reads them."""
    if history:
        _print_history(repo, limit, as_json)
        return
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
    everyone = "who has all of these roles" if rules.roles else "anybody"
    print_line(f"these rules are changed by: {rules.administer or everyone}")
    for webhook in rules.webhooks.values():
        print_line(
            f"webhook {webhook.name}: {webhook.url}, hears of {', '.join(webhook.events)}, "
            f"signed with {webhook.secret_env}"
        )


def _print_history(repo: str | None, limit: int, as_json: bool) -> None:
    from textnlp_fast.storage.registry.rules_changes import rules_history  # noqa: PLC0415

    found = list(rules_history(open_repository(repo).store, limit))
    if as_json:
        print_json([asdict(change) for change in found])
        return
    for change in found:
        digests = f"{change.before[:12]} -> {change.after[:12]}"
        print_line(f"record {change.record}, {change.time}, {change.actor}, {change.outcome}: {digests}")
        for line in change.changes:
            print_line(f"  {line}")
    if not found:
        print_line("the audit log tells of no change of the rules")
