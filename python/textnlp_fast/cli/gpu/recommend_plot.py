"""Draws what latency costs: a line a GPU type from small batches to large ones, and the plans. Needs matplotlib."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

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

    from textnlp_fast.gpu.recommender import Plan, Recommendation, Workload
    from textnlp_fast.gpu.types import GPUType

__all__ = ["draw", "files_of", "picture"]


def draw(workload: Workload, found: Recommendation, path: Path) -> list[Path]:
    """Writes the picture to `path` (see `files_of`) and returns the files."""
    return write(path, lambda form: picture(workload, found, form))


def picture(workload: Workload, found: Recommendation, form: Format) -> bytes:
    """The picture as PNG or SVG: the same bytes each time."""
    shown = _one_a_gpu(found)
    out = io.BytesIO()
    with drawing(FRAMELESS):
        from matplotlib.figure import Figure  # noqa: PLC0415

        figure = Figure(figsize=(12, 5.6), dpi=100, facecolor="white")
        left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
        figure.subplots_adjust(left=0.065, right=0.985, top=0.83, bottom=0.115, wspace=0.5)
        figure.text(0.015, 0.945, f"What serving {workload.shape.name} costs", size=15, weight="bold")
        figure.text(
            0.015,
            0.895,
            f"{workload.capacity_per_s:g} requests/s of {workload.prompt} + {workload.output} tokens in "
            f"{workload.format.name}; first token within {workload.ttft_s:g} s. Predicted; prices are the catalogue's.",
            color=FAINT,
        )
        _curves(left, workload, shown)
        _bars(right, shown)
        save(figure, form, out)
    return out.getvalue()


def _one_a_gpu(found: Recommendation) -> list[tuple[GPUType, Plan, str]]:
    """The cheapest plan of each GPU type, as many as there are colours, and its colour."""
    best: dict[GPUType, Plan] = {}
    for plan in found.plans:
        best.setdefault(plan.gpu_types[0], plan)
    cheapest = list(best.items())[: len(COLOURS)]
    return [(gpu, plan, colour) for (gpu, plan), colour in zip(cheapest, COLOURS, strict=False)]


def _curves(axes: Axes, workload: Workload, shown: list[tuple[GPUType, Plan, str]]) -> None:
    from textnlp_fast.gpu.catalog import Catalog  # noqa: PLC0415
    from textnlp_fast.gpu.recommender.serving import curve  # noqa: PLC0415

    catalog, tokens = Catalog.load(), (workload.prompt + workload.output) * 3600 / 1e6
    tops = []
    ends: list[tuple[float, float, str, str]] = []
    for gpu, plan, colour in shown:
        one = plan.purchases[0]
        its, layout = one.offer.instance_type, one.point.layout
        # What a replica costs an hour on a full machine: the curve is of the hardware, not of how a fleet rounds.
        usd = one.offer.usd_per_hour * layout.gpus / its.gpu_count
        points = [
            (tpot * 1000, usd / (rate * tokens))
            for tpot, rate in curve(
                workload.shape,
                catalog.spec(gpu),
                workload.traffic,
                weights=workload.format,
                kv_bytes=workload.kv_bytes,
                layout=layout,
                gpu_memory_gib=one.point.memory.limit_gib / 0.92,
            )
        ]
        points = [point for point in points if point[0] <= workload.tpot_s * 1100]
        x, y = zip(*points, strict=True)
        axes.plot(x, y, color=colour, lw=2, solid_capstyle="round")
        at = one.point.tpot_s * 1000, usd / (one.point.requests_per_s * tokens)
        axes.plot(*at, "o", ms=8, color=colour, mec="white", mew=1.5, zorder=5)
        tops.append(at[1])
        ends.append((*at, f"{gpu.value.removeprefix('nvidia-')} {layout}", colour))
    limit = workload.tpot_s * 1000
    top = max(tops) * 2.2
    axes.set_xlim(0, limit * 1.1)
    axes.set_ylim(0, top)
    axes.axvspan(limit, limit * 1.1, color="#eef1f4", zorder=0)
    axes.axvline(limit, color=FAINT, lw=1, ls=(0, (4, 3)))
    axes.text(limit * 0.985, top * 0.99, f"{limit:g} ms wanted", va="top", ha="right", size=9, color=FAINT)
    _labels(axes, ends, top, limit * 1.14)
    axes.grid(color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel("milliseconds between tokens: small batches left, large ones right")
    axes.set_ylabel("USD per million tokens, machines full")


def _labels(axes: Axes, ends: list[tuple[float, float, str, str]], top: float, column: float) -> None:
    """Names in a column right of the limit, as high as their dots or as near as they fit."""
    gap, last = top * 0.048, -top
    for x, y, text, colour in sorted(ends, key=lambda one: one[1]):
        last = max(y, last + gap)
        axes.annotate(
            text,
            (x, y),
            (column, last),
            color=colour,
            va="center",
            size=9,
            weight="bold",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "lw": 0.7,
                "alpha": 0.5,
                "shrinkB": 5,
                "shrinkA": 1,
            },
        )


def _bars(axes: Axes, shown: list[tuple[GPUType, Plan, str]]) -> None:
    widest = max(plan.usd_per_hour for _, plan, _ in shown)
    for row, (_, plan, colour) in enumerate(shown):
        one = plan.purchases[0]
        axes.barh(row, plan.usd_per_hour, color=colour, height=0.4)
        axes.text(
            plan.usd_per_hour + widest * 0.015,
            row,
            f"${plan.usd_per_hour:,.0f}/h",
            va="center",
            weight="bold",
        )
        detail = f"{plan.machines} x {one.offer.instance_type.name}, {plan.gpus} GPUs serve"
        detail += ", spot" if one.offer.market.value == "spot" else ""
        axes.text(0, row - 0.38, detail, va="center", size=8.5, color=FAINT)
    axes.set_yticks(
        range(len(shown)), [gpu.value.removeprefix("nvidia-") for gpu, _, _ in shown], weight="bold"
    )
    axes.set_ylim(len(shown) - 0.5, -0.75)
    axes.set_xlim(0, widest * 1.2)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("USD an hour, all machines of the cheapest plan")
