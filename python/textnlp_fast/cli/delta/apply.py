"""`textnlp-fast delta apply`: make a model from another one and a patch."""

from __future__ import annotations

from dataclasses import asdict

import click

from textnlp_fast.cli.arguments import PatchVerb, json_option, tuning_options
from textnlp_fast.cli.output import print_json, print_line, progress_bar, show_size

EPILOG = """\b
Examples:
  textnlp-fast delta apply changes.tnpatch v1.0.safetensors v1.1.safetensors
  textnlp-fast delta apply changes.tnpatch model/ model/      (update in place)
Exits with 4 if SOURCE is not the model that the patch starts from.
"""


@click.command("apply", cls=PatchVerb, epilog=EPILOG)
@click.argument("patch", type=click.Path(exists=True, dir_okay=False))
@click.argument("source", type=click.Path(exists=True))
@click.argument("dest", type=click.Path())
@click.option(
    "--check-against",
    "original",
    type=click.Path(exists=True),
    metavar="ORIGINAL",
    help="Hold what was made against the true version: within the patch's promise, or equal if it is exact.",
)
@tuning_options
@json_option
def command(
    *, patch: str, source: str, dest: str, original: str | None, threads: int, memory_mib: int, as_json: bool
) -> None:
    """Make DEST out of SOURCE and PATCH, every digest checked before and after.

    DEST is a .safetensors file, if the model is one file, or a directory. It may be SOURCE itself. It is as it was
    until the new model is complete.
    """
    from textnlp_fast.delta import apply_patch, check_promise  # noqa: PLC0415

    with progress_bar() as progress:
        report = apply_patch(
            patch, source, dest, memory_budget_bytes=memory_mib << 20, threads=threads, progress=progress
        )
        if original is not None:
            check_promise(patch, original, report.path, progress=progress)
    if as_json:
        print_json(asdict(report))
        return
    what = f"version {report.target_version}" if report.target_version else report.target_digest[:12]
    if report.finished_earlier_run:
        print_line(f"{report.path} is {what}: an earlier run was interrupted, and is complete now")
        return
    kept = f" ({report.kept_files} of them in place already)" if report.kept_files else ""
    print_line(
        f"made {report.path}, {what}: {show_size(report.raw_bytes)} in {report.files} "
        f"file{'s' * (report.files != 1)}{kept}, every digest checked, "
        f"{report.seconds:.2f} s, {report.gigabytes_per_s:.2f} GB/s"
    )
    if original is not None:
        print_line(f"held against {original}: as promised")
