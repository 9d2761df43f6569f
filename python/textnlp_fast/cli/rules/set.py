"""`textnlp-fast rules set`."""

from __future__ import annotations

import click

from textnlp_fast.cli.arguments import StorageVerb, open_registry, repository_option
from textnlp_fast.cli.output import print_line

EPILOG = """\b
A file may have any of these; what it lacks is as by default:
  {"roles": {"release": ["alice", "ci-*"], "admins": ["alice"]},
   "administer": "admins",
   "protected_aliases": "release",
   "lifecycle": {"stages": [{"name": "draft"}, {"name": "live", "keep": true, "final": true}],
                 "moves": [{"from": "draft", "to": "live", "role": "release"}]},
   "webhooks": {"chat": {"url": "https://example.org/hook", "secret_env": "HOOK_KEY", "events": ["stage"]}}}
"""


@click.command("set", cls=StorageVerb, epilog=EPILOG)
@click.argument("path", type=click.Path(exists=True, dir_okay=False))
@repository_option
def command(*, path: str, repo: str | None) -> None:
    """Replace the repository's rules by those in PATH, a JSON file as `rules show --json` prints it.

    Refused while versions are in stages that the new rules do not have. Once there are roles, only who has the role
    "administer" of the rules that are there (without one: who has every role) may replace them. The rules bind whoever
    uses textnlp-fast; who may write to the bucket at all is for its own policy to say.
    """
    from textnlp_fast.storage.registry.rules import rules_from_file  # noqa: PLC0415

    rules = open_registry(repo).set_rules(rules_from_file(path))
    print_line(f"rules set, revision {rules.revision}; `textnlp-fast rules show` shows them")
