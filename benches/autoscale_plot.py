"""Draws the frontiers that `autoscale.py` found: misses against replica-hours. Needs matplotlib."""

from __future__ import annotations

from pathlib import Path

COLOURS = {
    "ours": "#0072b2",
    "knative": "#d55e00",
    "hpa": "#009e73",
    "keda": "#8c6d31",
    "ray_serve": "#cc79a7",
    "skyserve": "#56b4e9",
    "wva": "#e69f00",
    "static_peak": "#616e7c",
}
TICKS = (0.1, 0.01, 0.001, 0.0001)


def draw(document: list[dict], path: Path, traces: tuple[str, ...] = ("servegen/10", "made")) -> None:
    """A panel a cold start and trace. Seeds are drawn alike: how far their lines lie apart is what a seed does."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    shown = [trace for trace in traces if any(one["trace"] == trace for one in document)]
    colds = sorted({one["cold_start_s"] for one in document})
    figure = Figure(figsize=(12, 4.3 * len(shown) + 0.9), dpi=100, facecolor="white", layout="constrained")
    panels = figure.subplots(len(shown), len(colds), squeeze=False, sharey=True)
    for trace, row in zip(shown, panels, strict=True):
        for cold, axes in zip(colds, row, strict=True):
            for one in document:
                if (one["trace"], one["cold_start_s"]) != (trace, cold) or one["policy"] == "oracle":
                    continue
                points = sorted(
                    (point["replica_hours"] / one["oracle_hours"], max(1e-5, 1 - point["attainment"]))
                    for point in one["points"]
                )
                kept = [
                    point
                    for place, point in enumerate(points)
                    if all(point[1] < before[1] for before in points[:place])
                ]
                ours = one["policy"] == "ours"
                axes.plot(
                    *zip(*kept, strict=True),
                    color=COLOURS.get(one["policy"], "#1f2933"),
                    lw=2.4 if ours else 1.3,
                    zorder=5 if ours else 3,
                    marker="o" if ours else None,
                    ms=4,
                    label=one["policy"] if one["seed"] <= 1 else None,
                )
            axes.set_yscale("log")
            axes.set_xlim(1.0, 2.0)
            axes.set_ylim(5e-5, 0.2)
            axes.set_yticks(TICKS, [f"{100 * (1 - tick):g} %" for tick in TICKS])
            axes.minorticks_off()
            axes.invert_yaxis()
            axes.grid(color="#e4e7eb")
            axes.set_title(f"{trace}, cold start {cold} s", loc="left", weight="bold", size=11)
            axes.set_xlabel("replica-hours, as a multiple of the oracle's")
            for side in ("top", "right"):
                axes.spines[side].set_visible(False)
        row[0].set_ylabel("requests within the SLO")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    figure.savefig(path, metadata={"Software": None} if path.suffix == ".png" else {"Date": None})
