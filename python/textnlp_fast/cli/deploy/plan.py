"""`textnlp-fast deploy plan`: what a description comes to, before anything is done."""

from __future__ import annotations

import difflib
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from textnlp_fast.cli.arguments import StorageVerb, json_option, open_repository
from textnlp_fast.cli.output import print_json, print_line, print_table, show_size
from textnlp_fast.errors import InvalidInputError, ModelNotFoundError

if TYPE_CHECKING:
    from textnlp_fast.adapter import Deployment
    from textnlp_fast.adapter.planning import DeploymentPlan
    from textnlp_fast.adapter.targets import File
    from textnlp_fast.storage import Repository

EPILOG = """\b
Examples:
  textnlp-fast deploy plan chat.yaml --target k8s
  textnlp-fast deploy plan chat.yaml --target k8s --out manifests/ && kubectl apply -f manifests/
  textnlp-fast deploy plan chat.yaml --target instances --serving 1.1.0 --json

\b
The guide (deploy.md) has a description to start from. Prices are those of `textnlp-fast gpu catalog`.
"""
_MOST_LINES = 200
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("plan", cls=StorageVerb, epilog=EPILOG)
@click.argument("file", type=_FILE)
@click.option(
    "--target",
    type=click.Choice(["k8s", "kserve", "ray", "skypilot", "instances"]),
    required=True,
    help="What is to run it.",
)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Write the files there.")
@click.option(
    "--serving",
    metavar="VERSION",
    help="What nodes have now.  [default: what `deployments` has noted for it]",
)
@click.option(
    "--repo", metavar="URL", help="The repository as it is reached from here.  [default: the description's]"
)
@json_option
def command(
    *, file: Path, target: str, out: Path | None, serving: str | None, repo: str | None, as_json: bool
) -> None:
    """Show what FILE comes to on a target: the version it means, machines and their price, the bytes that move to each
    node, the files that are made and how they differ from those in --out.

    Nothing is started. With --out the files are written; what else lies there is left alone.
    """
    from textnlp_fast.adapter import read_deployment  # noqa: PLC0415
    from textnlp_fast.adapter.planning import make_plan  # noqa: PLC0415
    from textnlp_fast.adapter.targets import ONE_A_MACHINE, compile_plan  # noqa: PLC0415

    deployment = read_deployment(file)
    repository = open_repository(repo or deployment.model.repository)
    now = serving or _serving(repository, deployment)
    plan = make_plan(deployment, repository, serving=now, one_a_machine=target in ONE_A_MACHINE)
    files = compile_plan(plan, target)
    changes = [(one, _difference(one, out)) for one in files]
    if out is not None:
        _write(files, out)
    if as_json:
        print_json(_document(plan, target, changes, out))
        return
    _show(plan, target, changes, out)


def _serving(repository: Repository, deployment: Deployment) -> str | None:
    """What the registry has noted for the target of the deployment's name."""
    from textnlp_fast.storage import Registry  # noqa: PLC0415

    with suppress(ModelNotFoundError):
        noted = Registry(repository).deployments(deployment.model.name)
        return {target: one.version for target, one in noted.get(deployment.model.name, {}).items()}.get(
            deployment.name
        )
    return None


# --- files -----------------------------------------------------------------------------------------------------------


def _difference(file: File, out: Path | None) -> str | None:
    """The lines that change, "" if none; None where there is no such file yet."""
    if out is None:
        return None
    try:
        before = (out / file.name).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidInputError(f"{out / file.name} cannot be read: {error.strerror}") from None
    lines = difflib.unified_diff(
        before.splitlines(),
        file.text.splitlines(),
        f"{file.name} as it is",
        f"{file.name} as planned",
        n=2,
        lineterm="",
    )
    return "\n".join(lines)


def _write(files: tuple[File, ...], out: Path) -> None:
    """Each file whole or not at all, by a rename."""
    from textnlp_fast.destinations import file_destination  # noqa: PLC0415

    try:
        out.mkdir(parents=True, exist_ok=True)
        for one in files:
            place = file_destination(out / one.name)
            fresh = place.with_name(f".{place.name}.{os.getpid()}")
            try:
                fresh.write_text(one.text, encoding="utf-8")
                fresh.replace(place)
            finally:
                fresh.unlink(missing_ok=True)
    except OSError as error:
        raise InvalidInputError(f"{out} cannot be written: {error.strerror or error}") from None


