"""What pictures have in common: which files, letters and colours, and the same bytes each time. Needs matplotlib."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Literal

from textnlp_fast.destinations import file_destination
from textnlp_fast.errors import InvalidInputError, MissingPackageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "COLOURS",
    "FAINT",
    "FRAMELESS",
    "GRID",
    "INK",
    "STYLE",
    "Format",
    "drawing",
    "files_of",
    "save",
    "write",
]

Format = Literal["png", "svg"]

_FORMATS: Final[tuple[Format, ...]] = ("png", "svg")
_OTHER_FORMATS: Final = frozenset(
    {".pdf", ".ps", ".eps", ".jpg", ".jpeg", ".gif", ".webp", ".tif", ".tiff", ".bmp", ".html"}
)
INK, FAINT, GRID = "#1f2933", "#616e7c", "#e4e7eb"
# Okabe and Ito's colours, told apart by everyone, without the yellow that white paper swallows.
COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#1f2933", "#8c6d31")
STYLE: Final[Mapping[str, Any]] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that every machine draws the same
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": FAINT,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.parse_math": False,  # names may hold dollar signs
    "svg.hashsalt": "textnlp-fast",
}
FRAMELESS: Final[Mapping[str, Any]] = {
    **STYLE,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
"""For axes with curves and bars."""


def files_of(path: Path) -> list[tuple[Path, Format]]:
    """The files to write and their formats: by the suffix, both without one. Raises before any work is done."""
    suffix = path.suffix.lower()
    if suffix in _OTHER_FORMATS:
        raise InvalidInputError(
            f"cannot draw a {suffix} file",
            hint=f"Name it {path.stem}.png, {path.stem}.svg, or {path.stem} for both.",
        )
    if not path.parent.is_dir():
        raise InvalidInputError(f"the folder {path.parent} does not exist", hint="Make it, then draw again.")
    if path.is_dir():
        raise InvalidInputError(f"{path} is a folder", hint=f"Name a file in it: {path / 'update.png'}.")
    _matplotlib()
    places = [(path, each) for each in _FORMATS if suffix == f".{each}"]
    places = places or [(path.with_name(f"{path.name}.{each}"), each) for each in _FORMATS]
    for place, _ in places:
        file_destination(place)  # neither waits for who reads a pipe, nor draws on a device
    return places


def write(path: Path, picture: Callable[[Format], bytes]) -> list[Path]:
    """Writes a picture to `path` (see `files_of`) and returns the files."""
    written = []
    for place, form in files_of(path):
        place.write_bytes(picture(form))
        written.append(place)
    return written


@contextmanager
def drawing(style: Mapping[str, Any]) -> Iterator[None]:
    """Within it, matplotlib draws in this style, whatever the user has set for other pictures."""
    matplotlib = _matplotlib()
    with warnings.catch_warnings(), matplotlib.rc_context():
        warnings.simplefilter("ignore", UserWarning)  # letters that the font lacks are drawn as boxes
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(style)
        yield


def save(figure: Figure, form: Format, out: IO[bytes]) -> None:
    """Without what would differ from run to run, and from version to version."""
    figure.savefig(
        out, format=form, metadata={"Date": None, "Creator": None} if form == "svg" else {"Software": None}
    )


def _matplotlib() -> Any:
    try:
        import matplotlib  # noqa: PLC0415
        import matplotlib.figure  # noqa: PLC0415
    except ImportError as error:
        raise MissingPackageError(
            "drawing needs matplotlib", hint="pip install 'textnlp-fast[plot]'"
        ) from error
    return matplotlib
