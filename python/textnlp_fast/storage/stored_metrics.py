"""What a repository holds, for Prometheus: versions and bytes by model, counted when it is scraped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from textnlp_fast.contents.windows import DATA_ERRORS
from textnlp_fast.telemetry.metrics import MOST_MODELS, OTHER, prometheus

if TYPE_CHECKING:
    from textnlp_fast.storage.repository import Repository

__all__ = ["RepositoryMetrics"]


class RepositoryMetrics:
    """A collector: ``registry.register(RepositoryMetrics(repository))``.

    A scrape lists the repository and reads manifests that it has not read before. Models beyond the first
    :data:`MOST_MODELS`, in the order of their names, are told together as ``other``. Needs ``prometheus-client``.
    """

    def __init__(self, repository: Repository) -> None:
        prometheus()
        self._repository = repository

    def describe(self) -> list[Any]:
        """Nothing: to register it, the repository need not answer."""
        return []

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415

        totals: dict[str, list[int]] = {}
        for number, model in enumerate(self._repository.models()):
            label = model if number < MOST_MODELS else OTHER
            total = totals.setdefault(label, [0, 0, 0, 0])
            problems: dict[str, Any] = {}
            try:
                rows = self._repository.log(model, problems=problems)
            except DATA_ERRORS:
                rows = []  # removed since it was listed
            total[0] += len(rows)
            total[1] += sum(row.stored_bytes for row in rows)
            total[2] += sum(row.raw_bytes for row in rows)
            total[3] += len(problems)
        for place, (name, what) in enumerate(
            [
                ("versions", "Versions in the repository"),
                ("stored_bytes", "Bytes that the versions in the repository added to it"),
                ("raw_bytes", "Bytes of the files of these versions"),
                ("unreadable_versions", "Versions whose manifests cannot be read"),
            ]
        ):
            family = GaugeMetricFamily(f"textnlp_fast_model_{name}", what, labels=["model"])
            for label, total in totals.items():
                family.add_metric([label], total[place])
            yield family
