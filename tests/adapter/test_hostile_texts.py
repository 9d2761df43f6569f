"""Whatever a description says, it is data: readers of YAML, shells, systemd and the kubelet make nothing else of it."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from adapter.plans import HOSTILE, SMALL, documents, hostile_texts, kubernetes_expands, plan_of, with_engine
from textnlp_fast.adapter import Deployment, Engine, SecretRef, parse_deployment
from textnlp_fast.adapter.targets import TARGETS, compile_plan
from textnlp_fast.adapter.targets.yaml_text import yaml_text
from textnlp_fast.errors import InvalidInputError


def _hostile(words: list[str], value: str) -> Deployment:
    engine = Engine(
        kind="openai",
        image="example.com/x:1",
        command=("serve", *words),
        arguments=tuple(words),
        environment={"VALUE": value},
        secrets={"HF_TOKEN": SecretRef(name="hf", key="token")},
    )
    return with_engine(parse_deployment(SMALL), engine)


@settings(max_examples=40)
@given(words=st.lists(hostile_texts(), min_size=1, max_size=4), value=hostile_texts())
def test_kubernetes_runs_the_words_as_they_are(words: list[str], value: str) -> None:
    plan = plan_of(_hostile(words, value))
    for target in ("k8s", "kserve"):
        made = documents(plan, target)
        (pod,) = [
            one["spec"]["template"]["spec"] if one["kind"] == "Deployment" else one["spec"]["predictor"]
            for one in made
            if one["kind"] in ("Deployment", "InferenceService")
        ]
        (engine,) = pod["containers"]
        known = {"VAR": "expanded", "TEXTNLP_FAST_REPO": "expanded", "HOME": "expanded"}
        ran = [kubernetes_expands(word, known) for word in engine["command"]]
        assert ran == ["serve", *words, *words]
        held = {one["name"]: one.get("value") for one in engine["env"]}
        assert kubernetes_expands(held["VALUE"], known) == value
        assert held["HF_TOKEN"] is None and "args" not in engine


@settings(max_examples=25)
@given(words=st.lists(hostile_texts(), min_size=1, max_size=4), value=hostile_texts())
def test_a_shell_on_a_machine_runs_the_words_as_they_are(words: list[str], value: str) -> None:
    plan = plan_of(with_engine(parse_deployment(SMALL), Engine(
        kind="openai", command=("printf", "%s\\0", *words), environment={"VALUE": value}
    )))  # fmt: skip
    try:
        (made,) = documents(plan, "instances")
    except InvalidInputError as error:
        assert "machines take" in str(error)
        return
    files = {one["path"]: one for one in made["write_files"]}
    script = files["/usr/local/lib/textnlp-fast/chat/engine"]["content"]
    ran = subprocess.run(["/bin/sh", "-c", script], capture_output=True, timeout=60, check=True)
    assert ran.stdout.decode().split("\0")[:-1] == words
    variable = subprocess.run(
        ["/bin/sh", "-c", script.split("exec printf")[0] + "printf %s \"$VALUE\""],
        capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    assert variable.stdout.decode() == value
    assert not Path("/tmp/owned").exists()
    for path, one in files.items():
        if path.endswith(".service"):
            assert one["content"].count("[Service]") == 1 and "/bin/false" not in one["content"]


@settings(max_examples=25)
@given(words=st.lists(hostile_texts(), min_size=1, max_size=4), value=hostile_texts())
def test_skypilot_runs_the_words_as_they_are(words: list[str], value: str) -> None:
    (task,) = documents(plan_of(_hostile(words, value)), "skypilot")
    last = task["run"][task["run"].index("\nexec ") + 1 :]
    assert shlex.split(last)[1:] == ["serve", *words, *words]
    assert task["envs"]["VALUE"] == value and task["secrets"] == {"HF_TOKEN": None}


_KEYS = st.text("abcXYZ_.-/", min_size=1, max_size=8)
_DOCUMENTS = st.dictionaries(
    _KEYS,
    st.recursive(
        hostile_texts() | st.integers() | st.booleans() | st.none(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
        max_leaves=8,
    ),
    max_size=5,
)


@settings(max_examples=120)
@given(document=_DOCUMENTS)
def test_yaml_reads_back(document: dict[str, Any]) -> None:
    text = yaml_text(document, document)
    assert list(yaml.safe_load_all(text)) == [document, document]
    assert text.isascii()


def test_another_reader_of_yaml_agrees(tmp_path: Path) -> None:
    """kubectl's, which is Go's and knows other words and numbers than Python's."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("there is no kubectl")
    data = {f"key-{number}": text for number, text in enumerate(HOSTILE)}
    one = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": data}
    (tmp_path / "one.yaml").write_text(yaml_text(one))
    (tmp_path / "kustomization.yaml").write_text("resources: [one.yaml]\n")
    done = subprocess.run(
        [kubectl, "kustomize", str(tmp_path)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    # All plain words as texts: Python's reader takes `<<` and `=` for words of its own, which Go's does not.
    assert yaml.load(done.stdout, Loader=yaml.BaseLoader) == one


def test_no_secret_is_ever_inline() -> None:
    for target in TARGETS:
        if target == "ray":
            with pytest.raises(InvalidInputError, match="no place for secrets"):
                compile_plan(plan_of(with_engine(parse_deployment(SMALL), Engine(
                    secrets={"HF_TOKEN": SecretRef(name="hf", key="token")}
                ))), target)  # fmt: skip
            continue
        text = "".join(file.text for file in compile_plan(plan_of(_hostile(["x"], "y")), target))
        assert "HF_TOKEN" in text
        assert not re.search(r"HF_TOKEN[\"']?[:=]\s*[\"']?\w", text.replace("HF_TOKEN: null", ""))
