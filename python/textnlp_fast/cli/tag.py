"""`textnlp-fast tag`: tags of models and versions."""

from __future__ import annotations

import click

from textnlp_fast.cli.arguments import StorageVerb, json_option, notes, open_registry, repository_option
from textnlp_fast.cli.changes import print_changes
from textnlp_fast.cli.output import print_json, print_table

EPILOG = """\b
Examples:
  textnlp-fast tag my-model team=nlp                       (the model)
  textnlp-fast tag my-model@1.2.0 eval/mmlu=0.71 --remove draft-note
  textnlp-fast tag my-model@1.2.0                          (show)
"""


@click.command("tag", cls=StorageVerb, epilog=EPILOG)
@click.argument("reference", metavar="NAME[@VERSION]")
@click.argument("tags", nargs=-1, metavar="[KEY=VALUE]...")
@repository_option
@click.option("--remove", multiple=True, metavar="KEY", help="Remove a tag; may repeat.")
@json_option
def command(
    *, reference: str, tags: tuple[str, ...], repo: str | None, remove: tuple[str, ...], as_json: bool
) -> None:
    """Set tags of a version, or of a model if no version is named; without KEY=VALUE show them."""
    from textnlp_fast.storage.version_manager import parse_reference  # noqa: PLC0415

    parsed = parse_reference(reference)
    registry = open_registry(repo)
    named = "@" in reference or reference.startswith("models:/")
    version = registry.resolve(parsed.name, parsed.version) if named else None
    if tags or remove:
        changes = registry.tag(parsed.name, version, notes(tags, what="tag"), remove=remove)
        print_changes(changes, as_json=as_json)
        return
    references = registry.references(parsed.name)
    found = references.tags if version is None else references.state_of(version).tags
    if as_json:
        print_json(dict(sorted(found.items())))
        return
    print_table(["tag", "value"], [list(pair) for pair in sorted(found.items())], left=2, yields=1)
