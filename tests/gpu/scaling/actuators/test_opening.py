"""Actuators by name."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.scaling.actuators.opening import KINDS, open_actuator, parse_target


@pytest.mark.parametrize(
    ("target", "path", "options"),
    [
        ("aws-asg:llm?region=eu-west-1", {"name": "llm"}, {"region": "eu-west-1"}),
        ("aws-asg:a%2Fb%20c?region=x&drain_s=60", None, None),
        ("gcp-mig:proj/us-central1-a/llm", {"project": "proj", "place": "us-central1-a", "name": "llm"}, {}),
        ("azure-vmss:s/g/n", {"subscription": "s", "resource_group": "g", "name": "n"}, {}),
        (
            "kubernetes:prod/deployment/llm?drain_s=60",
            {"namespace": "prod", "resource": "deployment", "name": "llm"},
            {"drain_s": 60.0},
        ),
        (
            "kubernetes:prod/leaderworkerset.x-k8s.io/v1/leaderworkersets/llm",
            {"namespace": "prod", "resource": "leaderworkerset.x-k8s.io/v1/leaderworkersets", "name": "llm"},
            {},
        ),
        (
            "aws-asg:llm?region=x&protect=false&retries=2",
            {"name": "llm"},
            {"region": "x", "protect": False, "retries": 2},
        ),
    ],
)
def test_parts(target: str, path: dict[str, str] | None, options: dict[str, object] | None) -> None:
    if path is None:
        with pytest.raises(InvalidInputError):
            parse_target(target)
        return
    parsed = parse_target(target)
    assert (parsed.path, parsed.options) == (path, options)


@pytest.mark.parametrize(
    "target",
    [
        "",
        "llm",
        "aws-asg",
        "aws-asg:",
        "aws-asg:?region=x",
        "asg:llm",
        "gcp-mig:a/b",
        "gcp-mig:a//b",
        "gcp-mig:a/b/c/d",
        "kubernetes:prod/llm",
        "aws-asg:llm?region",
        "aws-asg:llm?region=x&region=y",
        "aws-asg:llm?name=other",
        "aws-asg:llm?drain_s=soon",
        "aws-asg:llm?protect=1",
        "aws-asg:llm?__class__=x",
        "aws-asg:llm\n?region=x",
        None,
    ],
)
def test_what_names_none(target: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_target(target)


@pytest.mark.parametrize(
    "target", ["kubernetes:p/deployment/n?nonsense=1", "kubernetes:p/deployment/n?protect=true"]
)
def test_options_that_a_kind_does_not_have_are_named(target: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        open_actuator(target)
    assert target.partition("?")[2].partition("=")[0] in str(caught.value)


def test_an_option_that_is_missing_is_named() -> None:
    pytest.importorskip("boto3")
    with pytest.raises(InvalidInputError, match="region"):
        open_actuator("aws-asg:llm")


def test_options_of_the_call_win() -> None:
    opened = open_actuator("kubernetes:p/deployment/n?drain_s=5", drain_s=7.0)
    assert opened.kind == "kubernetes"
    assert opened._drain_s == 7.0  # type: ignore[attr-defined]


@given(st.text(max_size=60), st.sampled_from([*KINDS, ""]))
def test_any_text_is_a_target_or_refused(text: str, kind: str) -> None:
    try:
        parsed = parse_target(f"{kind}:{text}" if kind else text)
    except InvalidInputError:
        return
    assert all(parsed.path.values())


def test_no_sdk_is_imported_before_it_is_needed() -> None:
    code = (
        "import sys, textnlp_fast.gpu.scaling.actuators.opening as o; o.parse_target('aws-asg:x');"
        "sdks = ('boto3', 'google.cloud.compute_v1', 'azure.mgmt.compute', 'kubernetes');"
        "print([m for m in sdks if m in sys.modules])"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert said.stdout.strip() == "[]"
