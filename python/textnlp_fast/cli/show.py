"""`textnlp-fast show`: one version in detail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from textnlp_fast.cli.arguments import (
    StorageVerb,
    chosen_prerelease,
    json_option,
    open_repository,
    repository_option,
)
from textnlp_fast.cli.output import complain_of, print_json, print_line, print_table, show_size
from textnlp_fast.storage.manifest import Manifest, depth_of

if TYPE_CHECKING:
    from textnlp_fast.contents.windows import DataError
    from textnlp_fast.storage.registry.state import References

EPILOG = """\b
Examples:
  textnlp-fast show my-model --repo s3://my-bucket/models
  textnlp-fast show my-model@1.0.0 --tensors
"""


@click.command("show", cls=StorageVerb, epilog=EPILOG)
@click.argument("reference", metavar="NAME[@VERSION]")
@repository_option
@click.option("--tensors", is_flag=True, help="List every tensor and how it is stored.")
@json_option
def command(reference: str, repo: str | None, tensors: bool, as_json: bool) -> int:
    """Show one version: its files, its tensors, how they are stored, and what is said of it."""
    from textnlp_fast.storage.registry.overview import overview  # noqa: PLC0415
    from textnlp_fast.storage.version_manager import parse_reference  # noqa: PLC0415

    parsed = parse_reference(reference)
    repository = open_repository(repo)
    manifest = repository.manifest(parsed.name, parsed.version)
    dtypes = repository.dtypes(manifest) if tensors or as_json else {}
    problems: dict[str, DataError] = {}
    said = overview(repository.store, [manifest.model], problems).get(manifest.model)
    if as_json:
        print_json({**_document(manifest, dtypes), **_said(manifest.version, said)})
        return complain_of(problems)
    print_line(f"{manifest.model}@{manifest.version}, {manifest.created_at}")
    note = chosen_prerelease(parsed.version, manifest.version)
    if note:
        print_line(f"note      {note}")
    if manifest.parent:
        print_line(f"parent    {'@'.join(manifest.parent)}")
    if manifest.anchor:
        print_line(f"why       {manifest.anchor.reason}")
    if manifest.message:
        print_line(f"message   {manifest.message}")
    labels = {key: key.removeprefix("lineage.").replace("_", " ") for key in manifest.metadata}
    for key, value in manifest.metadata.items():
        print_line(f"{labels[key]:{max([9, *map(len, labels.values())])}s} {value}")
    if said is not None and said.revision:
        _print_said(manifest.version, said)
    coded = show_size(sum(content.coded_bytes for content in manifest.contents.values()))
    added = show_size(manifest.stored_bytes)
    print_line(
        f"size      {show_size(manifest.raw_bytes)} raw, {added} new in the repository, "
        f"{coded} in {len(manifest.objects)} objects in all"
    )
    if tensors:
        print_table(
            ["tensor", "dtype", "raw", "stored", "bases"],
            [_cells(row) for row in _tensors(manifest, dtypes)],
            left=2,
            yields=0,
        )
        return complain_of(problems)
    files = [
        [entry.path, entry.kind, str(len(entry.names) or "-"), show_size(entry.size), entry.digest[:16]]
        for entry in manifest.files
    ]
    print_table(["file", "kind", "tensors", "size", "digest"], files, left=2, yields=0)
    return complain_of(problems)


def _print_said(version: str, said: References) -> None:
    state = said.state_of(version)
    print_line(f"stage     {said.stage_of(version)}")
    for label, texts in (
        ("aliases", said.aliases_of(version)),
        ("serves", said.targets_of(version)),
        ("tags", [f"{key}={value}" for key, value in sorted(state.tags.items())]),
    ):
        if texts:
            print_line(f"{label:9s} {', '.join(texts)}")
    if state.pinned is not None:
        print_line(f"pinned    {state.pinned or 'yes'}")


def _said(version: str, said: References | None) -> dict[str, object]:
    if said is None:
        return dict.fromkeys(("stage", "aliases", "targets", "tags", "pinned"))
    state = said.state_of(version)
    return {
        "stage": said.stage_of(version),
        "aliases": said.aliases_of(version),
        "targets": said.targets_of(version),
        "tags": dict(state.tags),
        "pinned": state.pinned,
    }


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        row["name"],
        row["dtype"],
        show_size(row["size"]),
        show_size(row["stored_bytes"]),
        str(row["bases"]),
    ]


def _tensors(manifest: Manifest, dtypes: Mapping[str, Mapping[str, str]]) -> list[dict[str, Any]]:
    rows = []
    for entry in manifest.files:
        if entry.kind != "safetensors":
            continue
        for name, digest in zip(entry.names, entry.parts[1:], strict=True):
            content = manifest.contents[digest]
            rows.append(
                {
                    "name": name,
                    "file": entry.path,
                    "dtype": dtypes[entry.path][name],
                    "size": content.size,
                    "stored_bytes": content.coded_bytes,
                    "bases": depth_of(manifest.contents, digest),
                    "digest": digest,
                }
            )
    return rows


def _document(manifest: Manifest, dtypes: Mapping[str, Mapping[str, str]]) -> dict[str, object]:
    return {
        "model": manifest.model,
        "version": manifest.version,
        "parent": "@".join(manifest.parent) if manifest.parent else None,
        "base": "@".join(manifest.coded_against) if manifest.coded_against else None,
        "reason": manifest.anchor.reason if manifest.anchor else "",
        "created_at": manifest.created_at,
        "message": manifest.message,
        "metadata": dict(manifest.metadata),
        "raw_bytes": manifest.raw_bytes,
        "stored_bytes": manifest.stored_bytes,
        "objects": len(manifest.objects),
        "files": [
            {"path": entry.path, "kind": entry.kind, "size": entry.size, "digest": entry.digest}
            for entry in manifest.files
        ],
        "tensors": _tensors(manifest, dtypes),
    }
