"""Every verb: what it prints, the JSON it prints, and the code it exits with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import write_model
from textnlp_fast.cli import main
from textnlp_fast.cli.program import VERBS

Run = Any


def test_push_says_what_it_did(tmp_path: Path, models: tuple[Path, Path], run: Run) -> None:
    done = run("push", models[0], "org/m@1.0.0", "--repo", tmp_path / "r", "--meta", "step=7")
    assert done.code == 0
    assert "pushed org/m@1.0.0" in done.out
    again = run("push", models[0], "org/m@1.0.0", "--repo", tmp_path / "r")
    assert again.code == 0
    assert "there already" in again.out
    second = run("push", models[1], "org/m@1.1.0", "--repo", tmp_path / "r", "--base", models[0], "--json")
    assert second.document["parent"] == "org/m@1.0.0"
    assert 0 < second.document["stored_bytes"] < 1000
    alone = run("push", models[1], "other@1.0.0", "--repo", tmp_path / "r", "--parent", "none", "--json")
    assert alone.document["parent"] is None
    assert alone.document["stored_bytes"] == 0
    assert alone.document["ratio"] is None
    shown = run("show", "org/m@1.0.0", "--repo", tmp_path / "r", "--json")
    assert shown.document["metadata"] == {"step": "7"}


def test_push_says_why_a_version_is_whole(tmp_path: Path, models: tuple[Path, Path], run: Run) -> None:
    assert run("push", models[0], "m@1.0.0", "--repo", tmp_path / "r").code == 0
    small = run("push", models[1], "m@1.1.0", "--repo", tmp_path / "r")
    assert "pushed m@1.1.0 against m@1.0.0: " in small.out
    assert "stored" not in "".join(small.out.splitlines()[1:])  # as expected: nothing more to say
    jump = write_model(tmp_path / "jump", 0x1234, every=1)
    whole = run("push", jump, "m@2.0.0", "--repo", tmp_path / "r")
    first, second = whole.out.splitlines()
    assert first.startswith("pushed m@2.0.0: ")
    assert second.startswith("stored whole: storing and restoring it and what follows would cost ")
    assert second.endswith(" against 1.1.0")
    document = run("show", "m@2.0.0", "--repo", tmp_path / "r", "--json").document
    assert (document["parent"], document["base"]) == ("m@1.1.0", None)
    assert document["reason"] == second
    assert second in run("show", "m@2.0.0", "--repo", tmp_path / "r").out
    rows = run("log", "m", "--repo", tmp_path / "r", "--json").document
    assert rows[0]["parent"] == "1.1.0"
    named = run("push", jump, "n@1.0.0", "--repo", tmp_path / "r", "--parent", "m@1.1.0", "--json").document
    assert (named["parent"], named["base"], named["reason"]) == ("m@1.1.0", "m@1.1.0", "")


def test_what_is_said_of_a_version_that_is_there_already_is_not_lost_silently(
    models: tuple[Path, Path], place: Path, run: Run
) -> None:
    again = run("push", models[1], "m@1.1.0", "--repo", place)
    assert (again.code, again.err) == (0, "")
    words = ("-m", "a new message", "--base-model", "m@1.0.0", "--meta", "step=7")
    for more in ((), ("--json",)):
        said = run("push", models[1], "m@1.1.0", "--repo", place, *words, *more)
        assert said.code == 0
        assert "not recorded: message, step, base_model" in said.err
    assert run("show", "m@1.1.0", "--repo", place, "--json").document["message"] == ""
    first = run("push", models[0], "m@1.0.0", "--repo", place, "-m", "first")
    assert first.err == ""  # it has this message


def test_a_dry_run_says_what_its_dollars_are(
    tmp_path: Path, models: tuple[Path, Path], place: Path, run: Run
) -> None:
    jump = write_model(tmp_path / "jump", 1, every=89)
    told = run("push", jump, "m@1.2.0", "--repo", place, "--dry-run").out
    assert "what follows would cost" in told
    assert "USD alone: to keep and restore this version by itself." in told
    assert "The choice above counts the versions that may follow, too" in told
    fresh = run("push", jump, "n@1.0.0", "--repo", place, "--dry-run").out
    assert "USD alone" in fresh
    assert "The choice above" not in fresh


def test_the_latest_of_a_model_with_pre_releases_only_is_told_to_be_one(
    tmp_path: Path, models: tuple[Path, Path], run: Run
) -> None:
    place = tmp_path / "r"
    for version in ("1.0.0-rc.1", "1.0.0-rc.2"):
        assert run("push", models[0], f"m@{version}", "--repo", place).code == 0
    note = "1.0.0-rc.2 is a pre-release: there is no other version"
    for reference in ("m", "m@latest"):
        assert note in run("show", reference, "--repo", place).out
        assert note in run("pull", reference, tmp_path / "out", "--repo", place).out
    assert "pre-release" not in run("show", "m@1.0.0-rc.2", "--repo", place).out
    assert run("push", models[0], "m@1.0.0", "--repo", place).code == 0
    assert "pre-release" not in run("show", "m", "--repo", place).out


def test_pins_are_in_the_log(place: Path, run: Run) -> None:
    assert "pinned" not in run("log", "m", "--repo", place).out
    assert run("pin", "m@1.0.0", "--repo", place, "--reason", "cited").code == 0
    lines = run("log", "m", "--repo", place).out.splitlines()
    assert "pinned" in lines[0].split()
    assert ["cited" in line for line in lines[1:]] == [False, True]
    rows = run("log", "m", "--repo", place, "--json").document
    assert [row["pinned"] for row in rows] == [None, "cited"]


def test_pull_makes_the_directory(tmp_path: Path, models: tuple[Path, Path], place: Path, run: Run) -> None:
    done = run("pull", "m", tmp_path / "out", "--repo", place)
    assert done.code == 0
    assert "pulled m@1.1.0" in done.out
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (models[1] / name).read_bytes()
    helped = run(
        "pull", "m@1.1.0", tmp_path / "helped", "--repo", place, "--have", models[0], "--json", "--threads", 1
    )
    assert helped.document["fetched_bytes"] < 1000


def test_log_lists_the_newest_first(place: Path, run: Run) -> None:
    rows = run("log", "m", "--repo", place, "--json").document
    assert [row["version"] for row in rows] == ["1.1.0", "1.0.0"]
    assert rows[0]["parent"] == "1.0.0"
    assert rows[1]["message"] == "first"
    text = run("log", "m", "--repo", place).out
    assert "1.1.0" in text
    assert "first" in text


def test_diff_counts_elements_and_bytes(place: Path, run: Run) -> None:
    document = run("diff", "m@1.0.0", "1.1.0", "--repo", place, "--json").document
    rows = {row["name"]: row for row in document["lines"]}
    assert rows["same"]["status"] == "same"
    assert rows["weight"]["status"] == "changed"
    assert (rows["weight"]["changed"], rows["weight"]["elements"], rows["weight"]["max_ulp"]) == (43, 4096, 1)
    text = run("diff", "m@1.0.0", "1.1.0", "--repo", place).out
    assert "1.050 %" in text
    assert "2 tensors: 1 changed, 1 same" in text
    assert "BF16" in run("diff", "m@1.0.0", "m@1.1.0", "--repo", place, "--all").out


def test_ls_and_show(place: Path, run: Run) -> None:
    stages = {"1.0.0": "draft", "1.1.0": "draft"}
    assert run("ls", "--repo", place, "--json").document == [
        {"name": "m", "versions": ["1.0.0", "1.1.0"], "stages": stages, "aliases": {}, "deployments": {}}
    ]
    assert "1.1.0" in run("ls", "--repo", place).out
    text = run("show", "m", "--repo", place).out
    assert "m@1.1.0" in text
    assert "model.safetensors" in text
    tensors = run("show", "m", "--repo", place, "--tensors").out
    assert "weight" in tensors
    document = run("show", "m@1.1.0", "--repo", place, "--json").document
    assert {tensor["name"]: tensor["bases"] for tensor in document["tensors"]} == {"same": 0, "weight": 1}


def test_show_takes_dtypes_from_the_files(tmp_path: Path, run: Run) -> None:
    header = b'{"a":{"dtype":"F16","shape":[4],"data_offsets":[0,8]},'
    header += b'"b":{"dtype":"BF16","shape":[4],"data_offsets":[8,16]},'
    header += b'"c":{"dtype":"I64","shape":[1],"data_offsets":[16,24]}}'
    model = tmp_path / "model.safetensors"
    model.write_bytes(len(header).to_bytes(8, "little") + header + bytes(24))
    assert run("push", model, "m@1.0.0", "--repo", tmp_path / "r").code == 0
    tensors = run("show", "m", "--repo", tmp_path / "r", "--json").document["tensors"]
    assert [tensor["dtype"] for tensor in tensors] == ["F16", "BF16", "I64"]
    assert "I64" in run("show", "m", "--repo", tmp_path / "r", "--tensors").out


def test_verify_exits_with_five_on_damage(place: Path, run: Run) -> None:
    good = run("verify", "--repo", place)
    assert good.code == 0
    assert "all is well" in good.out
    assert run("verify", "m@1.0.0", "--repo", place, "--json").document["ok"] is True
    victim = max(
        (place / "objects").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else -1
    )
    data = bytearray(victim.read_bytes())
    data[-1] ^= 1
    victim.write_bytes(data)
    assert run("verify", "--repo", place, "--shallow").code == 0
    bad = run("verify", "--repo", place)
    assert bad.code == 5
    assert victim.name in bad.out
    assert "m@1.0.0" in bad.out
    document = run("verify", "--repo", place, "--json").document
    assert document["ok"] is False
    assert document["problems"]
    victim.unlink()
    missing = run("verify", "--repo", place, "--shallow")
    assert missing.code == 5
    assert "missing" in missing.out


def test_info_names_the_kernels(run: Run) -> None:
    facts = run("info", "--json").document
    assert facts["isa"] in facts["available_isas"]
    assert facts["threads"] >= 1
    assert facts["cuda"]["device_count"] or facts["cuda"]["reason"]
    assert facts["isa"] in run("info").out


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (["log", "nothing"], 3, "no model 'nothing'"),
        (["pull", "m@9.0.0", "out"], 3, "no version 9.0.0"),
        (["show", "bad name"], 2, "not a model name"),
        (["show", "m@1.0"], 2, "not a version"),
        (["show", "m@one"], 3, "no alias 'one'"),
        (["diff", "m", "1.1.0"], 2, "names no version"),
        (["push", ".", "m"], 2, "names no version"),
        (["push", "nowhere", "m@1.0.0"], 2, "does not exist"),
        (["push", "{v2}", "m@1.0.0"], 4, "published already"),
        (["push", "{v1}", "m@3.0.0", "--meta", "x"], 2, "KEY=VALUE"),
        (["nonsense"], 2, "No such command"),
        (["pull", "m"], 2, "Missing argument"),
    ],
)
def test_errors_are_one_line_and_a_hint(
    words: list[str], code: int, reason: str, place: Path, run: Run
) -> None:
    words = [word.format(v1=place.parent / "v1", v2=place.parent / "v2") for word in words]
    done = run(*words, *([] if words[0] == "nonsense" else ["--repo", place]))
    assert done.code == code
    assert reason in done.err
    assert "Traceback" not in done.err
    assert not done.out
    if code in (3, 4):
        assert "hint:" in done.err


def test_the_repository_comes_from_the_environment(
    place: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = run("ls")
    assert lost.code == 2
    assert "TEXTNLP_FAST_REPO" in lost.err
    monkeypatch.setenv("TEXTNLP_FAST_REPO", str(place))
    assert run("ls").code == 0


def test_a_repository_is_not_made_by_asking(tmp_path: Path, run: Run) -> None:
    done = run("ls", "--repo", tmp_path / "typo")
    assert done.code == 3
    assert "no repository" in done.err
    assert not (tmp_path / "typo").exists()


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_an_example(verb: str, run: Run) -> None:
    done = run(verb, "--help")
    assert done.code == 0
    assert f"textnlp-fast {verb}" in done.out
    assert "Example" in done.out


def test_help_names_every_verb_and_loads_nothing_heavy() -> None:
    program = (
        "import sys, textnlp_fast.cli as cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'obstore', 'rich', 'semver'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout
    for verb in VERBS:
        assert verb in done.stdout


def test_a_reader_that_leaves_is_no_error(place: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"'{sys.executable}' -m textnlp_fast.cli log m --json --repo '{place}' | true"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("words", [["ls"], ["log", "m", "--json"], ["--help"], ["--version"]])
def test_an_output_that_is_full_is_one_line(
    words: list[str],
    place: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TEXTNLP_FAST_REPO", str(place))
    capsys.readouterr()
    with Path("/dev/full").open("w") as full, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit) as ended:
            main(words)
    assert ended.value.code == 10
    complaint = capsys.readouterr().err
    assert "the output cannot be written: No space left" in complaint
    assert len(complaint.splitlines()) == 1


def test_control_characters_are_spelled_out(tmp_path: Path, run: Run) -> None:
    name = "[bold]a\x1b[31m\u202eb\n"
    entries = {name: {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]}}
    header = json.dumps(entries).encode()
    model = tmp_path / "model.safetensors"
    model.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    assert run("push", model, "m@1.0.0", "--repo", tmp_path / "r", "-m", "one\n\x1b]0;two\x07").code == 0
    shown = run("show", "m", "--repo", tmp_path / "r", "--tensors")
    logged = run("log", "m", "--repo", tmp_path / "r")
    refused = run("log", "no\x1b[31m", "--repo", tmp_path / "r")
    for text in (shown.out, logged.out, refused.err):
        assert all(line.isprintable() for line in text.split("\n"))
    assert "[bold]a\\x1b[31m\\u202eb\\n" in shown.out
    assert "one\\n\\x1b]0;two\\x07" in logged.out
    document = run("show", "m", "--repo", tmp_path / "r", "--json").document
    assert document["tensors"][0]["name"] == name


def test_ls_and_pull_mean_the_same_latest(
    tmp_path: Path, place: Path, models: tuple[Path, Path], run: Run
) -> None:
    assert run("push", models[0], "m@2.0.0-rc.1", "--repo", place).code == 0
    assert run("ls", "--repo", place).out.split()[-3:] == ["m", "1.1.0", "3"]
    assert run("pull", "m", tmp_path / "out", "--repo", place, "--json").document["version"] == "1.1.0"
    assert run("push", models[0], "only@1.0.0-rc.1", "--repo", place).code == 0
    assert run("ls", "--repo", place).out.split()[-3:] == ["only", "1.0.0-rc.1", "1"]


@pytest.mark.parametrize("words", [["push", "{v1}", "m@1.0.0"], ["ls"]])
def test_a_repository_in_memory_is_refused(words: list[str], models: tuple[Path, Path], run: Run) -> None:
    done = run(*(word.format(v1=models[0]) for word in words), "--repo", "memory://x")
    assert done.code == 2
    assert "gone when this command ends" in done.err
    assert "hint:" in done.err


def test_pull_refuses_an_empty_destination(
    tmp_path: Path, place: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    done = run("pull", "m", "", "--repo", place)
    assert done.code == 2
    assert "destination is empty" in done.err
    assert not list((tmp_path / "here").iterdir())


def test_pull_names_the_damaged_object(tmp_path: Path, place: Path, run: Run) -> None:
    shards = [path for path in (place / "objects").rglob("*") if path.is_file()]
    victim = max(shards, key=lambda path: path.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    done = run("pull", "m@1.0.0", tmp_path / "out", "--repo", place)
    assert done.code == 5
    assert victim.name in done.err
    assert "textnlp-fast verify" in done.err


def test_a_bad_manifest_stops_neither_log_nor_push(place: Path, models: tuple[Path, Path], run: Run) -> None:
    manifest = place / "models" / "m" / "versions" / "1.1.0.json"
    manifest.write_bytes(manifest.read_bytes()[:-9])
    logged = run("log", "m", "--repo", place)
    assert logged.code == 5
    assert "1.0.0" in logged.out
    assert "1.1.0 cannot be read" in logged.err
    assert [row["version"] for row in json.loads(run("log", "m", "--repo", place, "--json").out)] == ["1.0.0"]
    pushed = run("push", models[1], "m@1.2.0", "--repo", place)
    assert pushed.code == 0
    assert "passed over 1.1.0" in pushed.out
    assert "against m@1.0.0" in pushed.out
