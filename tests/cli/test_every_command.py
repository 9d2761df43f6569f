"""What holds for every command that there is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from textnlp_fast.cli.arguments import FiniteRange, Number
from textnlp_fast.cli.program import group

Run = Any


def _commands(
    command: click.Command = group, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from _commands(inner, (*path, name))


ALL = dict(_commands())
WITH_JSON = [path for path, one in ALL.items() if any("--json" in option.opts for option in one.params)]


def test_the_walk_finds_them() -> None:
    assert ("gpu", "catalog", "show") in WITH_JSON
    assert ("delta", "inspect") in ALL
    assert len(WITH_JSON) > 20


@pytest.mark.parametrize("path", WITH_JSON, ids=" ".join)
def test_a_wrong_call_with_json_is_answered_in_json(path: tuple[str, ...], run: Run) -> None:
    for words in (("--json", "--no-such-option"), ("--no-such-option", "--json")):
        outcome = run(*path, *words)
        assert outcome.code == 2
        assert set(outcome.document) == {"error", "hint"}
        assert "--no-such-option" in outcome.document["error"]
        assert " ".join(path) in outcome.document["hint"]
        assert "--no-such-option" in outcome.err


def test_without_json_and_after_two_dashes_nothing_is_answered(run: Run) -> None:
    assert run("ls", "--no-such-option").out == ""
    assert run("ls", "--no-such-option", "--", "--json").out == ""


def test_an_unknown_verb_and_a_missing_value_are_answered_in_json_too(run: Run) -> None:
    for words in (("lss", "--json"), ("gpu", "catalogue", "--json"), ("log", "--json")):
        outcome = run(*words)
        assert outcome.code == 2
        assert outcome.document["error"]


def test_every_other_error_has_the_same_shape(run: Run, tmp_path: Path) -> None:
    missing = run("log", "m", "--repo", tmp_path / "none", "--json")
    assert missing.code == 3
    assert set(missing.document) == {"error", "hint"}
    assert missing.document["error"] in missing.err
    assert run("log", "m", "--repo", tmp_path / "none").out == ""
    none = run("gpu", "recommend", "--params", "70e9", "--rps", "9", "--ttft", "1e-6", "--json")
    assert none.code == 13
    assert set(none.document) == {"error", "hint", "rejected"}
    assert set(none.document["rejected"][0]) == {"what", "why"}
    (tmp_path / "rules.json").write_text("no rules", encoding="utf-8")
    said = run("gpu", "health", "--agent", "http://127.0.0.1:9", "--rules", tmp_path / "rules.json", "--json")
    assert said.code == 2
    assert {"error", "hint", "verdict"} <= set(said.document)


@pytest.mark.parametrize(
    ("path", "option"),
    [
        (path, option)
        for path, one in ALL.items()
        for option in one.params
        if isinstance(option.type, (click.types.FloatParamType, click.FloatRange))
    ],
    ids=lambda it: " ".join(it) if isinstance(it, tuple) else it.opts[0],
)
def test_no_number_is_nan(path: tuple[str, ...], option: click.Parameter, run: Run, tmp_path: Path) -> None:
    if path in (("upload",), ("download",)):  # their settings refuse it, whoever makes them
        (tmp_path / "file").write_bytes(b"x")
        outcome = run(*path, tmp_path / "file", tmp_path / "out", option.opts[0], "nan")
        assert not (tmp_path / "out").exists()
    else:
        assert isinstance(option.type, (FiniteRange, Number))
        outcome = run(*path, option.opts[0], "nan")
        assert "'nan' is no" in outcome.err
    assert outcome.code == 2
