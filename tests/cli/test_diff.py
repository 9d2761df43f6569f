"""`textnlp-fast diff`: what is compared, what is printed, what is drawn."""

from __future__ import annotations

import json
import re
import struct
import sys
import zlib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

Run = Any

KINDS = ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.experts.3.w1", "input_layernorm")


def write(path: Path, layers: int, *, seed: int | None = None, name: str = "model.layers") -> Path:
    """A bf16 model; with a seed, one in which some weights moved, later layers more."""
    rng = np.random.default_rng(0)
    mover = np.random.default_rng(seed)
    header: dict[str, Any] = {}
    body = b""
    for tensor in [
        "model.embed_tokens.weight",
        *(f"{name}.{layer}.{kind}.weight" for layer in range(layers) for kind in KINDS),
        "lm_head.weight",
    ]:
        weights = (rng.normal(0, 0.02, (16, 16)).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        if seed is not None and "norm" not in tensor:
            layer = int(tensor.removeprefix(f"{name}.").split(".")[0]) if tensor.startswith(name) else 0
            moved = mover.random(weights.shape) < 0.02 + 0.5 * layer / layers
            weights = weights + moved * mover.integers(1, 40, weights.shape, dtype=np.uint16)
        header[tensor] = {"dtype": "BF16", "shape": [16, 16], "data_offsets": [len(body), len(body) + 512]}
        body += weights.tobytes()
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return path


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return write(tmp_path / "old.safetensors", 8), write(tmp_path / "new.safetensors", 8, seed=1)


def test_two_files(pair: tuple[Path, Path], run: Run) -> None:
    done = run("diff", *pair)
    assert done.code == 0
    assert re.match(r"[\d.]+ % of 10,752 weights changed, half of those by no more than \d+ ULPs", done.out)
    assert "none in norm" in done.out
    assert "would take" in done.out
    assert "42 tensors: 34 changed, 8 same" in done.out
    assert "input_layernorm" not in done.out
    assert "input_layernorm" in run("diff", *pair, "--all", "--limit", 0).out


def test_two_directories(tmp_path: Path, run: Run) -> None:
    for folder, seed in (("a", None), ("b", 1)):
        write(tmp_path / folder / "model.safetensors", 2, seed=seed)
        (tmp_path / folder / "config.json").write_text("{}")
    document = run("diff", tmp_path / "a", tmp_path / "b", "--json").document
    assert (document["old"], document["new"], document["bytes_of"]) == ("a", "b", "codec")
    assert len(document["lines"]) == 12


def test_by_layer_and_by_kind(pair: tuple[Path, Path], run: Run) -> None:
    layers = run("diff", *pair, "--by", "layer", "--json").document
    assert [line["name"] for line in layers["lines"]] == [
        "embedding",
        *(f"layer {layer}" for layer in range(8)),
        "head",
    ]
    assert sum(line["changed"] for line in layers["lines"]) == layers["total"]["changed"]
    first, last = layers["lines"][1], layers["lines"][8]
    assert last["changed_fraction"] > 5 * first["changed_fraction"]
    text = run("diff", *pair, "--by", "kind").out
    assert [line.split()[0] for line in text.splitlines()[3:]] == [
        "embedding",
        "attention",
        "mlp",
        "experts",
        "norm",
        "head",
    ]
    assert "16 of 16" in text


def test_json_holds_every_figure(pair: tuple[Path, Path], run: Run) -> None:
    line = run("diff", *pair, "--sort", "changed", "--limit", 1, "--json").document["lines"]
    assert len(line) == 1
    tensor = line[0]
    assert tensor["shape"] == [16, 16]
    assert sum(bin["count"] for bin in tensor["ulp_histogram"]) == tensor["changed"]
    assert all(bin["from"] <= bin["to"] for bin in tensor["ulp_histogram"])
    assert 0 < tensor["effective_rank"] <= tensor["full_rank"] == 16
    assert tensor["rank_exact"] is True
    assert tensor["bits_per_weight"] == pytest.approx(8 * tensor["stored_bytes"] / 256)
    without = run("diff", *pair, "--no-rank", "--json").document["lines"]
    assert {each["effective_rank"] for each in without} == {None}


def test_sorting_and_limits(pair: tuple[Path, Path], run: Run) -> None:
    text = run("diff", *pair, "--sort", "bytes", "--limit", 3).out
    assert "... and 31 more: --limit 0 shows all" in text
    assert run("diff", *pair, "--sort", "colour").code == 2


def test_a_narrow_terminal_gets_fewer_columns() -> None:
    from textnlp_fast.cli.diff import _columns, _fitting  # noqa: PLC0415

    columns = {name: [name, "x" * 8] for name in _columns("tensor")}
    assert _fitting(columns, None) == (columns, [])
    for width in range(60, 200, 7):
        kept, dropped = _fitting(columns, width)
        assert set(kept) | set(dropped) == set(columns)
        assert {"tensor", "status", "changed", "rank", "stored"} <= set(kept)
        assert sum(2 + max(map(len, cells)) for cells in kept.values()) <= width
    assert _fitting(columns, 10)[0].keys() == {"tensor", "status", "changed", "rank", "stored"}


def test_nothing_changed_is_said(pair: tuple[Path, Path], run: Run) -> None:
    done = run("diff", pair[0], pair[0])
    assert done.out == (
        "Nothing changed: all 42 tensors of old.safetensors, 10,752 weights, are bit for bit those of "
        "old.safetensors.\n42 tensors: 42 same\n"
    )


def test_a_version_that_was_pushed(place: Path, run: Run) -> None:
    document = run("diff", "m@1.0.0", "1.1.0", "--repo", place, "--json").document
    assert (document["old"], document["new"], document["bytes_of"]) == ("m@1.0.0", "m@1.1.0", "repository")
    changed = next(line for line in document["lines"] if line["name"] == "weight")
    assert (changed["strategy"], changed["effective_rank"]) == ("delta", None)
    assert "each by one ULP" in document["summary"]


def test_what_is_meant_is_told_or_asked(
    tmp_path: Path, pair: tuple[Path, Path], place: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def complaint(*words: object) -> str:
        done = run("diff", *words)
        assert done.code == 2
        assert "hint:" in done.err
        assert not done.out
        return str(done.err)

    assert f"{tmp_path}/nowhere does not exist" in complaint(pair[0], tmp_path / "nowhere")
    assert "one.safetensors does not exist" in complaint("one.safetensors", "1.1.0", "--repo", place)
    assert "one is on disk and the other a version" in complaint("m@1.0.0", pair[0], "--repo", place)
    assert "no repository was given" in complaint("m@1.0.0", "1.1.0")
    # Files named as versions are: without a repository there is no doubt, with one there is.
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "m@1.0.0" / "a.safetensors", 1)
    write(tmp_path / "m@1.1.0" / "a.safetensors", 1, seed=1)
    assert run("diff", "m@1.0.0", "m@1.1.0", "--json").document["bytes_of"] == "codec"
    assert "both versions in a repository and files here" in complaint("m@1.0.0", "m@1.1.0", "--repo", place)
    assert run("diff", "./m@1.0.0", "./m@1.1.0", "--repo", place, "--json").document["bytes_of"] == "codec"
    # One of the two on disk is a coincidence.
    assert run("diff", "m@1.0.0", "1.1.0", "--repo", place, "--json").document["bytes_of"] == "repository"


# --- pictures ----------------------------------------------------------------------------------------------


def png_size(data: bytes) -> tuple[int, int]:
    """Width and height of a PNG whose every chunk is whole."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, kinds, packed = 8, [], b""
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length]) == (zlib.crc32(kind + body),)
        packed += body if kind == b"IDAT" else b""
        kinds.append(kind)
        at += 12 + length
    assert (kinds[0], kinds[-1]) == (b"IHDR", b"IEND")
    width, height = struct.unpack(">II", data[16:24])
    assert len(zlib.decompress(packed)) > width * height // 8
    return width, height


@pytest.mark.parametrize("layers", [1, 8, 80])
def test_pictures(layers: int, tmp_path: Path, run: Run) -> None:
    pytest.importorskip("matplotlib")
    pair = write(tmp_path / "old.safetensors", layers), write(tmp_path / "new.safetensors", layers, seed=1)
    done = run("diff", *pair, "--no-rank", "--plot", tmp_path / "update-1.1")
    assert done.code == 0
    assert done.out.count("drawn: ") == 2
    png, svg = tmp_path / "update-1.1.png", tmp_path / "update-1.1.svg"
    width, height = png_size(png.read_bytes())
    assert width == 1200
    assert 500 <= height <= 1200
    root = ElementTree.fromstring(svg.read_text())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.attrib["width"] == "864pt"  # 1200 px at 100 a inch
    # The same models give the same pictures.
    before = png.read_bytes(), svg.read_bytes()
    assert run("diff", *pair, "--no-rank", "--plot", tmp_path / "update-1.1", "--json").document["old"]
    assert (png.read_bytes(), svg.read_bytes()) == before
    assert run("diff", *pair, "--no-rank", "--plot", png, "--plot-value", "relative").code == 0
    assert png.read_bytes() != before[0]


@pytest.mark.parametrize("layers", [1, 8, 32, 80])
def test_labels_do_not_overlap(layers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every text of the picture has its place to itself, and is inside the picture."""
    pytest.importorskip("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.text import Text  # noqa: PLC0415

    from textnlp_fast.cli import diff_plot  # noqa: PLC0415
    from textnlp_fast.storage.explain_files import explain_files  # noqa: PLC0415

    long = "vision_tower.vision_model.encoder.layers"
    pair = (
        write(tmp_path / f"{'long' * 30}.safetensors", layers, name=long),
        write(tmp_path / "new.safetensors", layers, seed=1, name=long),
    )
    figure = diff_plot._figure(explain_files(*pair, with_rank=False), "changed")
    texts: list[Text] = []
    draw = Text.draw
    # Only what is really drawn: axes also hold labels of ticks beyond their ends.
    monkeypatch.setattr(Text, "draw", lambda self, renderer: (texts.append(self), draw(self, renderer)))
    FigureCanvasAgg(figure).draw()
    boxes = [
        (text.get_text(), text.get_window_extent())
        for text in texts
        if text.get_visible() and text.get_text().strip()
    ]
    assert len(boxes) > 20
    width, height = figure.bbox.width, figure.bbox.height
    for number, (text, box) in enumerate(boxes):
        assert box.x0 >= 0, text
        assert box.x1 <= width, text
        assert box.y0 >= 0, text
        assert box.y1 <= height, text
        for other, its in boxes[number + 1 :]:
            apart = box.x1 <= its.x0 or its.x1 <= box.x0 or box.y1 <= its.y0 or its.y1 <= box.y0
            assert apart, f"{text!r} {box} and {other!r} {its}"


def test_odd_names_and_empty_pictures(tmp_path: Path, run: Run) -> None:
    pytest.importorskip("matplotlib")
    header = b'{"$\\\\frac{":{"dtype":"F4","shape":[16],"data_offsets":[0,8]}}'
    files = [tmp_path / "a $x^{$.safetensors", tmp_path / "b 権.safetensors"]
    for number, path in enumerate(files):
        path.write_bytes(len(header).to_bytes(8, "little") + header + bytes([number] * 8))
    for pair in (files, [files[0], files[0]]):
        assert run("diff", *pair, "--plot", tmp_path / "odd.png").code == 0
        assert png_size((tmp_path / "odd.png").read_bytes())[0] == 1200


def test_bad_places_for_pictures_are_refused_before_the_work(pair: tuple[Path, Path], run: Run) -> None:
    pytest.importorskip("matplotlib")
    folder = pair[0].parent
    for place, reason in (
        (folder / "x.pdf", "cannot draw a .pdf file"),
        (folder / "none" / "x.png", "does not exist"),
        (folder, "is a folder"),
    ):
        done = run("diff", *pair, "--plot", place)
        assert done.code == 2
        assert reason in done.err
        assert "hint:" in done.err
        assert not done.out


def test_without_matplotlib_the_command_to_install_it_is_said(
    pair: tuple[Path, Path], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = run("diff", *pair, "--plot", pair[0].parent / "x.png")
    assert done.code == 1
    assert "drawing needs matplotlib" in done.err
    assert "pip install 'textnlp-fast[plot]'" in done.err
    assert not (pair[0].parent / "x.png").exists()
    assert run("diff", *pair).code == 0
