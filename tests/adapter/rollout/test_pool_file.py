"""The file that names replicas and their agents: what it may not hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from textnlp_fast.adapter.rollout.pool_file import read_pool
from textnlp_fast.errors import InvalidInputError

ROW = '{serves: "127.0.0.1:8001", agent: "http://127.0.0.1:9411"}'


def test_yaml_and_json(tmp_path: Path) -> None:
    file = tmp_path / "agents.yaml"
    file.write_text(f"replicas: [{ROW}]")
    made = read_pool(file)
    assert [(one.name, one.agent) for one in made[0]] == [("127.0.0.1:8001", "http://127.0.0.1:9411")]
    file.write_text('{"replicas": [{"serves": "127.0.0.1:8001", "agent": "http://127.0.0.1:9411"}]}')
    assert read_pool(file) == made


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"a: &a {ROW}\nreplicas: [*a]", "aliases"),
        (f"replicas: [{ROW}]\nreplicas: [{ROW}]", "given twice"),
        ('replicas: [{serves: "127.0.0.1:1", serves: "127.0.0.1:2", agent: "http://h:1"}]', "given twice"),
        ('{"replicas": [], "replicas": []}', "given twice"),
        ("#" * (1 << 21), "at most"),
        ("[" * 5000, "too deeply"),
        (f"replicas: [0x{'f' * 6000}]", "more than 64 digits"),
        (f"replicas: [{{serves: 1, {'x' * 500}: 1}}]", r"may have spare, not \{"),
        ("replicas: [" + "[" * 60 + "]" * 60 + "]", "may have spare"),
        ("\x00", "cannot be read"),
        ("", "no list of replicas"),
    ],
)
def test_hostile_files_are_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "agents.yaml"
    file.write_text(text)
    with pytest.raises(InvalidInputError, match=said) as refused:
        read_pool(file)
    assert str(file) in str(refused.value.args[0]) and len(str(refused.value.args[0])) < 500
