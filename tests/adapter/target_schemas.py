"""What the targets themselves say that they take: schemas and validators that `.ci/schemas` fetches into build/schemas.

- Kubernetes: its OpenAPI document as JSON schemas, strict (the wheel `kubernetes-validate`, Apache-2.0)
- KServe: the models of its Python SDK, made of its OpenAPI document (the wheel `kserve`, Apache-2.0)
- KEDA: validators made of its CRDs (npm, `@kubernetes-models/keda`, MIT), and the fields of its ScaledObject
- SkyPilot: `sky/utils/schemas.py` itself (the wheel `skypilot`, Apache-2.0)
- cloud-init: its schema of cloud-config (the Debian package, Apache-2.0 or GPL-3)
"""

from __future__ import annotations

import ast
import functools
import importlib
import json
import re
import shutil
import subprocess
import sys
import types
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from referencing import Registry, Resource

FOLDER = Path(__file__).parents[2] / "build" / "schemas"
KUBERNETES = ("v1.30.0", "v1.37.0")
#: Of spec in config/crd/bases/keda.sh_scaledobjects.yaml (kedacore/keda): the validators do not refuse unknown fields.
SCALED_OBJECT: dict[str, Any] = {
    "scaleTargetRef": {"apiVersion": None, "kind": None, "name": None, "envSourceContainerName": None},
    "pollingInterval": None,
    "cooldownPeriod": None,
    "initialCooldownPeriod": None,
    "idleReplicaCount": None,
    "minReplicaCount": None,
    "maxReplicaCount": None,
    "fallback": {"failureThreshold": None, "replicas": None, "behavior": None},
    "advanced": {
        "restoreToOriginalReplicaCount": None,
        "scalingModifiers": None,
        "horizontalPodAutoscalerConfig": {"name": None, "behavior": None},
    },
    "triggers": [
        {
            "type": None,
            "name": None,
            "metricType": None,
            "useCachedMetrics": None,
            "metadata": None,
            "authenticationRef": None,
        }
    ],
}


def _wheel(name: str) -> Path:
    found = sorted(FOLDER.glob(f"{name}-*.whl"))
    if not found:
        pytest.skip(f"build/schemas has no {name}: run .ci/schemas")
    return found[-1]


# --- Kubernetes ------------------------------------------------------------------------------------------------------


@functools.cache
def _kubernetes_file(version: str, name: str) -> Any:
    path = f"kubernetes_validate/kubernetes-json-schema/{version}-local-strict/{name}.json"
    with zipfile.ZipFile(_wheel("kubernetes_validate")) as wheel:
        return json.loads(wheel.read(path))


@functools.cache
def _kubernetes_validator(version: str, name: str) -> Any:
    schema = _kubernetes_file(version, name)
    definitions = Resource.from_contents(_kubernetes_file(version, "_definitions"))
    registry = definitions @ (Resource.from_contents(schema) @ Registry())
    return jsonschema.validators.Draft202012Validator(schema, registry=registry)


def check_kubernetes(document: Mapping[str, Any]) -> None:
    """Raises ValidationError for what no API server of the versions takes with strict validation."""
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", document["apiVersion"])
    for version in KUBERNETES:
        _kubernetes_validator(version, f"{document['kind'].lower()}-{group}").validate(document)


# --- KEDA ------------------------------------------------------------------------------------------------------------

_KEDA = """
import { readFileSync } from "node:fs";
import { ScaledObject } from "@kubernetes-models/keda/keda.sh/v1alpha1/ScaledObject";
for (const one of JSON.parse(readFileSync(0, "utf8"))) new ScaledObject(one).validate();
"""


