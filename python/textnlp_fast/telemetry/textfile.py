"""Metrics of commands, which end before anyone could ask them: a file that adds up what each of them did.

The file is what node_exporter's textfile collector reads. Counters go on from what the file holds, as one process
would have counted; commands that end at the same time take turns.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from textnlp_fast.destinations import file_destination
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.telemetry.metrics import enable_metrics, prometheus

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["add_to_file", "metrics_file"]

_log = logging.getLogger(__name__)

_LIMIT_BYTES: Final = 16 << 20
_ADDING: Final = ("counter", "histogram")


@contextmanager
def metrics_file(path: Path) -> Iterator[None]:
    """Adds what operations do until the block ends to the metrics in the file at ``path``.

    A file that cannot be written is logged as a warning, which commands show on stderr: what was done stays done.
    Its folder has to be there: one with a mistake in its name would be made, and nobody would look there.
    """
    registry = prometheus().CollectorRegistry()
    stop = enable_metrics(registry)
    try:
        yield
    finally:
        stop()
        try:
            add_to_file(registry, path)
        except InvalidInputError as error:
            _log.warning("%s", error.args[0])  # one line: without the hint


def add_to_file(registry: CollectorRegistry, path: Path) -> None:
    """Adds the counters and histograms of ``registry`` to those in the file, which is replaced in one step."""
    try:
        path = file_destination(path)
        lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            before = _read(path)
            text = prometheus().generate_latest(_Sum(registry, before))
            temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
            temporary.write_bytes(text)
            temporary.replace(path)
        finally:
            os.close(lock)
    except OSError as error:
        raise InvalidInputError(f"cannot write metrics to {path}: {error.strerror or error}") from error


def _read(path: Path) -> list[Any]:
    """The families in the file; none if there is no file, or it is not one of metrics."""
    from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415

    try:
        with path.open("rb") as file:
            text = file.read(_LIMIT_BYTES + 1)
        return list(text_string_to_metric_families(text.decode())) if len(text) <= _LIMIT_BYTES else []
    except (FileNotFoundError, ValueError, KeyError, IndexError):
        return []


class _Sum:
    """A registry for ``generate_latest``: each sample is that of ``registry`` plus what was there before."""

    def __init__(self, registry: CollectorRegistry, before: list[Any]) -> None:
        self._registry = registry
        self._before = before

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import Metric  # noqa: PLC0415

        families: dict[str, Any] = {}
        values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
        for family in [*self._before, *self._registry.collect()]:
            if family.type not in _ADDING:
                continue  # what runs now, and when series began, says nothing once the command has ended
            families.setdefault(family.name, family)
            samples = values.setdefault(family.name, {})
            for sample in family.samples:
                if not sample.name.endswith("_created"):
                    place = (sample.name, tuple(sorted(sample.labels.items())))
                    samples[place] = samples.get(place, 0.0) + sample.value
        for name, family in families.items():
            total = Metric(name, family.documentation, family.type)
            for (sample_name, labels), value in values[name].items():
                total.add_sample(sample_name, dict(labels), value)
            yield total
