"""`textnlp-fast shard`: cut a model into files, by size, layer, expert, stage or rank."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from textnlp_fast.cli.arguments import StorageVerb, json_option, open_repository, threads_option
from textnlp_fast.cli.configured import current_settings, setting
from textnlp_fast.cli.output import print_json, print_line, progress_bar, show_size
from textnlp_fast.cli.sizes import size

if TYPE_CHECKING:
    from textnlp_fast.storage.sharding import ShardManifest

__all__ = ["command", "model_at", "report", "shard_options"]

EPILOG = """\b
Examples:
  textnlp-fast shard model.safetensors shards/ --max-shard-size 2GB
  textnlp-fast shard llama-70b/ ranks/ --strategy tensor_parallel --ranks 8
  textnlp-fast shard my-model@1.0.0 shards/ --repo s3://my-bucket/models

\b
Strategies: size_based, layer_based (whole layers), tensor_parallel (a directory a rank), expert_based (experts
dealt out), pipeline (stages), adaptive (chooses, and says why).
"""


def shard_options(command: Any) -> Any:
    """What says how to cut."""
    for option in (
        threads_option,
        click.option("--model-id", metavar="NAME", help="What the record calls the model."),
        click.option(
            "--repo",
            envvar="TEXTNLP_FAST_REPO",
            show_envvar=True,
            metavar="URL",
            help="Where MODEL is a version, if nothing on this machine has its name.",
        ),
        click.option(
            "--whole",
            "keep_whole",
            multiple=True,
            metavar="PATTERN",
            help="tensor_parallel: tensors that every rank holds whole; may repeat.",
        ),
        click.option("--hosts", type=click.IntRange(1), help="Machines that will serve it together."),
        click.option("--ranks", type=click.IntRange(1), help="Ranks, groups of experts, or stages."),
        click.option(
            "--max-shard-size",
            type=size,
            default=setting("max_shard_size_gb", "2GB", lambda gigabytes: str(int(gigabytes * 10**9))),
            metavar="SIZE",
            help="Largest file; if not given, what MAX_SHARD_SIZE_GB or the settings say, else 2GB.",
        ),
    ):
        command = option(command)
    return command


def model_at(model: str, repo: str | None) -> dict[str, Any]:
    """The model, and the repository if it is a version there, or may be."""
    if Path(model).exists():
        return {"model": model, "repository": None}
    settings = None if repo else current_settings()
    named = bool(repo) or (settings is not None and bool(settings.repository_url))
    return {"model": model, "repository": open_repository(repo) if named else None}


def report(manifest: ShardManifest, as_json: bool) -> None:
    """Says what was made."""
    if as_json:
        print_json(asdict(manifest))
        return
    if manifest.already_there:
        print_line(f"{manifest.output_dir} has these shards already")
        return
    print_line(
        f"{manifest.strategy}: {show_size(manifest.total_bytes)} in {len(manifest.files)} files in "
        f"{manifest.output_dir}, {manifest.seconds:.2f} s"
    )
    print_line(f"because: {manifest.reason}")
    for note in manifest.notes:
        print_line(note)


@click.command("shard", cls=StorageVerb, epilog=EPILOG)
@click.argument("model")
@click.argument("output", type=click.Path(file_okay=False))
@click.option(
    "--strategy",
    type=click.Choice(
        ["adaptive", "size_based", "layer_based", "tensor_parallel", "expert_based", "pipeline"]
    ),
    default="adaptive",
    show_default=True,
)
@shard_options
@json_option
def command(
    *,
    model: str,
    output: str,
    strategy: str,
    max_shard_size: int,
    ranks: int | None,
    hosts: int | None,
    keep_whole: tuple[str, ...],
    repo: str | None,
    model_id: str | None,
    threads: int,
    as_json: bool,
) -> None:
    """Make OUTPUT a directory of shards of MODEL: a file, a directory, shards made before, or NAME[@VERSION].

    Nothing is there before all of it is. Bytes that stay as they are do not pass through this process.
    """
    from textnlp_fast.storage.sharding import shard_model  # noqa: PLC0415

    with progress_bar() as progress:
        manifest = shard_model(
            **model_at(model, repo),
            output_dir=output,
            strategy=strategy,  # type: ignore[arg-type]
            model_id=model_id,
            max_shard_bytes=max_shard_size,
            ranks=ranks,
            hosts=hosts,
            keep_whole=keep_whole,
            threads=threads,
            progress=progress,
        )
    report(manifest, as_json)
