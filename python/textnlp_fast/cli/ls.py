"""`textnlp-fast ls`: the models of a repository."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from textnlp_fast.cli.arguments import StorageVerb, json_option, open_repository, repository_option
from textnlp_fast.cli.output import complain_of, print_json, print_table, without_empty

if TYPE_CHECKING:
    from textnlp_fast.contents.windows import DataError
    from textnlp_fast.storage.registry.state import References

EPILOG = """\b
Example:
  textnlp-fast ls --repo s3://my-bucket/models
"""


@click.command("ls", cls=StorageVerb, epilog=EPILOG)
@repository_option
@json_option
def command(repo: str | None, as_json: bool) -> int:
    """List the models of a repository and their versions, and where these are and serve."""
    from textnlp_fast.storage.registry.overview import overview  # noqa: PLC0415
    from textnlp_fast.storage.version_manager import latest_of  # noqa: PLC0415

    repository = open_repository(repo)
    models = repository.models()
    problems: dict[str, DataError] = {}
    said = overview(repository.store, list(models), problems)
    if as_json:
        print_json(
            [
                {
                    "name": name,
                    "versions": versions,
                    "stages": {each: said[name].stage_of(each) for each in versions}
                    if name in said
                    else None,
                    "aliases": {alias: each.version for alias, each in said[name].aliases.items()}
                    if name in said
                    else None,
                    "deployments": {target: each.version for target, each in said[name].deployments.items()}
                    if name in said
                    else None,
                }
                for name, versions in models.items()
            ]
        )
    else:
        rows = [
            [name, latest_of(versions), str(len(versions)), *_said(said.get(name))]
            for name, versions in models.items()
        ]
        columns, rows = without_empty(
            ["model", "latest", "versions", "stages", "aliases", "serves"], rows, keep=3
        )
        print_table(columns, rows, left=len(columns), yields=0)
    return complain_of(problems)


def _said(references: References | None) -> list[str]:
    """Stages that are worth telling, aliases and deployments, each with its version."""
    if references is None:
        return ["", "", ""]
    stages = [
        f"{state.stage}={version}"
        for version, state in references.versions.items()
        if state.stage not in (None, *references.released_stages)
    ]
    aliases = [f"{name}={alias.version}" for name, alias in references.aliases.items()]
    serves = [f"{target}={each.version}" for target, each in references.deployments.items()]
    return [" ".join(sorted(each)) for each in (stages, aliases, serves)]
