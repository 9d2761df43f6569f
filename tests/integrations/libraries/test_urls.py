"""The grammar of `textnlp://` URLs: what is read, what is refused, and that writing one reads back."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textnlp_fast.errors import InvalidInputError, RepositoryNotFoundError, TextnlpFastError, UnsafeFileError
from textnlp_fast.integrations.urls import (
    REPOSITORY_VARIABLE,
    ModelURL,
    is_model_url,
    open_repository,
    parse_model_url,
)
from textnlp_fast.storage import Repository


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("textnlp://m", ModelURL("m")),
        ("textnlp://org/m", ModelURL("org/m")),
        ("textnlp://org/m@1.2.0", ModelURL("org/m", "1.2.0")),
        ("textnlp://org/m@1.2.0-rc.1+cuda13", ModelURL("org/m", "1.2.0-rc.1+cuda13")),
        ("textnlp://m@champion", ModelURL("m", "champion")),
        ("textnlp://m@stage:Production", ModelURL("m", "stage:production")),
        ("textnlp://m@latest/config.json", ModelURL("m", None, "config.json")),
        ("textnlp://m@1.0.0/a/b c@2.json", ModelURL("m", "1.0.0", "a/b c@2.json")),
        ("textnlp://m@1.0.0/", ModelURL("m", "1.0.0")),
        ("textnlp://m?repo=s3://b/x?y=1", ModelURL("m", repository="s3://b/x?y=1")),
        ("textnlp://m@1.0.0/f%20g?repo=/data/a", ModelURL("m", "1.0.0", "f%20g", "/data/a")),
    ],
)
def test_what_urls_mean(url: str, meant: ModelURL) -> None:
    assert parse_model_url(url) == meant
    assert parse_model_url(str(meant)) == meant


@pytest.mark.parametrize(
    "url",
    [
        "",
        "textnlp:/m",
        "textnlp://",
        "TEXTNLP://m",
        "textnlp:///etc/passwd",
        "textnlp://m@",
        "textnlp://@1.0.0",
        "textnlp://m@1.0.0@2.0.0",
        "textnlp://m@1.0",
        "textnlp://m@none",
        "textnlp://m@1.0.0//x",
        "textnlp://m@1.0.0/../x",
        "textnlp://m@1.0.0/a/./b",
        "textnlp://m@1.0.0/a\\b",
        "textnlp://m@1.0.0/a\x00b",
        "textnlp://m\n",
        "textnlp://../m",
        "textnlp://versions",
        "textnlp://a/b/c/d/e",
        "textnlp://m?repo=",
        "textnlp://m?other=1",
        "textnlp://m#1.0.0",
        "textnlp://user:secret@host/m",
        "textnlp://m@1.0.0/" + "x/" * 5000 + "x",
        "textnlp://" + "\udcff",
    ],
)
def test_what_is_refused(url: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_model_url(url)


@pytest.mark.parametrize("url", ["textnlp://m@1.1.0?x=1", "textnlp://m?x=1", "textnlp://m@1.0.0?x=1/a.json"])
def test_only_a_repository_may_be_asked_for(url: str) -> None:
    with pytest.raises(InvalidInputError, match=r"'\?x=1") as refused:
        parse_model_url(url)
    assert "?repo=" in refused.value.hint


def test_a_path_into_git_is_refused_as_such() -> None:
    with pytest.raises(UnsafeFileError):
        parse_model_url("textnlp://m@1.0.0/.git/hooks/post-checkout")


@given(st.text(max_size=60))
@settings(max_examples=200)
def test_anything_is_read_or_refused(text: str) -> None:
    for url in (text, f"textnlp://{text}", f"textnlp://m@1.0.0/{text}", f"textnlp://m@{text}"):
        try:
            read = parse_model_url(url)
        except TextnlpFastError:
            continue
        assert parse_model_url(str(read)) == read


@pytest.mark.parametrize("value", [None, 3, b"textnlp://m", Path("textnlp://m"), "org/m", "s3://b/m"])
def test_other_things_are_no_urls(value: object) -> None:
    assert not is_model_url(value)


def test_who_names_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = (Repository.open(tmp_path / name, create=True) for name in ("one", "two"))
    monkeypatch.delenv(REPOSITORY_VARIABLE, raising=False)
    with pytest.raises(InvalidInputError, match="which repository"):
        open_repository(ModelURL("m"))
    monkeypatch.setenv(REPOSITORY_VARIABLE, str(tmp_path / "one"))
    assert open_repository(ModelURL("m")).id == one.id
    said = ModelURL("m", repository=str(tmp_path / "two"))
    assert open_repository(said).id == two.id
    assert open_repository(ModelURL("m"), two) is two
    with pytest.raises(InvalidInputError, match="another repository"):
        open_repository(said, tmp_path / "one")
    with pytest.raises(RepositoryNotFoundError):
        open_repository(ModelURL("m"), tmp_path / "none")


def test_what_is_published_has_a_version() -> None:
    assert parse_model_url("textnlp://m@1.0.0").exact == "1.0.0"
    for url in ("textnlp://m", "textnlp://m@champion", "textnlp://m@latest", "textnlp://m@stage:production"):
        with pytest.raises(InvalidInputError, match="which version to publish"):
            _ = parse_model_url(url).exact
