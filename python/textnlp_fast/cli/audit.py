"""`textnlp-fast audit`: who changed what, and whether the log of it is whole."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from textnlp_fast.cli.arguments import StorageVerb, json_option, open_repository, repository_option
from textnlp_fast.cli.output import print_json, print_line, print_table
from textnlp_fast.errors import CorruptDataError, InvalidInputError

if TYPE_CHECKING:
    from textnlp_fast.storage.audit import AuditRecord

EPILOG = """\b
Examples:
  textnlp-fast audit log --model my-model --limit 20
  textnlp-fast audit head > anchor.txt            (keep it where the bucket's writers cannot change it)
  textnlp-fast audit verify --anchor "$(cat anchor.txt)"
"""


@click.group("audit", epilog=EPILOG)
def command() -> None:
    """Read and verify the audit log of a repository."""


@command.command("log", cls=StorageVerb, epilog=EPILOG)
@repository_option
@click.option("--model", metavar="NAME", help="Only this model; * stands for anything.")
@click.option("--version", metavar="VERSION", help="Only this version.")
@click.option("--action", metavar="ACTION", help="Only this action, as push or alias.*")
@click.option("--actor", metavar="NAME", help="Only this user, host or identity.")
@click.option("--outcome", type=click.Choice(["intended", "done", "failed"]), help="Only these.")
@click.option("--since", metavar="TIME", help="Not before this time, as 2025-01-31 or 2025-01-31T12:00:00Z.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="The newest so many.")
@json_option
def log(*, repo: str | None, limit: int, as_json: bool, **wanted: str | None) -> None:
    """Print the newest records, oldest first. Who did it and when is what the writer claimed."""
    from textnlp_fast.storage.audit import AuditLog, Filter, newest  # noqa: PLC0415

    store = open_repository(repo).store
    records = list(newest(AuditLog(store), Filter(**wanted), limit))[::-1]
    if as_json:
        print_json([asdict(record) for record in records])
        return
    rows = [
        [str(one.sequence), one.time, _actor(one), one.action, one.outcome, _about(one), _detail(one)]
        for one in records
    ]
    print_table(["record", "time", "actor", "action", "outcome", "about", "detail"], rows, left=7, yields=6)


@command.command("head", cls=StorageVerb, epilog=EPILOG)
@repository_option
@json_option
def head(*, repo: str | None, as_json: bool) -> None:
    """Print the last record's number and digest: an anchor for `audit verify`, to be kept elsewhere."""
    from textnlp_fast.storage.audit import AuditLog  # noqa: PLC0415

    last = AuditLog(open_repository(repo).store).find_head()
    if last is None:
        raise InvalidInputError(
            "the audit log is empty", hint="The first change to the repository begins it."
        )
    if as_json:
        print_json(asdict(last))
    else:
        print_line(str(last))


@command.command("verify", cls=StorageVerb, epilog=EPILOG)
@repository_option
@click.option(
    "--anchor", "anchors", multiple=True, metavar="SEQUENCE:DIGEST", help="A head that was kept; may repeat."
)
@click.option(
    "--from", "start", metavar="SEQUENCE:DIGEST", help="Believe the log up to this head, read what follows."
)
@click.option("--deep", is_flag=True, help="Compare every version's manifest with its record, too.")
@json_option
def verify(
    *, repo: str | None, anchors: tuple[str, ...], start: str | None, deep: bool, as_json: bool
) -> int:
    """Check the log from end to end: nothing edited, removed, moved, replayed, and no version without a record.

    Keys (audit_key_file, audit_key) prove who could write it. Exits with 0 if all is well and with 5 if not.
    """
    from textnlp_fast.storage.audit import Head, verify_audit  # noqa: PLC0415

    report = verify_audit(
        open_repository(repo).store,
        anchors=[Head.parse(text) for text in anchors],
        start=Head.parse(start) if start else None,
        deep=deep,
    )
    code = 0 if report.ok else CorruptDataError.exit_code
    if as_json:
        print_json({**asdict(report), "ok": report.ok})
        return code
    if report.problems:
        rows = [
            [one.kind, "-" if one.sequence is None else str(one.sequence), one.detail]
            for one in report.problems
        ]
        print_table(["problem", "record", "detail"], rows, left=3, yields=2)
    verdict = "all is well" if report.ok else f"{report.problem_count} problems"
    proven = f", {report.proven} proven by a key" if report.proven else ""
    print_line(f"{report.records} records{proven}, {report.versions} versions: {verdict}")
    if report.gone:
        names = ", ".join(report.gone[:5]) + (", ..." if len(report.gone) > 5 else "")
        print_line(f"{len(report.gone)} versions are not there that somebody was about to push: {names}")
    if report.head is not None:
        print_line(f"head {report.head}")
    return code


def _actor(record: AuditRecord) -> str:
    name, host = record.actor.get("name", "?"), record.actor.get("host")
    return f"{name} on {host}" if host else name


def _about(record: AuditRecord) -> str:
    return "@".join(filter(None, (record.model, record.version))) or "-"


def _detail(record: AuditRecord) -> str:
    def shown(value: Any) -> str:
        text = str(value)
        return text if len(text) <= 64 else f"{text[:60]}..."

    return ", ".join(f"{name}={shown(value)}" for name, value in record.detail.items() if value is not None)