def check_keda(*documents: Mapping[str, Any]) -> None:
    """Raises AssertionError for what the CRD refuses, and for fields that it does not have."""
    node = shutil.which("node")
    if node is None or not (FOLDER / "keda" / "node_modules").is_dir():
        pytest.skip("build/schemas has no validators of KEDA, or there is no node: run .ci/schemas")
    script = FOLDER / "keda" / "check.mjs"
    if not script.exists() or script.read_text() != _KEDA:
        script.write_text(_KEDA)
    done = subprocess.run(
        [node, str(script)],
        input=json.dumps(documents),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for one in documents:
        _known(one["spec"], SCALED_OBJECT, "spec")
        behavior = one["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        spec = {"maxReplicas": 1, "scaleTargetRef": {"kind": "Deployment", "name": "x"}, "behavior": behavior}
        check_kubernetes({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "spec": spec})


def _known(value: Any, fields: Any, where: str) -> None:
    if isinstance(fields, dict):
        assert set(value) <= set(fields), f"{where} has {set(value) - set(fields)}"
        for key, inner in value.items():
            _known(inner, fields[key], f"{where}.{key}")
    elif isinstance(fields, list):
        for inner in value:
            _known(inner, fields[0], f"{where}[]")


# --- KServe ----------------------------------------------------------------------------------------------------------


@functools.cache
def _kserve_models() -> dict[str, dict[str, str]]:
    """Of each model, its fields in JSON and their types."""
    found: dict[str, dict[str, str]] = {}
    with zipfile.ZipFile(_wheel("kserve")) as wheel:
        for name in wheel.namelist():
            if not re.fullmatch(r"kserve/models/\w+\.py", name):
                continue
            for node in ast.parse(wheel.read(name)).body:
                if not isinstance(node, ast.ClassDef):
                    continue
                tables = {
                    part.targets[0].id: ast.literal_eval(part.value)
                    for part in node.body
                    if isinstance(part, ast.Assign)
                    and isinstance(part.targets[0], ast.Name)
                    and part.targets[0].id in ("openapi_types", "attribute_map")
                }
                if len(tables) == 2:
                    names = tables["attribute_map"]
                    found[node.name] = {names[key]: kind for key, kind in tables["openapi_types"].items()}
    return found


def check_kserve(document: Mapping[str, Any]) -> None:
    """Raises AssertionError or ValidationError for what the SDK's models do not know; pods are Kubernetes'."""
    assert (document["apiVersion"], document["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    _kserve(document, "V1beta1InferenceService", "InferenceService")


def _kserve(value: Any, kind: str, where: str) -> None:
    many = re.fullmatch(r"list\[(.+)\]", kind)
    plain = {"str": str, "int": int, "bool": bool, "float": (int, float)}
    if many:
        assert isinstance(value, list), where
        for item in value:
            _kserve(item, many[1], f"{where}[]")
    elif kind in plain:
        assert isinstance(value, plain[kind]) and (kind == "bool" or not isinstance(value, bool)), where
    elif kind.startswith("dict"):
        assert isinstance(value, dict) and all(isinstance(key, str) for key in value), where
    elif kind in _kserve_models():
        fields = _kserve_models()[kind]
        for key, inner in value.items():
            assert key in fields, f"{where} has no {key}"
            _kserve(inner, fields[key], f"{where}.{key}")
    else:
        _kubernetes_part(value, kind, where)


def _kubernetes_part(value: Any, kind: str, where: str) -> None:
    """A type of Kubernetes' within a document of KServe's, by its name in the OpenAPI document."""
    definitions = _kubernetes_file(KUBERNETES[-1], "_definitions")
    short = kind.removeprefix("K8sIoApiAppsV1").removeprefix("V1")
    names = [one for one in definitions["$defs"] if re.fullmatch(rf"io\.k8s\..*\.v1\.{short}", one)]
    assert len(names) == 1, f"{where}: {kind} is {names}"
    schema = {
        "$schema": definitions["$schema"],
        "$id": "https://kubernetes.io/api/part.json",
        "$ref": f"/api/_definitions.json#/$defs/{names[0]}",
    }
    registry = Resource.from_contents(definitions) @ Registry()
    jsonschema.validators.Draft202012Validator(schema, registry=registry).validate(value)


# --- SkyPilot --------------------------------------------------------------------------------------------------------


@functools.cache
def _sky_schemas() -> dict[str, Any]:
    """The schemas of `sky.utils.schemas` as it is in the wheel, without the rest of SkyPilot, which is not installed.

    Of what it imports, `constants` and `kubernetes_enums` are the real ones. The names of policies, of which it needs
    only the names, are read from where their classes are declared.
    """
    wheel = _wheel("skypilot")
    with zipfile.ZipFile(wheel) as packed:
        named = {
            module: packed.read(f"sky/serve/{module}.py").decode()
            for module in ("load_balancing_policies", "spot_placer")
        }
        autostop = packed.read("sky/skylet/autostop_lib.py").decode()
    modules: dict[str, types.ModuleType] = {}
    for name in ("sky", "sky.skylet", "sky.utils", "sky.serve", "sky.setup_files"):
        module = types.ModuleType(name)
        module.__path__ = [f"{wheel}/{name.replace('.', '/')}"]
        modules[name] = module
    policies = types.ModuleType("sky.serve.load_balancing_policies")
    policies.LB_POLICIES = dict.fromkeys(re.findall(r"name='(\w+)'", named["load_balancing_policies"]))  # type: ignore[attr-defined]
    placers = types.ModuleType("sky.serve.spot_placer")
    placers.SPOT_PLACERS = {"dynamic_fallback": None}  # type: ignore[attr-defined]
    stops = types.ModuleType("sky.skylet.autostop_lib")
    _enum_of(autostop, stops)
    modules["sky"].__version__ = wheel.name.split("-")[1]  # type: ignore[attr-defined]
    modules |= {one.__name__: one for one in (policies, placers, stops)}
    modules["sky.serve"].load_balancing_policies = policies  # type: ignore[attr-defined]
    modules["sky.serve"].spot_placer = placers  # type: ignore[attr-defined]
    modules["sky.skylet"].autostop_lib = stops  # type: ignore[attr-defined]
    before = {name: one for name, one in sys.modules.items() if name == "sky" or name.startswith("sky.")}
    for name in before:
        del sys.modules[name]
    sys.modules.update(modules)
    try:
        home = importlib.import_module("sky.utils.schemas")
        # `config:`, which is not made here, would ask for SkyPilot's server.
        home._task_config_schema = lambda: False
        return {part: getattr(home, f"get_{part}_schema")() for part in ("task", "service", "resources")}
    finally:
        for name in [one for one in sys.modules if one == "sky" or one.startswith("sky.")]:
            del sys.modules[name]
        sys.modules.update(before)


def _enum_of(source: str, module: types.ModuleType) -> None:
    """The enums of a module, without what it imports."""
    classes = [
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and any("Enum" in ast.unparse(base) for base in node.bases)
    ]
    begin = ast.parse("from __future__ import annotations\nimport enum\n").body
    code = ast.Module(body=[*begin, *classes], type_ignores=[])
    exec(compile(code, "autostop_lib", "exec"), module.__dict__)


def check_skypilot(document: Mapping[str, Any]) -> None:
    """Raises ValidationError for what SkyPilot refuses of a task with a service, its rules on replicas among it."""
    schemas = _sky_schemas()
    for part, name in (
        (document, "task"),
        (document["service"], "service"),
        (document["resources"], "resources"),
    ):
        jsonschema.validate(part, _strict(schemas[name]))
    policy = document["service"]["replica_policy"]
    most = policy.get("max_replicas")
    # SkyServiceSpec.__init__, sky/serve/service_spec.py.
    assert most is None or most >= policy["min_replicas"]
    assert (
        (most is not None) if "target_qps_per_replica" in policy else most in (None, policy["min_replicas"])
    )
    assert document["service"]["readiness_probe"]["path"].startswith("/")


def _strict(schema: Any) -> Any:
    """With SkyPilot's own keyword as the enum that it is."""
    if isinstance(schema, dict):
        found = {key: _strict(value) for key, value in schema.items() if key != "case_insensitive_enum"}
        if "case_insensitive_enum" in schema:
            found["pattern"] = "^(?i:" + "|".join(map(re.escape, schema["case_insensitive_enum"])) + ")$"
        return found
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    return schema


# --- cloud-init ------------------------------------------------------------------------------------------------------


def check_cloud_init(document: Mapping[str, Any]) -> None:
    """Raises ValidationError for what cloud-init's schema refuses, keys that it does not know among it."""
    (path,) = FOLDER.glob(
        "cloud-init/usr/lib/python3/dist-packages/cloudinit/config/schemas/schema-cloud-config-v1.json"
    ) or (None,)
    if path is None:
        pytest.skip("build/schemas has no schema of cloud-init: run .ci/schemas")
    schema = json.loads(path.read_text())
    jsonschema.Draft4Validator(schema).validate(document)
    known = {key for one in schema["$defs"].values() for key in one.get("properties", {})}
    assert set(document) <= known, set(document) - known
