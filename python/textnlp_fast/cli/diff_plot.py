"""Draws what an update changed: where, how far in ULPs, and what it takes to store. Needs matplotlib (`[plot]`)."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from textnlp_fast.cli.output import show_size
from textnlp_fast.cli.pictures import FAINT, INK, STYLE, Format, drawing, files_of, save, write
from textnlp_fast.cli.program import printable
from textnlp_fast.storage.explain import Explanation, Line, grid_of, lines_of, total_of
from textnlp_fast.storage.explain_words import headline_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

__all__ = ["WIDTH_PX", "draw", "files_of", "picture"]

WIDTH_PX: Final = 1200
_DPI: Final = 100
_NOTHING, _BAR = "#eceff1", "#3f7fa6"
_COLOURS: Final = "YlGnBu"  # light to dark, and told apart by everyone
_ULP_BINS: Final = 8
_LEFT_OF: Final[dict[str, Any]] = {"ha": "right", "va": "center", "size": 9, "linespacing": 1.3}


def draw(explanation: Explanation, path: Path, *, value: str = "changed") -> list[Path]:
    """Writes the picture to `path` (see `files_of`) and returns the files."""
    return write(path, lambda form: picture(explanation, form, value=value))


def picture(explanation: Explanation, form: Format, *, value: str = "changed") -> bytes:
    """The picture as PNG, `WIDTH_PX` wide, or SVG: the same bytes each time. `value`: changed or relative."""
    with drawing(STYLE):
        figure = _figure(explanation, value)
        out = io.BytesIO()
        if form == "svg":
            save(figure, form, out)
        else:
            _save_png(figure, out)
    return out.getvalue()


def _save_png(figure: Figure, out: io.BytesIO) -> None:
    """In a palette: a third of the bytes, and nobody sees the difference."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from PIL import Image  # noqa: PLC0415

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    drawn.quantize(256, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)


# --- the page ----------------------------------------------------------------------------------------------


def _figure(explanation: Explanation, value: str) -> Figure:
    from matplotlib.figure import Figure  # noqa: PLC0415

    layers, columns, cells = grid_of(explanation, value)
    outside = [line for line in lines_of(explanation, "layer") if line.layer is None and line.sums.elements]
    kinds = max(4, sum(bool(line.stored_bytes) for line in lines_of(explanation, "kind")))
    rows_px = _rows_px(len(layers))
    left_px = 120 + (60 if outside else 0) + (20 + rows_px if layers else 0) + 76
    right_px = 122 + 34 * kinds + 50 + 16 + 180 + 50
    height_px = max(left_px, right_px)
    figure = Figure(figsize=(WIDTH_PX / _DPI, height_px / _DPI), dpi=_DPI, facecolor="white")

    def place(left: float, top: float, width: float, height: float) -> Axes:
        box = (left / WIDTH_PX, 1 - (top + height) / height_px, width / WIDTH_PX, height / height_px)
        return figure.add_axes(box)

    def heading(left: float, top: float, text: str) -> None:
        figure.text(left / WIDTH_PX, 1 - top / height_px, text, weight="bold", size=11)

    _title(figure, explanation, height_px)
    figures = [_value(line, value) for line in outside]
    norm = _scale(np.array([*cells.ravel(), *[np.nan if each is None else each for each in figures]]))
    top = 120.0
    what = "weights that changed" if value == "changed" else "norm of the change over that of the old weights"
    heading(40, 108, f"Where: {what}")
    if outside:
        figure.text(88 / WIDTH_PX, 1 - (top + 22) / height_px, "outside\nlayers", color=FAINT, **_LEFT_OF)
        _strip(place(100, top, 560, 44), outside, figures, norm)
        top += 60
    if layers:
        _heat(place(100, top + 20, 560, rows_px), layers, columns, cells, norm)
        top += 20 + rows_px
    if norm is not None:
        _colour_bar(place(100, top + 24, 560, 12), norm)
    if 0 in figures or np.any(cells == 0):
        figure.text(660 / WIDTH_PX, 1 - 108 / height_px, "grey: unchanged", color=FAINT, size=9, ha="right")
    verb = "takes in the repository" if explanation.bytes_of == "repository" else "would take to store"
    heading(730, 108, f"Size: what it {verb}")
    _bytes(place(830, 122, 165, 34 * kinds), explanation)
    top = 122 + 34 * kinds + 50
    heading(730, top, "How far: ULPs that the changed weights moved")
    _ulps(place(740, top + 16, 420, min(height_px - top - 66, 300)), total_of(explanation))
    return figure


