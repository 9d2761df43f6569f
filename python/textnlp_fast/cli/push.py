"""`textnlp-fast push`: publish a model's files as a version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from textnlp_fast.cli.arguments import (
    StorageVerb,
    json_option,
    named_version,
    notes,
    open_repository,
    repository_option,
    tuning_options,
)
from textnlp_fast.cli.configured import setting
from textnlp_fast.cli.output import print_json, print_line, print_table, progress_bar, show_ratio, show_size
from textnlp_fast.cli.program import printable
from textnlp_fast.cli.signing import private_key

if TYPE_CHECKING:
    from textnlp_fast.storage import FeatureUse, Forecast
    from textnlp_fast.storage.manifest import Manifest

EPILOG = """\b
Examples:
  textnlp-fast push my-model/ my-model@1.0.0 --repo s3://my-bucket/models
  textnlp-fast push step-200/ policy@0.2.0 --parent 0.1.0 --base step-100/ -m "200 steps"
"""


@click.command("push", cls=StorageVerb, epilog=EPILOG)
@click.argument("path", type=click.Path(exists=True))
@click.argument("reference", metavar="NAME@VERSION")
@repository_option
@click.option(
    "--parent",
    default=setting("enable_versioning", "auto", lambda versioning: "auto" if versioning else "none"),
    metavar="VERSION",
    help="Version to code against, also NAME@VERSION; 'auto' is the highest below, or what costs less; "
    "'none' stores by itself.",
)
@click.option(
    "--base", "base_path", type=click.Path(exists=True), help="The parent's files, if they are here."
)
@click.option("-m", "--message", default="", help="A line for the log.")
@click.option(
    "--meta", "metadata", multiple=True, metavar="KEY=VALUE", help="A note in the manifest; may repeat."
)
@click.option("--base-model", metavar="NAME@VERSION", help="What it was fine-tuned from; also a URL.")
@click.option("--trained-from", metavar="NAME@VERSION", help="What training went on from, if not --parent.")
@click.option("--adapter", metavar="NAME@VERSION", help="What was merged into it; also a URL.")
@click.option("--dataset", metavar="DIGEST", help="What it was trained on: sha256:9f86...")
@click.option("--run", "training_run", metavar="TEXT", help="What finds the training run again.")
@click.option(
    "--sign-key", type=click.Path(exists=True, dir_okay=False), help="Private key (PEM) to sign with."
)
@click.option(
    "--dry-run", is_flag=True, help="Say what would be stored, in which way and why; write nothing."
)
@tuning_options
@json_option
def command(
    *,
    path: str,
    reference: str,
    repo: str | None,
    parent: str,
    base_path: str | None,
    message: str,
    metadata: tuple[str, ...],
    base_model: str | None,
    trained_from: str | None,
    adapter: str | None,
    dataset: str | None,
    training_run: str | None,
    sign_key: str | None,
    dry_run: bool,
    threads: int,
    memory_mib: int,
    as_json: bool,
) -> None:
    """Publish PATH, a safetensors file or a Hugging Face directory, as NAME@VERSION.

    Only tensors that the repository lacks are stored: each coded against the same tensor of the parent
    version or of an older one, or by itself, whatever costs least to store and restore. Nobody sees the
    version before all of it is there; pushing the same files again changes nothing.
    """
    from textnlp_fast.storage.registry.lineage import Lineage, exact_lineage  # noqa: PLC0415

    name, version = named_version(reference)
    lineage = Lineage(
        base_model=base_model,
        parent=trained_from,
        adapter=adapter,
        dataset_digest=dataset,
        training_run=training_run,
    )
    # Who names a parent here wants it used, whatever is set.
    chosen = {} if parent == "none" else {"delta": True}
    repository = open_repository(repo, create="at push", threads=threads, memory_mib=memory_mib, **chosen)
    key = private_key(sign_key)
    if dry_run:
        lineage_of_parent = None if parent == "none" else parent
        with progress_bar() as progress:
            forecast = repository.plan_push(
                path, name, version, parent=lineage_of_parent, base_path=base_path, progress=progress
            )
        show_forecast(forecast, as_json)
        return
    said = notes(metadata) | exact_lineage(repository, name, version, lineage).metadata()
    with progress_bar() as progress:
        report = repository.push(
            path,
            name,
            version,
            parent=None if parent == "none" else parent,
            base_path=base_path,
            message=message,
            metadata=said,
            sign_key=key,
            progress=progress,
        )
    if report.already_there:
        warn_unrecorded(repository.manifest(name, version), message, said)
    if as_json:
        print_json({**asdict(report), "ratio": report.ratio if report.stored_bytes else None})
        return
    if report.passed_over:
        print_line(
            f"passed over {', '.join(report.passed_over)}: unreadable, see `textnlp-fast verify {name}`"
        )
    if report.already_there:
        healed = f"; {show_size(report.uploaded_bytes)} of it put back" if report.uploaded_bytes else ""
        print_line(f"{name}@{version} is there already, with these files{healed}")
        return
    against = f" against {report.base}" if report.base else ""
    print_line(
        f"pushed {name}@{version}{against}: {show_size(report.raw_bytes)} in {report.files} files, "
        f"{show_size(report.stored_bytes)} stored ({show_ratio(report.ratio)}), "
        f"{report.seconds:.2f} s, {report.gigabytes_per_s:.2f} GB/s"
    )
    if report.base != report.parent:
        print_line(report.reason)


def warn_unrecorded(manifest: Manifest, message: str, said: Mapping[str, str]) -> None:
    """Says what was given with a version that is there already, and is not what that version has."""
    lost = ["message"] if message and message != manifest.message else []
    lost += [
        key.removeprefix("lineage.") for key, value in said.items() if manifest.metadata.get(key) != value
    ]
    if lost:
        told = (
            f"{manifest.model}@{manifest.version} is there already and versions do not change: "
            f"not recorded: {', '.join(lost)} (tags can be: textnlp-fast tag)"
        )
        click.echo(f"{click.style('note:', fg='yellow', bold=True)} {printable(told)}", err=True)


def show_features(features: Sequence[FeatureUse]) -> None:
    """A line for each way of storing the model's bytes."""
    for use in features:
        print_line(
            f"  {use.feature}: {use.contents} of {show_size(use.raw_bytes)} in {show_size(use.stored_bytes)}: "
            f"{use.reason}"
        )


def show_forecast(forecast: Forecast, as_json: bool) -> None:
    """What a push would do."""
    if as_json:
        print_json({**asdict(forecast), "cheapest": forecast.cheapest})
        return
    print_line(
        f"{forecast.model}@{forecast.version} would take {show_size(forecast.stored_bytes)} of "
        f"{show_size(forecast.raw_bytes)}, {show_size(forecast.new_bytes)} of them new; some {forecast.seconds:.1f} s"
    )
    print_line(forecast.reason)
    show_features(forecast.features)
    if forecast.options:
        print_table(
            ["option", "stored", "seconds", "USD alone", ""],
            [
                [
                    one.name,
                    show_size(one.stored_bytes),
                    f"{one.seconds:.1f}",
                    f"{one.usd:.4g}",
                    "chosen" if one.name == forecast.chosen else "" if one.allowed else "not considered",
                ]
                for one in forecast.options
            ],
        )
        print_line("USD alone: to keep and restore this version by itself.")
        if "what follows" in forecast.reason:
            print_line(
                "The choice above counts the versions that may follow, too: its difference is another one."
            )
