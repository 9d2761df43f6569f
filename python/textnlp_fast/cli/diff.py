"""`textnlp-fast diff`: what an update changed, between two versions or two models on disk."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from textnlp_fast.cli.arguments import (
    StorageVerb,
    json_option,
    open_repository,
    repository_option,
    transfer_options,
    tuning_options,
)
from textnlp_fast.cli.output import print_json, print_line, print_table, progress_bar, show_size
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.storage.explain import SORT_KEYS, By, Line, lines_of, sort_lines, total_of
from textnlp_fast.storage.explain_words import summary_of

if TYPE_CHECKING:
    from textnlp_fast.storage.explain import Explanation

EPILOG = """\b
Examples:
  textnlp-fast diff my-model@1.0.0 1.1.0 --repo s3://my-bucket/models
  textnlp-fast diff base@1.0.0 tuned@1.0.0 --by layer
  textnlp-fast diff base/model.safetensors tuned/model.safetensors --by kind --plot update.png
  textnlp-fast diff ./base ./tuned --sort bytes --limit 10
"""

_LIMIT = 40


@click.command("diff", cls=StorageVerb, epilog=EPILOG)
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
@repository_option
@click.option(
    "--by",
    type=click.Choice(["tensor", "layer", "kind"]),
    default="tensor",
    show_default=True,
    help="What a line is about.",
)
@click.option(
    "--sort",
    type=click.Choice(["name", *SORT_KEYS]),
    default="name",
    show_default=True,
    help="Largest first; name keeps the model's order.",
)
@click.option("--limit", type=click.IntRange(0), default=None, help=f"Lines to show, 0 for all. [{_LIMIT}]")
@click.option("--all", "show_all", is_flag=True, help="Show unchanged tensors too.")
@click.option("--rank/--no-rank", default=True, help="Effective ranks; they take most of the time.")
@click.option(
    "--plot", type=click.Path(path_type=Path), help="Draw it: FILE.png, FILE.svg, or FILE for both."
)
@click.option(
    "--plot-value",
    type=click.Choice(["changed", "relative"]),
    default="changed",
    show_default=True,
    help="What the heat map shows.",
)
@tuning_options
@json_option
def command(
    *,
    old: str,
    new: str,
    repo: str | None,
    by: str,
    sort: str,
    limit: int | None,
    show_all: bool,
    rank: bool,
    plot: Path | None,
    plot_value: str,
    threads: int,
    memory_mib: int,
    as_json: bool,
) -> None:
    """Show what changed from OLD to NEW, by tensor, layer or kind.

    OLD and NEW are versions in a repository (NAME@VERSION; NEW may be a version alone), or safetensors files or
    directories on disk.

    "changed" is a share of the weights. ULPs are steps between neighbouring representable values; their mean is over
    the weights that changed. "|change|" is the L2 norm of the change, "relative" that over the norm of the old
    weights of the tensors that changed. "rank" is the effective rank of the change (the exponential of the entropy of
    its singular values), for layers and kinds the mean share of full rank; "~" marks estimates. "stored" is what the
    newer weights take in the repository, or would take if pushed.
    """
    if plot is not None:
        from textnlp_fast.cli.diff_plot import files_of  # noqa: PLC0415

        files_of(plot)  # complain before the work, not after it
    explanation = _explain(old, new, repo, with_rank=rank, threads=threads, memory_mib=memory_mib)
    lines = lines_of(explanation, cast(By, by))
    shown = [line for line in lines if show_all or by != "tensor" or line.status != "same"]
    shown = sort_lines(shown, sort)
    most = limit if limit is not None else 0 if as_json else _LIMIT
    cut = shown[:most] if most else shown
    drawn = []
    if plot is not None:
        from textnlp_fast.cli.diff_plot import draw  # noqa: PLC0415

        drawn = draw(explanation, plot, value=plot_value)
    if as_json:
        listed = sort_lines(lines, sort)
        print_json(_document(explanation, by, listed[:most] if most else listed))
        return
    print_line(summary_of(explanation))
    if cut:
        print_line("")
        columns = {name: [name, *map(show, cut)] for name, show in _columns(by).items()}
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        columns, dropped = _fitting(columns, width)
        left = sum(name in columns for name in (by, "dtype", "status"))
        rows = list(zip(*(cells[1:] for cells in columns.values()), strict=True))
        print_table(list(columns), rows, left=left, yields=0)
        if dropped:
            print_line(f"not shown: {', '.join(dropped)} (a wider terminal, or --json)")
    if len(cut) < len(shown):
        print_line(f"... and {len(shown) - len(cut)} more: --limit 0 shows all")
    if by == "tensor":
        print_line(f"{len(lines)} tensors: {_counts(lines)}")
    for path in drawn:
        print_line(f"drawn: {path}")


# --- what OLD and NEW are ----------------------------------------------------------------------------------


def _explain(
    old: str, new: str, repo: str | None, *, with_rank: bool, threads: int, memory_mib: int
) -> Explanation:
    if _are_paths(old, new, repo):
        from textnlp_fast.storage.explain_files import explain_files  # noqa: PLC0415

        options = transfer_options(threads, memory_mib)
        with progress_bar() as progress:
            return explain_files(old, new, options, with_rank=with_rank, progress=progress)
    from textnlp_fast.cli.arguments import version_reference  # noqa: PLC0415

    name, old_version = version_reference(old)
    repository = open_repository(repo, threads=threads, memory_mib=memory_mib)
    with progress_bar() as progress:
        return repository.explain(name, old_version, new, with_rank=with_rank, progress=progress)


def _are_paths(old: str, new: str, repo: str | None) -> bool:
    """Whether both are files or directories; raises InvalidInputError where that cannot be told."""
    there = [Path(word).exists() for word in (old, new)]
    # Written so that it can be nothing else.
    written = [
        word.startswith((".", "/", "~")) or word.endswith((".safetensors", "/")) for word in (old, new)
    ]
    if all(there):
        if not any(written) and repo and "@" in old:
            raise InvalidInputError(
                f"{old} and {new} are both versions in a repository and files here",
                hint=f"Write ./{old} ./{new} for the files; for the versions, run this in another directory.",
            )
        return True
    for word, exists, other_exists, plain in zip((old, new), there, there[::-1], written, strict=True):
        if not exists and (plain or (other_exists and "@" not in old)):
            raise InvalidInputError(
                f"{word} does not exist",
                hint="Give two files or directories, or two versions as NAME@1.0.0 1.1.0. A version can be "
                "compared with files after a pull.",
            )
    if any(written):
        raise InvalidInputError(
            f"of {old} and {new} one is on disk and the other a version",
            hint="Pull the version first, then compare the two directories.",
        )
    return False


# --- what is shown -----------------------------------------------------------------------------------------


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.3f} %"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _rank(line: Line) -> str:
    if line.rank is not None:
        mark = "" if line.rank.exact else "~"
        return f"{mark}{line.rank.value:.3g} of {line.rank.full}"
    return "-" if line.rank_fraction is None else f"{100 * line.rank_fraction:.3g} %"


def _state(line: Line) -> str:
    change = line.change
    if change is None:
        return f"{line.changed_tensors} of {line.tensors}"
    if change.old is not None and change.new is not None:
        if change.status == "retyped":
            return f"{change.old.dtype} -> {change.new.dtype}"
        if change.status == "reshaped":
            return f"{list(change.old.shape)} -> {list(change.new.shape)}"
    return change.status


def _stored(line: Line) -> str:
    if line.stored_bytes is None:
        return "-"
    return f"{'~' if line.estimated else ''}{show_size(line.stored_bytes)}"


def _columns(by: str) -> dict[str, Callable[[Line], str]]:
    dtype: dict[str, Callable[[Line], str]] = {
        "dtype": lambda line: line.change.side.dtype if line.change else ""
    }
    return {
        by: lambda line: line.label,
        **(dtype if by == "tensor" else {}),
        "status" if by == "tensor" else "tensors changed": _state,
        "changed": lambda line: _percent(line.sums.changed_fraction),
        "max ULP": lambda line: "-" if line.sums.max_ulp is None else str(line.sums.max_ulp),
        "mean ULP": lambda line: _figure(line.sums.mean_ulp),
        "max change": lambda line: _figure(line.sums.max_change),
        "|change|": lambda line: _figure(line.sums.change_norm),
        "relative": lambda line: _figure(line.sums.relative_norm),
        "rank": _rank,
        "how": lambda line: line.strategy or "-",
        "stored": _stored,
        "bits/weight": lambda line: _figure(line.bits_per_weight),
    }


def _fitting(columns: dict[str, list[str]], width: int | None) -> tuple[dict[str, list[str]], list[str]]:
    """The columns that a terminal has room for (None: any), and the names of the others."""
    kept, dropped = dict(columns), []
    for name in ("dtype", "how", "max change", "|change|", "bits/weight", "mean ULP", "max ULP", "relative"):
        if width is None or sum(2 + max(map(len, cells)) for cells in kept.values()) <= width:
            break
        if kept.pop(name, None):
            dropped.append(name)
    return kept, dropped


def _counts(lines: list[Line]) -> str:
    kinds = ("changed", "reshaped", "retyped", "added", "removed", "renamed", "same")
    counts = {kind: sum(line.status == kind for line in lines) for kind in kinds}
    return ", ".join(f"{count} {kind}" for kind, count in counts.items() if count) or "none"


def _document(explanation: Explanation, by: str, lines: list[Line]) -> dict[str, Any]:
    return {
        "old": explanation.old,
        "new": explanation.new,
        "summary": summary_of(explanation),
        "bytes_of": explanation.bytes_of,
        "total": _fields(total_of(explanation)),
        "by": by,
        "lines": [_fields(line) for line in lines],
    }


def _fields(line: Line) -> dict[str, Any]:
    sums, rank, change = line.sums, line.rank, line.change
    fields: dict[str, Any] = {
        "name": line.label,
        "kind": line.kind,
        "layer": line.layer,
        "tensors": line.tensors,
        "changed_tensors": line.changed_tensors,
        "elements": line.elements,
        "size": line.size,
        "compared": sums.elements,
        "changed": sums.changed,
        "changed_fraction": sums.changed_fraction,
        "max_ulp": sums.max_ulp,
        "mean_ulp": sums.mean_ulp,
        "ulp_histogram": [
            {"from": 1 << bits - 1, "to": (1 << bits) - 1, "count": count}
            for bits, count in enumerate(sums.ulps)
            if count
        ],
        "weight_norm": sums.weight_norm,
        "change_norm": sums.change_norm,
        "relative_norm": sums.relative_norm,
        "max_change": sums.max_change,
        "became_nonfinite": sums.became_nonfinite,
        "became_finite": sums.became_finite,
        "effective_rank": rank.value if rank else None,
        "full_rank": rank.full if rank else None,
        "rank_exact": rank.exact if rank else None,
        "rank_fraction": line.rank_fraction,
        "strategy": line.strategy,
        "stored_bytes": line.stored_bytes,
        "stored_estimated": line.estimated,
        "bits_per_weight": line.bits_per_weight,
    }
    if change is not None:
        fields |= {
            "status": change.status,
            "dtype": change.side.dtype,
            "shape": list(change.side.shape),
            "old_name": change.old.name if change.old and change.status == "renamed" else None,
            "old_dtype": change.old.dtype if change.old else None,
            "old_shape": list(change.old.shape) if change.old else None,
        }
    return fields
