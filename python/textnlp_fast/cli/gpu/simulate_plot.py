"""Draws simulated runs over time: replicas beside the demand, SLO misses, and cost. Needs matplotlib."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from textnlp_fast.cli.pictures import (
    COLOURS,
    FAINT,
    FRAMELESS,
    GRID,
    Format,
    drawing,
    files_of,
    save,
    write,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from textnlp_fast.gpu.scaling.simulator.fluid import Run
    from textnlp_fast.gpu.scaling.simulator.oracle import Oracle
    from textnlp_fast.gpu.scaling.simulator.traffic import Traffic

__all__ = ["draw", "files_of", "picture"]

_DEMAND = "#cbd2d9"
_BINS: Final = 480


def draw(traffic: Traffic, runs: list[Run], oracle: Oracle, path: Path, *, priced: bool) -> list[Path]:
    """Writes the picture to `path` (see `files_of`) and returns the files."""
    return write(path, lambda form: picture(traffic, runs, oracle, form, priced=priced))


def picture(traffic: Traffic, runs: list[Run], oracle: Oracle, form: Format, *, priced: bool) -> bytes:
    """The picture as PNG or SVG: the same bytes each time. At most as many runs as there are colours."""
    shown = list(zip(runs, COLOURS, strict=False))
    rows = _Binned(traffic)
    out = io.BytesIO()
    with drawing(FRAMELESS):
        from matplotlib.figure import Figure  # noqa: PLC0415

        misses = 0.55 + 0.32 * len(shown)
        figure = Figure(figsize=(12, 6.6 + misses), dpi=100, facecolor="white")
        top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=(3.2, misses, 1.7))
        height = figure.get_figheight()
        figure.subplots_adjust(left=0.07, right=0.8, top=1 - 0.95 / height, bottom=0.6 / height, hspace=0.16)
        figure.text(0.015, 1 - 0.38 / height, f"A fleet under {traffic.name}", size=15, weight="bold")
        figure.text(
            0.015,
            1 - 0.66 / height,
            f"{sum(traffic.requests):,} requests; cold start {runs[0].cold_start_s:g} s. "
            f"Who knew the future would pay for {oracle.replica_hours:,.0f} replica-hours.",
            color=FAINT,
        )
        _replicas(top, rows, shown, oracle)
        _misses(middle, rows, shown)
        _cost(bottom, rows, shown, priced)
        for axes in (top, middle, bottom):
            axes.set_axisbelow(True)
            axes.set_xlim(0, rows.end)
        bottom.set_xlabel(rows.unit)
        save(figure, form, out)
    return out.getvalue()


class _Binned:
    """Steps, so many to a bin that a bin is wider than a pixel or two."""

    def __init__(self, traffic: Traffic) -> None:
        import numpy as np  # noqa: PLC0415

        self.step_s = traffic.step_s
        self.a_bin = max(1, traffic.steps // _BINS)
        self.bins = traffic.steps // self.a_bin
        seconds = np.asarray(traffic.requests[: traffic.steps * traffic.step_s], dtype=np.float64)
        self.requests = self.sums(seconds.reshape(traffic.steps, traffic.step_s).sum(axis=1))
        long = traffic.steps * traffic.step_s >= 2 * 86400
        self.unit = "days since the begin" if long else "hours since the begin"
        self._unit_s = 86400.0 if long else 3600.0
        self.times = (np.arange(self.bins) + 0.5) * self.a_bin * self.step_s / self._unit_s
        self.end = self.bins * self.a_bin * self.step_s / self._unit_s

    def sums(self, values: Any) -> Any:
        import numpy as np  # noqa: PLC0415

        kept = np.asarray(values, dtype=np.float64)[: self.bins * self.a_bin]
        return kept.reshape(self.bins, self.a_bin).sum(axis=1)

    def means(self, values: Any) -> Any:
        return self.sums(values) / self.a_bin


def _replicas(axes: Axes, rows: _Binned, shown: list[tuple[Run, str]], oracle: Oracle) -> None:
    demand = rows.means(shown[0][0].demand)
    axes.fill_between(rows.times, demand, color=_DEMAND, lw=0, label="demand")
    for run, colour in shown:
        axes.plot(rows.times, rows.means(run.paid), color=colour, lw=1.4, solid_joinstyle="round")
    axes.set_ylim(0)
    axes.set_ylabel("replicas paid for; grey: demand")
    axes.grid(color=GRID, lw=0.8)
    x, y = 1.02, 0.98
    for run, colour in shown:
        axes.text(x, y, run.policy, transform=axes.transAxes, color=colour, weight="bold", va="top")
        multiple = f", {run.replica_hours / oracle.replica_hours:.2f}x oracle" if oracle.replica_hours else ""
        detail = f"{run.replica_hours:,.0f} hours{multiple}\n{run.changes:,} changes"
        axes.text(
            x, y - 0.062, detail, transform=axes.transAxes, color=FAINT, size=9, va="top", linespacing=1.35
        )
        y -= max(0.13, min(0.24, 0.96 / len(shown)))


def _misses(axes: Axes, rows: _Binned, shown: list[tuple[Run, str]]) -> None:
    """A row a policy, all to one scale: of square roots, so that few misses are seen beside many."""
    import numpy as np  # noqa: PLC0415

    some = np.maximum(rows.requests, 1)
    shares = [np.clip(rows.sums(run.misses) / some, 0, 1) for run, _ in shown]
    most = max(0.01, *(float(share.max(initial=0.0)) for share in shares))
    for row, ((run, colour), share) in enumerate(zip(shown, shares, strict=True)):
        base = len(shown) - 1 - row
        axes.fill_between(
            rows.times, base, base + 0.9 * np.sqrt(share / most), color=colour, lw=0.6, step="mid"
        )
        axes.axhline(base, color=GRID, lw=0.8, zorder=0)
        axes.text(
            1.02,
            base + 0.4,
            f"{100 * (1 - run.attainment):.3f} % missed",
            transform=axes.get_yaxis_transform(),
            color=colour,
            va="center",
            size=9,
        )
    axes.set_ylim(0, len(shown))
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.text(
        0,
        len(shown),
        f"requests missed, of square roots; a whole row: {100 * most:.2g} %",
        color=FAINT,
        size=9,
    )


def _cost(axes: Axes, rows: _Binned, shown: list[tuple[Run, str]], priced: bool) -> None:
    import numpy as np  # noqa: PLC0415

    ends = []
    for run, colour in shown:
        hours = np.cumsum(rows.sums(run.paid)) * rows.step_s / 3600
        cost = hours * (run.usd / run.replica_hours if priced and run.replica_hours else 1.0)
        axes.plot(rows.times, cost, color=colour, lw=1.8)
        ends.append((float(cost[-1]), colour))
    axes.set_ylim(0)
    axes.grid(color=GRID, lw=0.8)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_ylabel("USD so far" if priced else "replica-hours so far")
    gap, last = axes.get_ylim()[1] * 0.13, -1e99
    for at, colour in sorted(ends):
        last = max(at, last + gap)
        text = f"${at:,.0f}" if priced else f"{at:,.0f}"
        axes.text(
            1.02,
            last,
            text,
            transform=axes.get_yaxis_transform(),
            color=colour,
            va="center",
            weight="bold",
            size=9,
        )
