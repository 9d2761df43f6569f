"""The files as they are served: with their policy, by their bytes, and nothing besides."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import httpx
import pytest

from service.dashboard.house import Served
from textnlp_fast.cli.program import group
from textnlp_fast.service import dashboard

STATIC = Path(dashboard.__file__).with_name("static")
FILES = sorted(path.relative_to(STATIC).as_posix() for path in STATIC.rglob("*") if path.is_file())


def test_the_page_is_at_the_root_under_a_strict_policy(served: Served) -> None:
    answer = httpx.get(served.base + "/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert not any("unsafe" in value or "data:" in value or "*" in value for value in policy.values())
    # Nothing inline, that the policy would have to let in.
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", answer.text)


@pytest.mark.parametrize("path", FILES)
def test_every_file_is_served_whole_with_its_type(served: Served, path: str) -> None:
    answer = httpx.get(f"{served.base}/dashboard/{path}")
    assert answer.content == (STATIC / path).read_bytes()
    kinds = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml", "html": "text/html"}
    assert answer.headers["content-type"].startswith(kinds[path.rpartition(".")[2]])
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_file_that_is_known_is_not_sent_again(served: Served) -> None:
    first = httpx.get(served.base + "/dashboard/main.js")
    again = httpx.get(served.base + "/dashboard/main.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["content-security-policy"] == first.headers["content-security-policy"]


def test_it_is_compressed_for_those_who_ask(served: Served) -> None:
    def sent(encoding: str) -> int:
        with httpx.stream(
            "GET", served.base + "/dashboard/styles/parts.css", headers={"Accept-Encoding": encoding}
        ) as answer:
            return len(b"".join(answer.iter_raw()))

    assert sent("gzip") < sent("identity") / 2


@pytest.mark.parametrize(
    "path",
    [
        "nothing.js",
        "../serving.py",
        "%2e%2e/serving.py",
        "..%2fserving.py",
        "/etc/passwd",
        "core",
        "main.js/",
    ],
)
def test_nothing_else_can_be_asked_for(served: Served, path: str) -> None:
    with httpx.Client() as client:
        # As it stands: a client that tidies the path up would ask for something else.
        request = client.build_request("GET", served.base)
        request.url = request.url.copy_with(raw_path=b"/dashboard/" + path.encode())
        answer = client.send(request)
    assert answer.status_code == 404
    assert "serving" not in answer.text and "root:" not in answer.text


def test_sources_make_no_markup_of_text_and_ask_nobody_else() -> None:
    forbidden = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|createContextualFragment"
        r"|setHTML|srcdoc|DOMParser"
    )
    for path in FILES:
        text = (STATIC / path).read_text()
        assert not forbidden.search(text), path
        hosts = set(re.findall(r"https?://[\w.-]+", text))
        assert hosts <= {"http://www.w3.org"}, (path, hosts)
        assert "@import" not in text and "url(" not in text, path


def test_the_browser_is_told_of_every_module_at_once() -> None:
    """And not of one after the other, as they import each other."""
    told = re.findall(
        r'(?:modulepreload" href|module" src)="dashboard/([^"]+)"', (STATIC / "index.html").read_text()
    )
    assert sorted(told) == [path for path in FILES if path.endswith(".js") and path != "theme_first.js"]


def test_every_import_leads_to_a_file() -> None:
    for path in FILES:
        if not path.endswith(".js"):
            continue
        for target in re.findall(r"""(?:from|import\()\s*"(\.[^"]+)\"""", (STATIC / path).read_text()):
            assert ((STATIC / path).parent / target).resolve().is_file(), (path, target)


def test_every_command_that_pages_name_is_one_with_these_options() -> None:
    named = set()
    for path in FILES:
        if path.endswith(".js"):
            # To the end of the string that it stands in, without what is filled in there.
            named |= set(re.findall(r"textnlp-fast ([a-z][^\"`$]*)", (STATIC / path).read_text()))
    assert len(named) > 10
    for words in named:
        command: Any = group
        context = click.Context(group)
        arguments = words.split()
        while arguments and isinstance(command, click.Group):
            found = command.get_command(context, arguments.pop(0))
            assert found is not None, words
            command = found
        known = {option for each in command.params for option in each.opts}
        assert {each for each in arguments if each.startswith("--")} <= known, words
