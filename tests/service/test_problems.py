"""Errors as problems: each kind has a status, and none says where things lie on the server."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textnlp_fast import errors
from textnlp_fast.service.problems import problem_of, status_of

Serving = Any
KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, errors.TextnlpFastError)
]


def made(kind: type[errors.TextnlpFastError], text: str = "what") -> errors.TextnlpFastError:
    more = {
        errors.QueryError: {"position": 1},
        errors.PromiseBrokenError: {"tensor": "w", "bound": "max_ulp"},
    }.get(kind, {})
    return kind(text, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_is_a_problem(kind: type[errors.TextnlpFastError]) -> None:
    problem = problem_of(made(kind))
    assert 400 <= problem.status < 600
    assert problem.code == kind.__name__.removesuffix("Error")
    assert problem.type.startswith("urn:textnlp-fast:problem:") and " " not in problem.type
    # What the caller can mend is 4xx; what only an operator can, is not.
    if kind.__module__ == errors.__name__ and issubclass(kind, errors.InvalidInputError):
        assert problem.status < 500 or kind is errors.RepositoryNotFoundError
    if issubclass(kind, errors.AuthenticationError):
        assert problem.status == 502  # it is the service that was refused, not who asks


def test_a_kind_that_nobody_listed_has_its_parent_s_status() -> None:
    class NewError(errors.ConflictError):
        pass

    assert status_of(NewError("x")) == 409
    assert status_of(errors.InternalError("x")) == 500


@pytest.mark.parametrize(
    "text",
    [
        "cannot read /srv/models/secret/x.json: no such file",
        "there is no model 'x' in file:///srv/models/secret",
        "'/srv/models/secret'",
        "(/srv/models/secret) and ~/secret/key",
        "/secret",
        "s3://bucket/prefix is gone",
    ],
)
def test_places_are_not_told(text: str) -> None:
    problem = problem_of(
        errors.InvalidInputError(text, hint=text), hide=("/srv/models/secret", "s3://bucket/prefix")
    )
    for said in (problem.detail, problem.hint):
        assert "secret" not in said and "bucket" not in said, said


@pytest.mark.parametrize(
    "text",
    [
        "org/tiny has no version 9.9.9",
        "use letters, digits and '/', as org/model",
        "Write models:/x/1.0.0 or name = org/*",
        "it has 3/4 of them; and/or",
        "eu/serving-1 of org/tiny serves 1.0.0",
        "https://idp.example/keys: timeout",
    ],
)
def test_names_are_left_as_they_are(text: str) -> None:
    assert problem_of(errors.InvalidInputError(text)).detail == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("/srv/demo is gone", "the repository is gone"),
        ("gone: /srv/demo.", "gone: the repository."),
        ("'/srv/demo/x'", "'the repository/x'"),
        ("file:///srv/demo/x", "the repository/x"),
        ("/srv/demo-models/nothere", "(a path)"),
        ("/srv/demo_2/x and /srv/demo.old", "(a path) and (a path)"),
        ("/other/srv/demo/x", "(a path)"),
        ("file:///srv/demo-models/x", "(a path)"),
        ("build/demo/x", "the repository/x"),
        ("rebuild/demo/x and build/demos", "rebuild/demo/x and build/demos"),
    ],
)
def test_the_repository_is_a_folder_and_no_beginning_of_one(text: str, said: str) -> None:
    problem = problem_of(errors.InvalidInputError(text), hide=("/srv/demo", "build/demo"))
    assert problem.detail == said


@pytest.mark.parametrize(
    ("typed", "text", "said"),
    [
        ("/data/x", "'/data/x' is not below /srv/roots/a", "'/data/x' is not below (a path)"),
        ("/data/my models/x", "/data/my models/x does not exist", "/data/my models/x does not exist"),
        ("/data/it's \\", f"{'/data/it' + chr(39) + 's ' + chr(92)!r} is no path", None),
        ("/" + "x" * 300, f"{'/' + 'x' * 300!r:.200} is no path", None),
        (
            "/srv/demo",
            "'/srv/demo' is not below",
            "'/srv/demo' is not below",
        ),  # whoever guesses learns nothing
        ("/data", "/data/real/place is gone", "(a path) is gone"),
        ("/data/x", "/data/x-real and /mnt/data/x", "(a path) and (a path)"),
        ("srv", "/srv/demo and /srv/other", "the repository and (a path)"),
    ],
)
def test_what_the_caller_wrote_is_said_as_he_wrote_it(typed: str, text: str, said: str | None) -> None:
    problem = problem_of(errors.NotAllowedError(text, hint=text), hide=("/srv/demo",), typed=(typed,))
    assert problem.detail == problem.hint == (text if said is None else said)


@given(st.text(max_size=200), st.lists(st.text(max_size=20), max_size=3))
def test_what_was_typed_uncovers_nothing_else(text: str, typed: list[str]) -> None:
    told = problem_of(
        errors.InvalidInputError(f"{text} /srv/demo/key {text}"), hide=("/srv/demo",), typed=tuple(typed)
    )
    assert "/srv/demo" not in told.detail


@given(st.text(max_size=200))
def test_any_text_makes_a_problem(text: str) -> None:
    problem_of(errors.InvalidInputError(text, hint=text), hide=("/a/b",)).model_dump_json()


async def test_a_mistake_of_ours_says_nothing_but_its_number(
    filled: Path, serving: Serving, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_arguments: object) -> None:
        raise KeyError("/srv/secret")

    monkeypatch.setattr("textnlp_fast.service.routes.models.model_row", broken)
    async with serving(filled) as client:
        answer = await client.get("/api/v1/models")
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (500, "Internal")
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "secret" not in answer.text and "KeyError" not in answer.text
        incident = problem["detail"].rsplit(" ", 1)[1]
        assert incident in caplog.text and "/srv/secret" in caplog.text


@pytest.mark.parametrize("body", [b'{"version": ', b"[" * 100_000, b'{"version": "\xff"}'])
async def test_who_sends_no_json_hears_where_it_is_described(
    filled: Path, serving: Serving, body: bytes
) -> None:
    async with serving(filled) as client:
        answer = await client.put(
            "/api/v1/models/org/tiny/aliases/champion",
            content=body,
            headers={"Content-Type": "application/json"},
        )
        assert answer.status_code == 400
        assert answer.json()["hint"] == "/openapi.json says what each request takes."


async def test_no_answer_tells_where_the_repository_is(filled: Path, serving: Serving) -> None:
    async with serving(filled) as client:
        for path in (
            "/readyz",
            "/metrics",
            "/openapi.json",
            "/api/v1/models/nobody/versions",
            "/api/v1/models/org/tiny/versions/9.9.9",
            "/api/v1/models/org/tiny/diff?from=nobody&to=1.0.0",
            "/api/v1/models/org%2F..%2Ftiny/versions",
        ):
            answer = await client.get(path)
            assert str(filled) not in answer.text and "/tmp" not in answer.text, path


async def test_while_the_repository_is_away_the_service_says_so(
    own: Any, serving: Serving, tmp_path: Path
) -> None:
    import shutil  # noqa: PLC0415

    async with serving(own.url, fresh_s=0, stale_s=0) as client:
        assert (await client.get("/readyz")).status_code == 200
    shutil.rmtree(tmp_path / "repository")
    (tmp_path / "repository").mkdir()
    async with serving(own.url) as client:
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()["ready"]) == (503, False)
        answer = await client.get("/api/v1/models")
        assert answer.status_code == 503 and int(answer.headers["Retry-After"]) > 0
        assert str(tmp_path) not in answer.text
        assert (await client.get("/healthz")).status_code == 200
