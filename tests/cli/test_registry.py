"""The registry's verbs, as a person uses them and as a script does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.conftest import Run


@pytest.fixture
def repo(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with m@1.0.0 and m@1.1.0, worked on by alice."""
    monkeypatch.setenv("TEXTNLP_FAST_ACTOR", "alice")
    return place


def test_a_version_goes_through_its_life(repo: Path, run: Run) -> None:
    def say(*words: object) -> str:
        done = run(*words, "--repo", repo)
        assert done.code == 0, done.err
        return done.out

    assert say("stage", "m@1.0.0", "staging") == "1.0.0 moved from draft to staging\n"
    assert say("stage", "m@1.0.0", "staging") == "nothing to do: it is so already\n"
    assert "(passed)" in say("stage", "m@1.0.0", "Production", "--note", "passed")
    assert say("alias", "set", "m@latest", "champion") == "alias champion is 1.1.0\n"
    assert "eval=0.7" in say("tag", "m@champion", "eval=0.7")
    assert say("tag", "m@1.1.0").split() == ["tag", "value", "eval", "0.7"]
    assert say("pin", "m@1.0.0", "--reason", "paper") == "1.0.0 pinned (paper)\n"
    assert "eu serves m@1.0.0" in say("deployments", "record", "models:/m/production", "eu")
    assert "1.0.0 before" in say("deployments", "record", "m@champion", "eu", "--state", "healthy")
    assert "eu serves m@1.0.0" in say("deployments", "rollback", "m", "eu")
    assert "eu rolled back to 1.0.0, was 1.1.0" in say("deployments", "history", "m", "eu")
    assert "eu" in say("deployments", "list")
    log = say("log", "m")
    assert "production" in log
    assert "champion" in log
    assert "eu=1.0.0" in say("ls")
    shown = say("show", "m@champion")
    assert "aliases   champion" in shown
    assert "tags      eval=0.7" in shown
    assert "pinned    paper" in say("show", "m@stage:production")
    assert "1.1.0" in say("search", "alias = champion and tag.eval = 0.7")
    assert "alice" in say("log", "m", "--changes")
    assert "removed, was 1.1.0" in say("alias", "delete", "m", "champion")
    assert "pin" in say("pin", "m@1.0.0", "--off")
    assert "serves nothing any more" in say("deployments", "end", "m", "eu")


def test_scripts_get_json(repo: Path, run: Run) -> None:
    def ask(*words: object) -> object:
        done = run(*words, "--repo", repo, "--json")
        assert done.code == 0, done.err
        return done.document

    (moved,) = ask("stage", "m@1.0.0", "staging")  # type: ignore[misc]
    assert (moved["action"], moved["by"], moved["number"]) == ("stage", "alice", 1)
    assert ask("stage", "m") == {"1.1.0": "draft", "1.0.0": "staging"}
    ask("alias", "set", "m@1.0.0", "champion", "--protect")
    assert ask("alias", "list", "m") == [{"alias": "champion", "version": "1.0.0", "protected": True}]
    ask("tag", "m", "team=nlp")
    assert ask("tag", "m") == {"team": "nlp"}
    deployed = ask("deployments", "record", "m@champion", "eu")
    assert deployed["version"] == "1.0.0"  # type: ignore[index]
    assert ask("deployments", "list", "m") == [deployed]
    (found,) = ask("search", "stage = staging")  # type: ignore[misc]
    assert (found["name"], found["aliases"], found["targets"]) == ("m", ["champion"], ["eu"])
    (row, *_) = [row for row in ask("log", "m") if row["version"] == "1.0.0"]  # type: ignore[attr-defined]
    assert (row["stage"], row["aliases"], row["targets"]) == ("staging", ["champion"], ["eu"])
    assert len(ask("log", "m", "--changes")) == 4  # type: ignore[arg-type]
    assert ask("show", "m@champion")["stage"] == "staging"  # type: ignore[index]
    (itself,) = ask("lineage", "m@1.0.0")  # type: ignore[misc]
    assert itself["version"] == "1.0.0"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["stage", "m@1.0.0", "production"], 2, "From draft it may move to: staging, archived."),
        (["stage", "m", "staging"], 2, "names no version"),
        (["stage", "m@9.0.0", "staging"], 3, "It has: 1.0.0, 1.1.0."),
        (["alias", "set", "m@1.0.0", "1.0"], 2, "not an alias"),
        (["alias", "delete", "m", "champion"], 3, "no alias"),
        (["alias", "set", "m@1.0.0", "live", "--expect", "1.1.0"], 7, "does not exist"),
        (["tag", "m", "a"], 2, "tag 'a' is not KEY=VALUE"),
        (["tag", "m", "a=1", "a=2"], 2, "gives 'a' twice"),
        (["search", "stage = "], 2, "character 9"),
        (["deployments", "rollback", "m", "eu"], 3, "is not deployed to 'eu'"),
        (["lineage", "n"], 3, "no model 'n'"),
        (["card", "m"], 2, "without a README.md"),
        (["pull", "m@champion", "out"], 3, "no alias 'champion'"),
        (["push", ".", "m@champion"], 2, "names no version"),
    ],
)
def test_mistakes_say_what_to_do(repo: Path, run: Run, words: list[str], code: int, says: str) -> None:
    done = run(*words, "--repo", repo)
    assert done.code == code, done
    assert says in done.err