def _rows_px(rows: int) -> int:
    """Height of the heat map: few layers do not become towers, many do not become a poster."""
    if rows <= 3:
        return 80 * rows
    return max(240, 34 * rows) if rows <= 20 else min(max(680, 9 * rows), 900)


def _title(figure: Figure, explanation: Explanation, height_px: int) -> None:
    names = f"{_short(explanation.old, 44)}  →  {_short(explanation.new, 44)}"
    figure.text(40 / WIDTH_PX, 1 - 40 / height_px, names, size=17, weight="bold")
    figure.text(40 / WIDTH_PX, 1 - 66 / height_px, headline_of(explanation), size=11, color=FAINT)


def _short(text: str, most: int) -> str:
    text = printable(text)
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-(most // 2) :]}"


# --- where -------------------------------------------------------------------------------------------------


def _value(line: Line, value: str) -> float | None:
    return line.sums.changed_fraction if value == "changed" else line.sums.relative_norm


def _scale(values: npt.NDArray[np.float64]) -> Normalize | None:
    """Colours for all cells: by the logarithm where they span more than can be told apart."""
    from matplotlib.colors import LogNorm, Normalize  # noqa: PLC0415

    seen = values[np.isfinite(values) & (values > 0)]
    if not len(seen):
        return None
    low, high = float(seen.min()), float(seen.max())
    if high > 30 * low:
        return LogNorm(max(low, high * 1e-6) / 1.5, high * 1.01)
    return Normalize(0, high * 1.05)


def _colour(value: float | None, norm: Normalize | None) -> Any:
    import matplotlib  # noqa: PLC0415

    if value is None or not np.isfinite(value):
        return "white"
    if value == 0 or norm is None:
        return _NOTHING
    return matplotlib.colormaps[_COLOURS](float(norm(value)) * 0.92 + 0.06)


def _text_colour(colour: Any) -> str:
    from matplotlib.colors import to_rgb  # noqa: PLC0415

    red, green, blue = to_rgb(colour)
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 0.55 else "white"


def _shown(value: float) -> str:
    if value == 0:
        return "0"
    percent = 100 * value
    return f"{percent:.3g} %" if percent >= 0.001 else f"{percent:.0e} %"


def _cell(axes: Axes, column: float, row: float, value: float | None, norm: Normalize | None) -> Any:
    from matplotlib.patches import Rectangle  # noqa: PLC0415

    colour = _colour(value, norm)
    axes.add_patch(Rectangle((column, row), 1, 1, facecolor=colour, edgecolor="white", linewidth=_gap(axes)))
    return colour


def _gap(axes: Axes) -> float:
    rows = abs(axes.get_ylim()[1] - axes.get_ylim()[0])
    return 2.0 if rows <= 24 else 0.6


def _strip(axes: Axes, lines: list[Line], figures: list[float | None], norm: Normalize | None) -> None:
    """The tensors that are in no layer, a cell a kind, with its name inside."""
    axes.set(xlim=(0, len(lines)), ylim=(1, 0))
    axes.axis("off")
    for place, (line, value) in enumerate(zip(lines, figures, strict=True)):
        ink = _text_colour(_cell(axes, place, 0, value, norm))
        name = "norms" if line.label == "norm" else line.label
        text = name if value is None else f"{name}\n{_shown(value)}"
        axes.text(place + 0.5, 0.5, text, ha="center", va="center", color=ink, size=9.5, linespacing=1.35)


def _heat(
    axes: Axes,
    layers: list[str],
    columns: list[str],
    cells: npt.NDArray[np.float64],
    norm: Normalize | None,
) -> None:
    axes.set(xlim=(0, len(columns)), ylim=(len(layers), 0))
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(length=0)
    axes.xaxis.tick_top()
    axes.set_xticks(np.arange(len(columns)) + 0.5, columns)
    every = next(step for step in (1, 2, 4, 5, 10, 20, 50, 100, 1000, 10**6) if len(layers) <= 28 * step)
    shown = [place for place in range(len(layers)) if place % every == 0]
    axes.set_yticks([place + 0.5 for place in shown], [_short(layers[place], 14) for place in shown])
    if len(layers) > 1 and len(layers[0]) < 6:
        axes.set_ylabel("layer")
    written = len(layers) <= 20
    for row in range(len(layers)):
        for column in range(len(columns)):
            value = float(cells[row, column])
            colour = _cell(axes, column, row, value, norm)
            if written and np.isfinite(value):
                ink = _text_colour(colour)
                axes.text(
                    column + 0.5, row + 0.5, _shown(value), ha="center", va="center", color=ink, size=9.5
                )


def _colour_bar(axes: Axes, norm: Normalize) -> None:
    from matplotlib.colors import LogNorm  # noqa: PLC0415
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator  # noqa: PLC0415

    low, high = float(norm.vmin or 0), float(norm.vmax or 1)
    edges = np.geomspace(low, high, 129) if isinstance(norm, LogNorm) else np.linspace(low, high, 129)
    if isinstance(norm, LogNorm):
        axes.set_xscale("log")
    for left, right in pairwise(edges):
        axes.axvspan(left, right, color=_colour((left + right) / 2, norm), linewidth=0)
    axes.set(xlim=(low, high), yticks=[])
    wide = isinstance(norm, LogNorm) and high / low > 300
    axes.xaxis.set_major_locator(
        LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)) if isinstance(norm, LogNorm) else MaxNLocator(6)
    )
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _shown(value)))
    axes.tick_params(labelsize=9, length=3)
    for side in axes.spines.values():
        side.set_visible(False)


