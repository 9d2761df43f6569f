"""`textnlp-fast lineage`: what a version was made of."""

from __future__ import annotations

import click

from textnlp_fast.cli.arguments import StorageVerb, json_option, open_repository, repository_option
from textnlp_fast.cli.output import print_json, print_line

EPILOG = """\b
Example:
  textnlp-fast lineage my-model@1.2.0
What a version was made of is said when it is pushed: `textnlp-fast push --base-model`, `--adapter`, ...
"""


@click.command("lineage", cls=StorageVerb, epilog=EPILOG)
@click.argument("reference", metavar="NAME[@VERSION]")
@repository_option
@json_option
def command(*, reference: str, repo: str | None, as_json: bool) -> None:
    """Show a version and all that it comes from: base models, parents, adapters, data, training runs."""
    from textnlp_fast.storage.registry.lineage import walk  # noqa: PLC0415
    from textnlp_fast.storage.version_manager import parse_reference  # noqa: PLC0415

    parsed = parse_reference(reference)
    ancestors = walk(open_repository(repo), parsed.name, parsed.version)
    if as_json:
        print_json(
            [
                {
                    "name": each.name,
                    "version": each.version,
                    "relation": each.relation,
                    "of": each.of,
                    "depth": each.depth,
                    "dataset_digest": each.lineage.dataset_digest,
                    "training_run": each.lineage.training_run,
                }
                for each in ancestors
            ]
        )
        return
    children: dict[str, list[int]] = {}
    for number, each in enumerate(ancestors):
        children.setdefault(each.of, []).append(number)
    waiting = [0]
    while waiting:
        each = ancestors[waiting.pop()]
        relation = f"{each.relation.replace('_', ' ')} " if each.relation else ""
        facts = [f"data {each.lineage.dataset_digest}"] if each.lineage.dataset_digest else []
        facts += [f"run {each.lineage.training_run}"] if each.lineage.training_run else []
        print_line("  " * each.depth + relation + str(each) + (f"  ({', '.join(facts)})" if facts else ""))
        waiting += reversed(children.get(str(each), []))
