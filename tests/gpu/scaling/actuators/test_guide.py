"""The guide of actuators: its targets can be opened, its example runs, and the permissions are those that are used."""

from __future__ import annotations

import re
from pathlib import Path

from gpu.scaling.actuators.aws_harness import AsgHarness
from gpu.scaling.actuators.harness import Streams, settled
from textnlp_fast import errors
from textnlp_fast.gpu.scaling.actuators.opening import KINDS, parse_target

GUIDE = (Path(__file__).parents[4] / "docs" / "guide" / "gpu-actuators.md").read_text(encoding="utf-8")


def test_its_targets_are_all_that_there_are() -> None:
    targets = re.findall(r"^\| `([^`]+)`", GUIDE, re.MULTILINE)
    assert tuple(parse_target(one).kind for one in targets) == KINDS


def test_its_example_opens_a_fleet() -> None:
    block = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)[0]
    names: dict[str, object] = {}
    exec(compile(block, "gpu-actuators.md", "exec"), names)
    assert names["fleet"].kind == "kubernetes"  # type: ignore[attr-defined]


def test_its_errors_are_there() -> None:
    table = GUIDE.partition("## When it goes wrong")[2]
    for line in re.findall(r"^\| (\w+Error[^|]*)\|", table, re.MULTILINE):
        for name in re.findall(r"\w+Error", line):
            assert issubclass(getattr(errors, name), errors.TextnlpFastError)


def test_the_permissions_are_those_that_a_group_uses(aws_asg: AsgHarness) -> None:
    actuator = aws_asg.actuator(drain=Streams())
    settled(aws_asg, actuator, 5)
    settled(aws_asg, actuator, 1)
    (row,) = re.findall(r"^\| Auto Scaling group \|.*$", GUIDE, re.MULTILINE)
    allowed = set(re.findall(r"`(?:autoscaling|ec2):(\w+)`", row))
    assert {form["Action"] for form in aws_asg.proxy.calls} == allowed