# --- what it takes, and how far ----------------------------------------------------------------------------


def _bytes(axes: Axes, explanation: Explanation) -> None:
    lines = [line for line in lines_of(explanation, "kind") if line.stored_bytes]
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(length=0)
    axes.set_xticks([])
    if not lines:
        _say(axes, "nothing to store")
        return
    most = max(line.stored_bytes or 0 for line in lines)
    for place, line in enumerate(lines):
        stored = line.stored_bytes or 0
        axes.barh(place, stored, height=0.62, color=_BAR)
        bits = line.bits_per_weight
        text = f"{'~' if line.estimated else ''}{show_size(stored)}"
        text += f", {bits:.2g} bits/weight" if bits is not None else ""
        axes.text(stored + most * 0.03, place, text, va="center", size=9)
    axes.set_yticks(range(len(lines)), [line.label for line in lines])
    axes.set(xlim=(0, most * 1.02), ylim=(max(len(lines), 4) - 0.5, -0.5))


def _ulps(axes: Axes, total: Line) -> None:
    counts = np.array(total.sums.ulps[1:], dtype=np.float64)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.set_yticks([])
    if not counts.sum():
        _say(axes, "no weight moved" if not total.sums.changed else "no dtype here has ULPs")
        return
    if len(counts) > _ULP_BINS:
        counts = np.array([*counts[: _ULP_BINS - 1], counts[_ULP_BINS - 1 :].sum()])
    shares = counts / counts.sum()
    axes.bar(np.arange(len(shares)), shares, width=0.86, color=_BAR)
    for place, share in enumerate(shares):
        if share:
            axes.text(place, share + shares.max() * 0.02, _share(share), ha="center", va="bottom", size=9)
    labels = ["1", *[f"{1 << bit}-{(2 << bit) - 1}" for bit in range(1, len(shares))]]
    if len(total.sums.ulps) - 1 > _ULP_BINS:
        labels[-1] = f"{1 << (_ULP_BINS - 1)}+"
    axes.set_xticks(range(len(labels)), labels)
    axes.tick_params(axis="x", length=0, labelsize=8.5)
    axes.set(xlim=(-0.6, max(len(labels), 5) - 0.4), ylim=(0, float(shares.max()) * 1.12))


def _share(share: float) -> str:
    percent = 100 * share
    return f"{percent:.0f} %" if percent >= 9.5 else f"{percent:.1f} %" if percent >= 0.05 else "<0.1 %"


def _say(axes: Axes, text: str) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)
    axes.text(0, 0.8, text, transform=axes.transAxes, color=FAINT)
