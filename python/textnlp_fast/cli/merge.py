"""`textnlp-fast merge`: the model again that was sharded."""

from __future__ import annotations

import click

from textnlp_fast.cli.arguments import StorageVerb, json_option, threads_option
from textnlp_fast.cli.output import progress_bar
from textnlp_fast.cli.shard import model_at, report

EPILOG = """\b
Examples:
  textnlp-fast merge ranks/ llama-70b/
"""


@click.command("merge", cls=StorageVerb, epilog=EPILOG)
@click.argument("model")
@click.argument("output", type=click.Path(file_okay=False))
@click.option(
    "--repo",
    envvar="TEXTNLP_FAST_REPO",
    show_envvar=True,
    metavar="URL",
    help="Where MODEL is a version, if nothing on this machine has its name.",
)
@threads_option
@json_option
def command(*, model: str, output: str, repo: str | None, threads: int, as_json: bool) -> None:
    """Make OUTPUT the files that MODEL, a directory of shards or of ranks, was made from, byte for byte.

    What is read is held against the digests in shards.json, and nothing comes of damaged shards. Without a record of
    the files, OUTPUT has all tensors in one.
    """
    from textnlp_fast.storage.sharding import merge_shards  # noqa: PLC0415

    with progress_bar() as progress:
        manifest = merge_shards(
            **model_at(model, repo), output_dir=output, threads=threads, progress=progress
        )
    report(manifest, as_json)
