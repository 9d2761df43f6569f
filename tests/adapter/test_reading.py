"""A description: what is read is what was written, and what is wrong is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from textnlp_fast.adapter import (
    Deployment,
    Engine,
    Model,
    Rollout,
    SecretRef,
    document_of,
    parse_deployment,
    read_deployment,
)
from textnlp_fast.adapter.reading import canonical_json
from textnlp_fast.adapter.rollout_settings import HealthCheck
from textnlp_fast.adapter.words import shown
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.scaling.policy import ReplicaCapacity, ScalingPolicy, ScheduledFloor

SMALL: dict[str, Any] = {"name": "chat", "model": {"reference": "llama@champion", "repository": "s3://b/m"}}


def _with(path: str, value: object) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(json.dumps(SMALL))
    *parents, last = path.split(".")
    place = document
    for name in parents:
        place = place.setdefault(name, {})
    place[last] = value
    return document


def test_the_smallest_is_all_defaults() -> None:
    read = parse_deployment(yaml.safe_dump(SMALL))
    assert read == Deployment(name="chat", model=Model(reference="llama@champion", repository="s3://b/m"))
    assert document_of(read) == SMALL
    assert read.served_name == "chat" and read.model.name == "llama"


def test_a_full_one() -> None:
    text = """
    name: chat
    model: {reference: "org/llama@stage:production", repository: /srv/models}
    engine:
      kind: openai
      command: [serve, "{model_dir}"]
      environment: {A: "1"}
      secrets: {HF_TOKEN: {name: hf, key: token}}
    workload: {requests_per_s: 20, prompt_tokens: 500}
    machines: {gpu: L4, gpus: 2}
    policy:
      min_instances: 2
      max_instances: 4
      capacity: {concurrency: 16}
      schedule: [{instances: 3, begin_hour: 8, end_hour: 20, weekdays: [0, 1]}]
    budget: {usd_per_hour: 40}
    rollout: {strategy: canary, steps: [10, 100], max_surge: 25%, health: {path: /healthz}}
    """
    read = parse_deployment(text)
    assert read.engine.secrets == {"HF_TOKEN": SecretRef(name="hf", key="token")}
    assert read.machines.gpu == "nvidia-l4"
    assert read.policy == ScalingPolicy(
        min_instances=2,
        max_instances=4,
        capacity=ReplicaCapacity(concurrency=16),
        schedule=(ScheduledFloor(instances=3, begin_hour=8, end_hour=20, weekdays=(0, 1)),),
    )
    assert read.rollout.surge_of(3) == 1 and read.rollout.surge_of(5) == 2
    assert read.rollout.health.path == "/healthz"
    assert parse_deployment(json.dumps(document_of(read))) == read


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("name", "Chat", "name"),
        ("name", "x" * 41, "name"),
        ("name", "a\n", "name"),
        ("nmae", "x", "nmae: there is no such setting"),
        ("model.reference", "llama@@", "model.reference"),
        ("model.repository", "https://me:secret@host/x", "model.repository: must not hold a user name"),
        ("model.repository", "s3://b\nevil: 1", "model.repository"),
        ("engine.kind", "tgi", "engine.kind: must be one of vllm, sglang, openai"),
        ("engine.kind", "openai", "engine.command: is missing"),
        ("engine.port", 0, "engine.port"),
        ("engine.port", "8000", "engine.port: must be a whole number"),
        ("engine.port", True, "engine.port"),
        ("engine.image", "a image", "engine.image"),
        ("engine.command", "vllm serve", "engine.command: must be a list"),
        ("engine.arguments", ["a", 1], r"engine.arguments\[1\]: must be a text"),
        ("engine.arguments", ["a\x00b"], "engine.arguments"),
        ("engine.environment", {"A-B": "1"}, "engine.environment"),
        ("engine.environment", {"PORT": 1}, "engine.environment.PORT: must be a text"),
        ("engine.environment", {"HF_TOKEN": "hf_abc"}, "HF_TOKEN: looks like a secret"),
        ("engine.environment", {"OPENAI_API_KEY": "sk"}, "OPENAI_API_KEY: looks like a secret"),
        ("engine.environment", {"AWS_SECRET_ACCESS_KEY": "x"}, "looks like a secret"),
        ("engine.secrets", {"HF": {"name": "../x", "key": "k"}}, "engine.secrets.HF"),
        ("engine.secrets", {"HF": {"name": "x"}}, "engine.secrets.HF.key: is missing"),
        ("workload", {"requests_per_s": 0}, "workload.requests_per_s"),
        ("workload", {"requests_per_s": float("nan")}, "workload.requests_per_s"),
        ("workload", {}, "workload.requests_per_s: is missing"),
        ("slo.ttft_s", float("inf"), "slo.ttft_s"),
        ("machines.gpu", "L5", "machines"),
        ("machines.instance_type", "$(rm -rf /)", "machines.instance_type"),
        ("policy.min_instances", 20, "policy: min_instances 20 is more"),
        ("policy.min_instances", 0, "policy.min_instances: is 0, and nobody"),
        ("policy.capacity.concurrency", -1, "policy.capacity: concurrency"),
        ("cache.path", "/var/../etc", "cache.path"),
        ("cache.path", "models", "cache.path"),
        ("cache.peers", ["http://x:1,$(id)"], "cache.peers"),
        ("autoscaling.by", "external", "autoscaling.metrics_url: is missing"),
        ("autoscaling.metrics_url", "file:///etc/passwd", "autoscaling.metrics_url"),
        ("autoscaling.metrics_url", "http://h/\x00x", "autoscaling.metrics_url: has a character"),
        ("autoscaling.metrics_url", "http://h/\x1b[2J", "autoscaling.metrics_url: has a character"),
        ("autoscaling.metrics_url", "http://h/\u202a\x7f", "autoscaling.metrics_url: has a character"),
        ("rollout.steps", [10, 5, 100], "rollout.steps: must rise"),
        ("rollout.steps", [10, 50], "rollout.steps: must rise"),
        ("rollout.max_surge", 0, "rollout.max_surge: and max_unavailable are both 0"),
        ("rollout.max_surge", "200%", "rollout.max_surge"),
        ("rollout.max_surge", 1.5, "rollout.max_surge"),
        ("rollout.health.path", "health", "rollout.health.path"),
        ("rollout.health.path", "/x y", "rollout.health.path"),
        ("gateway.listen", "8080", "gateway.listen"),
        ("gateway.replicas", ["a:1", "a:1"], "gateway.replicas: names a replica twice"),
        ("labels", {"a b": "c"}, "labels"),
        ("labels", {"a": "b\nc"}, "labels.a"),
        ("placement.namespace", "Kube", "placement.namespace"),
    ],
)
def test_what_is_wrong_is_named(path: str, value: object, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        parse_deployment(yaml.safe_dump(_with(path, value)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "name: a\nname: b\n",
        "model: {reference: a, reference: b}",
        "1: 2",
        "a: &a [x]\nb: *a\n",
        "a: &a [*a]",
        "!!python/object/apply:os.system ['true']",
        "name: \x07",
        "[" * 5000,
        "x: " + "9" * 5000,
        '{"name": "a", "model": {"reference": "b"',
        "<<: {name: a}",
        "? [a]\n: b",
    ],
)
def test_hostile_documents_are_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_deployment(text)


@pytest.mark.parametrize(
    "number", ["0x" + "f" * 6000, "0b" + "1" * 40_000, "0x" + "f" * 40, "1:" * 900 + "1.5"]
)
@pytest.mark.parametrize(
    "setting",
    [
        "policy: {min_instances: NUMBER}",
        "workload: {requests_per_s: NUMBER}",
        "engine: {port: NUMBER}",
        "engine: {image: NUMBER}",
        "rollout: {max_surge: NUMBER}",
        "labels: {NUMBER: a}",
        "gateway: NUMBER",
    ],
)
def test_numbers_that_nobody_can_print_are_refused(setting: str, number: str) -> None:
    text = f"name: chat\nmodel: {{reference: llama, repository: /r}}\n{setting.replace('NUMBER', number)}\n"
    with pytest.raises(InvalidInputError) as refused:
        parse_deployment(text)
    assert "\n" not in str(refused.value.args[0]) and len(str(refused.value.args[0])) < 400


@pytest.mark.parametrize(
    "value",
    [1 << 40_000, -(1 << 40_000), [[[[[1 << 40_000]]]]], {"a": b"x" * 10**6}],
    ids=["large", "small", "deep", "bytes"],  # pytest cannot print them, either
)
def test_values_of_programs_are_shown_in_short(value: object) -> None:
    made: Any = value
    for make in (
        lambda: HealthCheck(interval_s=made),
        lambda: Rollout(bake_s=made),
        lambda: Engine(port=made),
        lambda: Deployment(name=made, model=Model(reference="llama", repository="/r")),
    ):
        with pytest.raises(InvalidInputError) as refused:
            make()
        assert len(str(refused.value.args[0])) < 300
    assert len(shown(value)) <= 80


def test_only_the_beginning_of_a_value_is_looked_at() -> None:
    class Loud:
        def __repr__(self) -> str:
            raise AssertionError("looked at")

    assert shown([1] * 10 + [Loud()] * 5).startswith("[1, 1")
    assert len(shown({f"k{number}" * 50: ["x" * 500] * 50 for number in range(50)})) <= 80


def test_bytes_that_are_no_text_and_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError):
        parse_deployment(b"\xff\xfe\x00")
    with pytest.raises(InvalidInputError, match="at most"):
        parse_deployment(b"#" * (1 << 21))
    with pytest.raises(InvalidInputError, match="cannot be read"):
        read_deployment(tmp_path / "none.yaml")
    file = tmp_path / "chat.yaml"
    file.write_text("name: 5\n")
    with pytest.raises(InvalidInputError, match=r"chat\.yaml: "):
        read_deployment(file)


def _changes(document: dict[str, Any]) -> list[Callable[[object], dict[str, Any]]]:
    def at(path: list[str]) -> Callable[[object], dict[str, Any]]:
        def change(value: object) -> dict[str, Any]:
            copy = json.loads(json.dumps(document))
            place = copy
            for name in path[:-1]:
                place = place[name]
            place[path[-1]] = value
            return dict(copy)

        return change

    found = []
    for name, value in document.items():
        found.append(at([name]))
        if isinstance(value, dict):
            found += [at([name, inner]) for inner in value]
    return found


_WEIRD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60)
@given(data=st.data())
def test_any_value_anywhere_is_read_or_refused(data: st.DataObject) -> None:
    full = {
        **SMALL,
        "engine": {"port": 8000, "environment": {}, "arguments": []},
        "workload": {"requests_per_s": 1},
        "rollout": {"steps": [100], "bake_s": 1},
        "policy": {"min_instances": 1},
        "machines": {"cpus": 1},
        "gateway": {"replicas": []},
        "cache": {"path": "/x"},
        "placement": {"node_labels": {}},
    }
    change = data.draw(st.sampled_from(_changes(full)))
    document = change(data.draw(_WEIRD))
    try:
        read = parse_deployment(json.dumps(document))
    except InvalidInputError:
        return
    again = parse_deployment(yaml.safe_dump(document_of(read), allow_unicode=True))
    assert again == read and canonical_json(again) == canonical_json(read)


_TEXT = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\u2028\u2029\ufeff\ufffe\uffff"),
    min_size=1,
    max_size=30,
).filter(str.strip)


@settings(max_examples=60)
@given(
    words=st.lists(_TEXT | st.just("a\nb: [{"), max_size=4),
    surge=st.integers(1, 9),
    bake=st.floats(0, 1e5),
)
def test_texts_come_back_as_they_are(words: list[str], surge: int, bake: float) -> None:
    made = Deployment(
        name="chat",
        model=Model(reference="llama", repository="/srv/" + (words[0] if words else "x").replace("\n", "")),
        engine=Engine(arguments=tuple(words), environment={"TEXT": "\n".join(words)}),
        rollout=Rollout(max_surge=surge, bake_s=bake),
    )
    for text in (json.dumps(document_of(made)), yaml.safe_dump(document_of(made))):
        assert parse_deployment(text) == made


def test_a_replaced_description_is_checked() -> None:
    good = parse_deployment(json.dumps(SMALL))
    with pytest.raises(InvalidInputError, match="name"):
        replace(good, name="UPPER")
