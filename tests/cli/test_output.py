"""Tables on terminals of any width: names stay readable, lines stay whole."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from textnlp_fast.cli import output

Show = Callable[..., list[str]]

NAME = "model.layers.{}.self_attn.rotary_embedding.q_proj.weight"
COLUMNS = ["tensor", "status", "dtype", "changed", "max ULP", "raw"]
ROWS = [[NAME.format(n), "changed", "BF16", "12.345 %", "12", "117.44 MB"] for n in (1, 22)]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Show:
    def show(width: int, *arguments: Any, **options: Any) -> list[str]:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setenv("LINES", "24")
        capsys.readouterr()
        output.print_table(*arguments, **options)
        return click.unstyle(capsys.readouterr().out).splitlines()

    return show


def test_a_wide_terminal_shows_all_in_one_line(terminal: Show) -> None:
    lines = terminal(200, COLUMNS, ROWS, left=3, yields=0)
    assert len(lines) == 3
    assert lines[1].startswith(NAME.format(1) + "   changed")  # one column more for the longer name
    assert lines[0].index("status") == lines[1].index("changed")


def test_a_name_is_shortened_in_the_middle_at_eighty_columns(terminal: Show) -> None:
    lines = terminal(80, COLUMNS, ROWS, left=3, yields=0)
    assert len(lines) == 3
    assert all(len(line) <= 80 for line in lines)
    shortened = lines[1].split("  ")[0]
    assert "…" in shortened
    assert shortened.startswith("model.layers")
    assert shortened.endswith("proj.weight")
    assert lines[1].endswith("117.44 MB")


def test_a_name_gets_its_own_line_where_little_would_be_left_of_it(terminal: Show) -> None:
    lines = terminal(60, COLUMNS, ROWS, left=3, yields=0)
    assert len(lines) == 6
    assert all(len(line) <= 60 for line in lines)
    assert [lines[2], lines[4]] == [NAME.format(1), NAME.format(22)]
    assert lines[3].startswith("  changed")
    assert lines[3].endswith("117.44 MB")


def test_a_message_goes_below_its_row(terminal: Show) -> None:
    rows = [["1.0.0", "m" * 90, "9 B"], ["1.1.0", "", "9 B"]]
    lines = terminal(30, ["version", "message", "raw"], rows, left=2, yields=1)
    assert lines[2] == "1.0.0    9 B"
    assert lines[3].startswith("  mmm")
    assert lines[4:] == ["1.1.0    9 B"]


def test_a_pipe_gets_whole_names(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    long = NAME.format("9" * 300)
    output.print_table(COLUMNS, [[long, *ROWS[0][1:]]], left=3, yields=0)
    assert long in capsys.readouterr().out


@given(text=st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=40), width=st.integers(0, 50))
def test_what_is_shortened_fits_and_keeps_both_ends(text: str, width: int) -> None:
    short = output.shorten(text, width)
    assert cell_len(short) <= width
    if cell_len(text) <= width:
        assert short == text
    elif width:
        cuts = [index for index, letter in enumerate(short) if letter == "…"]
        assert any(text.startswith(short[:cut]) and text.endswith(short[cut + 1 :]) for cut in cuts)
