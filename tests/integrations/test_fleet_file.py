"""The file of fleets: what it gives, and which fleet a mistake is in."""

from __future__ import annotations

from pathlib import Path

import pytest

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.integrations.fleet_file import read_fleets

ONE = "{namespace: prod, labels: {fleet: a}, settings: {metricsUrl: 'http://p', metricName: m}}"


def test_fleets_with_numbers_as_yaml_writes_them(tmp_path: Path) -> None:
    file = tmp_path / "fleets.yaml"
    file.write_text(
        f"fleets:\n- {ONE}\n- namespace: prod\n  settings:\n    metricsUrl: http://p\n    maxInstances: 20\n"
        "    sloAttainment: 0.99\n"
    )
    first, second = read_fleets(file)
    assert (first.namespace, first.labels, first.settings.metric_name) == ("prod", {"fleet": "a"}, "m")
    assert (second.labels, second.settings.policy.max_instances) == ({}, 20)
    assert second.settings.policy.slo_attainment == 0.99


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "list of fleets"),
        ("fleets: []", "list of fleets"),
        ("fleets: [1]", "fleet 1: needs namespace"),
        (f"fleets: [{ONE}, {ONE}]", "fleet 2: another fleet has the same"),
        (f"fleets: [{ONE}]\nmore: 1", "nothing else"),
        (
            "fleets: [{namespace: a, settings: {metricsUrl: 'http://p', periodS: x}}]",
            "fleet 1: periodS: must be",
        ),
        ("fleets: [{namespace: a, settings: {}, label: {}}]", "may have labels"),
        ("fleets: [{namespace: a, settings: {}, labels: {a: 1}}]", "labels are texts"),
        ("fleets: [{namespace: 1, settings: {}}]", "namespace and labels are texts"),
        ("{", "cannot be read"),
        ("!!python/object/apply:os.system [id]", "cannot be read"),
        ("\x00", "cannot be read"),
    ],
)
def test_mistakes_are_told_with_the_fleet(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "fleets.yaml"
    file.write_text(text)
    with pytest.raises(InvalidInputError, match=says):
        read_fleets(file)
