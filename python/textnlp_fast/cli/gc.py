"""`textnlp-fast gc`: which versions and objects go, and why; `--delete` lets them go."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from textnlp_fast.cli.arguments import (
    StorageVerb,
    json_option,
    named_version,
    open_repository,
    repository_option,
    tuning_options,
)
from textnlp_fast.cli.output import print_json, print_line, print_table, progress_bar, show_size

if TYPE_CHECKING:
    from textnlp_fast.storage import GarbageReport

EPILOG = """\b
Examples:
  textnlp-fast gc                                           what no version needs
  textnlp-fast gc --keep-last 5 --keep-stage staging        which versions would go, and why
  textnlp-fast gc --keep-last 5 --older-than 30d --delete
  textnlp-fast gc --version my-model@1.0.0 --delete
A version goes only if no rule keeps it. The latest version, and what an alias, a pin, a stage or a deployment
names, stays whatever the rules say. Nothing is deleted without --delete.
"""


@click.command("gc", cls=StorageVerb, epilog=EPILOG)
@repository_option
@click.option(
    "--keep-last", type=click.IntRange(1), metavar="N", help="Keep the N highest versions of a model."
)
@click.option("--keep-stage", multiple=True, metavar="STAGE", help="Keep versions in this stage; may repeat.")
@click.option("--older-than", metavar="AGE", help="Keep versions younger than this: 30d, 12h, 2w.")
@click.option("--model", default="*", metavar="PATTERN", help="Models that the rules are for: 'org/*'.")
@click.option(
    "--version", "named", multiple=True, metavar="NAME@VERSION", help="Let this version go; may repeat."
)
@click.option("--delete", is_flag=True, help="Do it; without, only tell.")
@click.option(
    "--grace",
    default="1d",
    show_default=True,
    metavar="AGE",
    help="Delete an object once it was unused for as long. 0s frees space at once, and may cost pushes and pulls "
    "that are under way their work.",
)
@click.option(
    "--uploads-older-than",
    default="7d",
    show_default=True,
    metavar="AGE",
    help="Abort uploads that were begun longer ago and never finished. Give more than your longest upload takes.",
)
@click.option(
    "--rebase",
    is_flag=True,
    help="Store versions anew where keeping their old bases, or shards of which little is needed, costs more.",
)
@click.option("--all", "show_all", is_flag=True, help="Show the versions that stay, too.")
@tuning_options
@json_option
def command(
    *,
    repo: str | None,
    keep_last: int | None,
    keep_stage: tuple[str, ...],
    older_than: str | None,
    model: str,
    named: tuple[str, ...],
    delete: bool,
    grace: str,
    uploads_older_than: str,
    rebase: bool,
    show_all: bool,
    threads: int,
    memory_mib: int,
    as_json: bool,
) -> None:
    """Tell which versions and objects go and why; with --delete, let them go.

    Safe beside pushes, pulls and other collections. Objects are deleted by the first run after their grace: run it
    now and then.
    """
    from textnlp_fast.storage import CollectionOptions, RetentionRules  # noqa: PLC0415
    from textnlp_fast.storage.garbage.retention import parse_age  # noqa: PLC0415

    rules = RetentionRules(
        keep_last=keep_last,
        keep_stages=frozenset(keep_stage),
        older_than_s=parse_age(older_than) if older_than is not None else None,
    )
    options = CollectionOptions(
        policy=[(model, rules)],
        versions=[named_version(reference) for reference in named],
        delete=delete,
        rebase=rebase,
        grace_s=parse_age(grace),
        upload_age_s=parse_age(uploads_older_than),
    )
    repository = open_repository(repo, threads=threads, memory_mib=memory_mib)
    with progress_bar() as progress:
        report = repository.collect_garbage(options, progress=progress)
    if as_json:
        print_json(_document(report))
    else:
        _print(report, show_all=show_all, rebase=rebase, uploads_older_than=uploads_older_than)


def _document(report: GarbageReport) -> dict[str, object]:
    document = {key: value for key, value in asdict(report).items() if key not in ("verdicts", "rebased")}
    rows = [
        {
            "model": verdict.facts.model,
            "version": verdict.facts.version,
            "goes": verdict.goes and verdict.facts.name not in report.spared,
            "reasons": list(verdict.reasons),
        }
        for verdict in report.verdicts
    ]
    rebased = [
        {**asdict(proposal), "unwanted": len(proposal.unwanted), "versions": list(proposal.versions)}
        for proposal in report.rebased
    ]
    return {**document, "versions": rows, "rebased": rebased}


def _print(report: GarbageReport, *, show_all: bool, rebase: bool, uploads_older_than: str) -> None:
    rows = [
        [
            verdict.facts.name,
            "stays" if not verdict.goes else ("stayed" if verdict.facts.name in report.spared else "goes"),
            report.spared.get(verdict.facts.name, "; ".join(verdict.reasons)),
        ]
        for verdict in report.verdicts
        if show_all or verdict.goes
    ]
    if rows:
        print_table(["version", "", "why"], rows, left=3, yields=0)
    going = len(report.going) - len(report.spared)
    kept = len(report.verdicts) - going
    for proposal in report.rebased:
        count = f"{len(proposal.versions)} versions of {proposal.model}"
        freed = show_size(proposal.freed_bytes)
        if rebase and report.deleted:
            print_line(f"stored {count} anew: {freed} become unused")
        else:
            print_line(
                f"--rebase would store {count} anew: {freed} less for about {show_size(proposal.added_bytes)} more"
            )
    if report.uploads:
        print_line(
            f"{report.uploads} uploads ({show_size(report.uploads_bytes)}) were begun and never finished"
        )
    if report.uploads_younger:
        print_line(
            f"{report.uploads_younger} uploads, under way or abandoned, are younger than {uploads_older_than}: left"
        )
    if report.uploads_unknown:
        print_line(f"unfinished uploads were not looked for: {report.uploads_unknown}")
    if not report.deleted:
        unused = f"{report.unused_objects} objects ({show_size(report.unused_bytes)}) are or become unused"
        print_line(f"{going} versions would go, {kept} stay; {unused}")
        if going or report.unused_objects:
            print_line("nothing was deleted: --delete does it")
        return
    freed = f"{report.swept} objects ({show_size(report.swept_bytes)}) deleted"
    print_line(f"{going} versions went, {kept} stay; {freed}")
    if report.waiting:
        when = "later" if report.next_due_s is None else _moment(report.next_due_s)
        print_line(
            f"{report.waiting} objects ({show_size(report.waiting_bytes)}) are unused and wait out their grace: "
            f"run gc again after {when}"
        )


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