# --- what is said ----------------------------------------------------------------------------------------------------


def _document(
    plan: DeploymentPlan, target: str, changes: list[tuple[File, str | None]], out: Path | None
) -> dict[str, Any]:
    version, hardware = plan.version, plan.hardware
    return {
        "name": plan.name,
        "target": target,
        "version": {
            "model": version.name,
            "version": version.version,
            "raw_bytes": version.raw_bytes,
            "fetch_bytes": version.fetch_bytes,
            "from_version": version.from_version,
            "from_bytes": version.from_bytes,
        },
        "hardware": {
            "gpu": None if hardware.gpu is None else hardware.gpu.value,
            "gpus": hardware.gpus,
            "layout": str(hardware.layout),
            "replicas": hardware.replicas,
            "replicas_a_machine": hardware.replicas_a_machine,
            "requests_per_s": hardware.requests_per_s,
            "ttft_s": hardware.ttft_s,
            "tpot_s": hardware.tpot_s,
            "usd_per_hour": hardware.usd_per_hour,
            "machines": [
                {
                    "provider": one.instance_type.provider,
                    "instance_type": one.instance_type.name,
                    "region": one.region,
                    "market": one.market.value,
                    "usd_per_hour": one.usd_per_hour,
                    "as_of": one.as_of.isoformat(),
                    "stale": one.stale,
                }
                for one in hardware.offers
            ],
            "rejected": [{"what": what, "why": why} for what, why in hardware.rejected],
        },
        "files": [
            {
                "name": file.name,
                "path": None if out is None else str(out / file.name),
                "bytes": len(file.text.encode()),
                "state": _state(difference),
                "difference": difference or None,
                "text": file.text if out is None else None,
            }
            for file, difference in changes
        ],
        "notes": list(plan.notes),
    }


def _state(difference: str | None) -> str:
    return "new" if difference is None else "changed" if difference else "same"


def _show(
    plan: DeploymentPlan, target: str, changes: list[tuple[File, str | None]], out: Path | None
) -> None:
    version, hardware = plan.version, plan.hardware
    print_line(f"{plan.name}: {version} on {target}")
    each = f"{hardware.gpus} x {hardware.gpu} ({hardware.layout})" if hardware.gpu is not None else "no GPU"
    cost = "" if hardware.usd_per_hour is None else f", ${hardware.usd_per_hour:,.2f} an hour"
    print_line(f"{hardware.replicas} replicas of {each}{cost}")
    if hardware.requests_per_s is not None:
        print_line(
            f"each serves {hardware.requests_per_s:.3g} requests/s, first token within {hardware.ttft_s:.2g} s, "
            f"then one each {1000 * (hardware.tpot_s or 0):.3g} ms (predicted)"
        )
    if hardware.offers:
        rows = [
            [one.instance_type.name, one.instance_type.provider, one.region, one.market.value,
             f"{one.usd_per_hour:,.3f}", f"{one.as_of}{' (stale)' if one.stale else ''}"]
            for one in hardware.offers
        ]  # fmt: skip
        print_table(["machine", "cloud", "region", "market", "USD/h", "as of"], rows, left=4)
    print_line(
        f"each node fetches {show_size(version.fetch_bytes)} for {show_size(version.raw_bytes)} on disk"
    )
    if version.from_version is not None:
        print_line(f"one that has {version.from_version} fetches {show_size(version.from_bytes or 0)}")
    for file, difference in changes:
        where = file.name if out is None else str(out / file.name)
        print_line(f"{_state(difference) if out is not None else 'would make'}: {where}")
        for line in (difference or "").splitlines()[:_MOST_LINES]:
            print_line(f"  {line}")
        left = len((difference or "").splitlines()) - _MOST_LINES
        if left > 0:
            print_line(f"  ... {left} lines more")
    for note in plan.notes:
        print_line(f"note: {note}")
    if out is None:
        print_line("Nothing was written: --out DIR makes the files, --json shows them.")