def test_rules_are_shown_as_they_are_set(
    repo: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = run("rules", "show", "--repo", repo, "--json").document
    shown["roles"] = {"release": ["carol"]}
    shown["administer"] = "release"
    shown["protected_aliases"] = "release"
    shown["webhooks"] = {
        "ci": {"url": "http://127.0.0.1:1/", "secret_env": "NO_SUCH_KEY", "events": ["alias.*"]}
    }
    path = tmp_path / "rules.json"
    path.write_text(json.dumps(shown))
    assert "revision 1" in run("rules", "set", path, "--repo", repo).out
    assert run("rules", "show", "--repo", repo, "--json").document == shown
    text = run("rules", "show", "--repo", repo).out
    assert "role release: carol" in text
    assert "these rules are changed by: release" in text
    nothing = tmp_path / "none.json"
    nothing.write_text("{}")
    taken = run("rules", "set", nothing, "--repo", repo)
    assert (taken.code, "Ask carol" in taken.err) == (9, True)
    history = run("rules", "show", "--history", "--repo", repo)
    assert "failed" in history.out.splitlines()[0]
    assert "  role release: none -> carol" in history.out.splitlines()
    told = run("rules", "show", "--history", "--json", "--repo", repo).document
    assert [each["outcome"] for each in told] == ["failed", "done"]
    assert "role release: carol -> none" in told[0]["changes"]
    assert "NO_SUCH_KEY" in text
    refused = run("alias", "set", "m@1.0.0", "live", "--protect", "--repo", repo)
    assert (refused.code, "Ask one of: carol." in refused.err) == (9, True)
    monkeypatch.setenv("TEXTNLP_FAST_ACTOR", "carol")
    done = run("alias", "set", "m@1.0.0", "live", "--protect", "--repo", repo)
    assert done.code == 0
    assert "webhook ci was not told of this" in done.err
    assert (
        run("rules", "redeliver", "--dry-run", "--repo", repo, "--json").document[0]["action"] == "alias.set"
    )
    assert run("rules", "redeliver", "--repo", repo).code == 8
    path.write_text("{")
    assert run("rules", "set", path, "--repo", repo).code == 2


def test_a_card_and_a_lineage_are_shown(repo: Path, run: Run, models: tuple[Path, Path]) -> None:
    (models[1] / "README.md").write_text("---\nlicense: mit\nlanguage: [en, de]\n---\n# It\n")
    pushed = run(
        "push", models[1], "t@1.0.0", "--base-model", "m@latest", "--dataset", "sha256:" + "ab" * 32,
        "--run", "run/7", "--repo", repo,
    )  # fmt: skip
    assert pushed.code == 0, pushed.err
    card = run("card", "t", "--repo", repo).out
    assert "license              mit" in card
    assert "en, de" in card
    assert "# It" in card
    lines = run("lineage", "t", "--repo", repo).out.splitlines()
    assert lines[0].startswith("t@1.0.0  (data sha256:")
    assert lines[1] == "  base model m@1.1.0"
    assert lines[2] == "    parent m@1.0.0"


def test_references_that_cannot_be_read_do_not_hide_the_models(repo: Path, run: Run) -> None:
    run("tag", "m", "a=b", "--repo", repo)
    (repo / "models" / "m" / "refs.json").write_text("{}")
    for words in (["ls"], ["log", "m"], ["show", "m@1.0.0"], ["pull", "m@1.0.0", repo.parent / "out"]):
        done = run(*words, "--repo", repo)
        assert done.code == (0 if words[0] == "pull" else 5)
        assert "1.0.0" in done.out or "1.1.0" in done.out
    assert run("pull", "m@champion", repo.parent / "out", "--repo", repo).code == 5
