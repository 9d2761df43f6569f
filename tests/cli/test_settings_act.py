"""Every setting that `config show` lists is obeyed by the commands that it is about.

`ACTS` names for each setting the test that shows it at work, here or in test_settings_act_on_gpus.py, or that it is for
a later part. A setting that is new has to be in it, and a test has to be there.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from cli import test_settings_act_on_gpus
from textnlp_fast.cli.arguments import transfer_options
from textnlp_fast.cli.configured import OTHERS, current_settings, reach, repository_url
from textnlp_fast.cli.program import group
from textnlp_fast.config import Settings, load_settings
from textnlp_fast.config.settings import PREFIX, names_of
from textnlp_fast.delta import create_patch
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.objectstore import open_store
from textnlp_fast.objectstore.peers import Members, NodeServer, PieceCache, Swarm
from textnlp_fast.storage import Repository, StorageConfig, TransferOptions

pytestmark = pytest.mark.usefixtures("bare_environment")

LATER = "nothing reads it yet"
ACTS = {
    "repo": "test_a_file_names_the_repository",
    "provider": "test_the_repository_is_where_settings_say",
    "model_storage_bucket": "test_the_repository_is_where_settings_say",
    "prefix": "test_the_repository_is_where_settings_say",
    "root": "test_the_repository_is_where_settings_say",
    "endpoint_url": "test_the_endpoint_is_that_of_every_command",
    "aws_region": "test_a_region_project_or_group_says_whose_the_bucket_is",
    "gcp_project_id": "test_a_region_project_or_group_says_whose_the_bucket_is",
    "azure_resource_group": "test_a_region_project_or_group_says_whose_the_bucket_is",
    "azure_subnet": "test_azures_subnet_and_key_are_those_that_are_set",
    "azure_ssh_public_key_file": "test_azures_subnet_and_key_are_those_that_are_set",
    "max_shard_size_gb": "test_shards_are_as_large_as_set",
    "enable_compression": "test_without_compression_tensors_are_stored_as_they_are",
    "enable_versioning": "test_without_versioning_every_version_is_by_itself",
    "enable_sharding": "test_without_sharding_every_tensor_is_an_object",
    "threads": "test_every_command_with_threads_or_memory_takes_them_from_settings",
    "memory_mib": "test_every_command_with_threads_or_memory_takes_them_from_settings",
    "default_gpu_type": "test_recommendations_ask_for_the_gpu_and_market_that_are_set",
    "enable_spot_instances": "test_recommendations_ask_for_the_gpu_and_market_that_are_set",
    "gpu_autoscaling": "test_autoscalers_start_only_where_they_may",
    "gpu_catalog": "test_the_refreshed_catalogue_is_where_set",
    "fleet_state": "test_the_fleet_is_kept_named_and_bounded_as_set",
    "fleet_owner": "test_the_fleet_is_kept_named_and_bounded_as_set",
    "gpu_max_usd_per_hour": "test_the_fleet_is_kept_named_and_bounded_as_set",
    "gpu_budget_usd_per_hour": "test_the_fleet_is_kept_named_and_bounded_as_set",
    "gpu_budget_usd": "test_the_fleet_is_kept_named_and_bounded_as_set",
    "gpu_health_rules": "test_the_rules_of_health_are_those_that_are_set",
    "audit": "test_the_audit_log_is_as_set",
    "audit_reads": "test_the_audit_log_is_as_set",
    "actor": "test_the_audit_log_is_as_set",
    "audit_key": "test_records_are_proven_and_remembered_as_set",
    "audit_key_file": "test_records_are_proven_and_remembered_as_set",
    "audit_witness": "test_records_are_proven_and_remembered_as_set",
    "sign_key": "test_pushes_are_signed_and_pulls_demand_it_as_set",
    "sign_key_password": "test_pushes_are_signed_and_pulls_demand_it_as_set",
    "signature_policy": "test_pushes_are_signed_and_pulls_demand_it_as_set",
    "service_tokens": "test_the_service_is_as_set",
    "service_oidc": "test_the_service_is_as_set",
    "service_allowed_hosts": "test_the_service_is_as_set",
    "service_allowed_paths": "test_the_service_is_as_set",
    "service_health_agents": "test_the_service_is_as_set",
    "peers": "test_objects_are_read_from_nodes_and_kept_as_set",
    "peer_cache": "test_objects_are_read_from_nodes_and_kept_as_set",
    "peer_cache_gib": "test_objects_are_read_from_nodes_and_kept_as_set",
    "peer_token": "test_objects_are_read_from_nodes_and_kept_as_set",
    "metrics_file": "test_every_kind_of_command_writes_metrics",
    "traces": "test_traces_are_on_while_a_command_runs",
}


def sizes(place: Path) -> list[int]:
    return [file.stat().st_size for file in (place / "objects").rglob("*") if file.is_file()]


def test_each_setting_is_shown_at_work_or_is_for_a_later_part() -> None:
    assert list(ACTS) == list(Settings.model_fields)
    tests = {**vars(test_settings_act_on_gpus), **globals()}
    for name, where in ACTS.items():
        if where == LATER:
            assert LATER in (Settings.model_fields[name].description or "")
        else:
            assert callable(tests[where]), name
            assert LATER not in (Settings.model_fields[name].description or "")


def test_the_variables_of_every_setting_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    assert current_settings() is None
    every = {variable for name in Settings.model_fields for variable in names_of(name)}
    assert {variable for variable in every if not variable.startswith(PREFIX)} == OTHERS
    monkeypatch.setenv("MAX_SHARD_SIZE_GB", "1")
    settings = current_settings()
    assert settings is not None
    assert settings.max_shard_size_gb == 1
    monkeypatch.delenv("MAX_SHARD_SIZE_GB")
    monkeypatch.setenv("TEXTNLP_FAST_PREFIX", "p")
    assert current_settings() is not None


def test_commands_and_python_make_the_same_options_of_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    assert transfer_options() == TransferOptions()
    monkeypatch.setenv("MODEL_STORAGE_BUCKET", "b")
    for name in ("ENABLE_COMPRESSION", "TEXTNLP_FAST_ENABLE_VERSIONING", "TEXTNLP_FAST_ENABLE_SHARDING"):
        monkeypatch.setenv(name, "false")
        monkeypatch.setenv("TEXTNLP_FAST_THREADS", "3")
        made = transfer_options()
        assert made == StorageConfig.from_settings(load_settings()).transfer
        assert made.threads == 3
    assert (made.compression, made.delta, made.sharding) == (False, False, False)
    assert transfer_options(threads=5, delta=True).delta is True


# --- where the repository is -------------------------------------------------------------------------------


def test_a_file_names_the_repository(
    run: Any, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"repo: {place}\n")
    monkeypatch.setenv("TEXTNLP_FAST_CONFIG", str(file))
    assert run("ls", "--json").document[0]["name"] == "m"
    assert run("shard", "m@1.0.0", tmp_path / "shards").code == 0
    assert run("merge", tmp_path / "shards", tmp_path / "whole").code == 0


def test_the_repository_is_where_settings_say(
    run: Any, tmp_path: Path, models: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_STORAGE_BUCKET", "weights")
    monkeypatch.setenv("TEXTNLP_FAST_ROOT", str(tmp_path))
    monkeypatch.setenv("TEXTNLP_FAST_PREFIX", "team/a")
    assert run("push", models[0], "m@1.0.0").code == 0
    assert (tmp_path / "weights" / "team" / "a" / "repository.json").is_file()
    monkeypatch.setenv("TEXTNLP_FAST_PROVIDER", "memory")
    refused = run("ls")
    assert refused.code == 2
    assert "memory://weights/team/a" in refused.err


def test_the_endpoint_is_that_of_every_command(
    run: Any, models: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain HTTP to another machine is refused before anything is sent."""
    monkeypatch.setenv("TEXTNLP_FAST_ENDPOINT_URL", "http://elsewhere.invalid:9")
    file = models[0] / "model.safetensors"
    for words in (
        ["ls", "--repo", "s3://bucket/p"],
        ["push", models[0], "m@1.0.0", "--repo", "s3://bucket/p"],
        ["upload", file, "s3://bucket/model.safetensors"],
        ["download", "s3://bucket/model.safetensors", tmp_path / "f"],
    ):
        refused = run(*words)
        assert refused.code == 2, refused.err
        assert "elsewhere.invalid" in refused.err


@pytest.mark.parametrize(
    ("variable", "url"),
    [("AWS_REGION", "s3://b"), ("GCP_PROJECT_ID", "gs://b"), ("AZURE_RESOURCE_GROUP", "az://b")],
)
def test_a_region_project_or_group_says_whose_the_bucket_is(
    variable: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_STORAGE_BUCKET", "b")
    monkeypatch.setenv(variable, "x")
    assert repository_url(None) == url
    assert repository_url("s3://given") == "s3://given"
    assert reach()["region"] == ("x" if variable == "AWS_REGION" else None)


# --- how versions are stored -------------------------------------------------------------------------------


def test_shards_are_as_large_as_set(
    run: Any, models: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shards(name: str, *words: str) -> int:
        assert run("shard", models[0], tmp_path / name, "--strategy", "size_based", *words).code == 0
        return len(list((tmp_path / name).glob("*.safetensors")))

    assert shards("a") == 1
    monkeypatch.setenv("MAX_SHARD_SIZE_GB", "0.000001")
    assert shards("b") > 1
    assert shards("c", "--max-shard-size", "2GB") == 1


def test_without_compression_tensors_are_stored_as_they_are(
    run: Any, models: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coded = run("push", models[0], "m@1.0.0", "--repo", tmp_path / "a", "--json").document
    monkeypatch.setenv("ENABLE_COMPRESSION", "false")
    plan = run("push", models[0], "m@1.0.0", "--repo", tmp_path / "b", "--dry-run", "--json").document
    assert plan["chosen"] == "plain"
    plain = run("push", models[0], "m@1.0.0", "--repo", tmp_path / "b", "--json").document
    assert coded["stored_bytes"] < plain["raw_bytes"] <= plain["stored_bytes"]


def test_without_versioning_every_version_is_by_itself(
    run: Any, models: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "r"
    assert run("push", models[0], "m@1.0.0", "--repo", place).code == 0
    words = ("push", models[1], "m@1.1.0", "--repo", place, "--json")
    monkeypatch.setenv("TEXTNLP_FAST_ENABLE_VERSIONING", "false")
    plan = run(*words, "--dry-run").document
    assert (plan["base"], plan["chosen"]) == (None, "standalone")
    explicit = run(*words, "--dry-run", "--parent", "1.0.0").document
    assert (explicit["base"], explicit["chosen"]) == ("m@1.0.0", "delta")
    report = run(*words).document
    assert (report["base"], report["parent"]) == (None, None)
    monkeypatch.setenv("TEXTNLP_FAST_ENABLE_VERSIONING", "true")
    assert run("push", models[1], "n@1.1.0", "--repo", place, "--parent", "m@1.0.0").code == 0


def test_without_sharding_every_tensor_is_an_object(
    run: Any, models: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("push", models[0], "m@1.0.0", "--repo", tmp_path / "a").code == 0
    monkeypatch.setenv("TEXTNLP_FAST_ENABLE_SHARDING", "false")
    assert run("push", models[0], "m@1.0.0", "--repo", tmp_path / "b").code == 0
    assert len(sizes(tmp_path / "a")) == 1 < len(sizes(tmp_path / "b"))
    assert Repository.open(tmp_path / "b").verify().ok


def verbs(
    command: click.Command, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        assert below is not None
        yield from verbs(below, (*path, name))


def test_every_command_with_threads_or_memory_takes_them_from_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = {"threads": 3, "memory_mib": 200}
    for name, value in said.items():
        monkeypatch.setenv(f"TEXTNLP_FAST_{name.upper()}", str(value))
    seen: dict[str, int] = {"threads": 0, "memory_mib": 0}
    for path, command in verbs(group):
        context = click.Context(command)
        for option in command.params:
            if option.name in said:
                assert option.get_default(context, call=True) == said[option.name], path
                seen[option.name] += 1
                assert isinstance(option.type, click.IntRange)
                assert option.type.max is not None, path
    assert seen["threads"] >= 12
    assert seen["memory_mib"] >= 9
    made = transfer_options()
    assert (made.threads, made.memory_budget_bytes) == (3, 200 << 20)


@pytest.mark.parametrize("option", ["--threads", "--memory-mib"])
@pytest.mark.parametrize("verb", [path for path, _ in verbs(group)], ids=" ".join)
def test_a_number_that_cannot_be_meant_is_refused(run: Any, verb: tuple[str, ...], option: str) -> None:
    command: click.Command = dict(verbs(group))[verb]
    if not any(option in one.opts for one in command.params):
        return
    refused = run(*verb, option, "99999999999999999999")
    assert refused.code == 2
    assert option in refused.err


@pytest.mark.parametrize("name", ["threads", "memory_budget_bytes", "shard_bytes"])
@pytest.mark.parametrize("value", [-1, 1 << 64, 99999999999999999999])
def test_options_from_python_have_bounds_too(name: str, value: int, models: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError):
        TransferOptions(**{name: value})  # type: ignore[arg-type]
    if name != "shard_bytes":
        with pytest.raises(InvalidInputError):
            create_patch(models[0], models[1], tmp_path / "p", **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("age", ["9" * 400 + "d", "9" * 5000 + "s"])
def test_an_age_that_cannot_be_meant_is_refused(run: Any, place: Path, age: str) -> None:
    refused = run("gc", "--repo", place, "--older-than", age)
    assert refused.code == 2
    assert "no age" in refused.err


# --- audit, signatures, telemetry --------------------------------------------------------------------------


def test_the_audit_log_is_as_set(
    run: Any, models: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def actions(place: Path) -> list[tuple[str, str]]:
        found = run("audit", "log", "--repo", place, "--json").document
        return [(one["action"], one["actor"]["name"]) for one in found if one["action"] != "audit.begin"]

    monkeypatch.setenv("TEXTNLP_FAST_ACTOR", "ada")
    monkeypatch.setenv("TEXTNLP_FAST_AUDIT_READS", "true")
    assert run("push", models[0], "m@1.0.0", "--repo", tmp_path / "a").code == 0
    assert run("pull", "m", tmp_path / "out", "--repo", tmp_path / "a").code == 0
    assert actions(tmp_path / "a") == [("push", "ada"), ("pull", "ada")]
    monkeypatch.setenv("TEXTNLP_FAST_AUDIT", "off")
    assert run("push", models[0], "m@1.0.0", "--repo", tmp_path / "b").code == 0
    assert not (tmp_path / "b" / "audit").exists()


@pytest.mark.parametrize("as_file", [False, True])
def test_records_are_proven_and_remembered_as_set(
    run: Any, models: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_file: bool
) -> None:
    key, witness = "0f" * 32, tmp_path / "witness"
    (tmp_path / "keys").write_text(key + "\n")
    monkeypatch.setenv(
        *(
            ("TEXTNLP_FAST_AUDIT_KEY_FILE", str(tmp_path / "keys"))
            if as_file
            else ("TEXTNLP_FAST_AUDIT_KEY", key)
        )
    )
    monkeypatch.setenv("TEXTNLP_FAST_AUDIT_WITNESS", str(witness))
    assert run("push", models[0], "m@1.0.0", "--repo", tmp_path / "r").code == 0
    assert re.search(r"\d+ records, [1-9]\d* proven", run("audit", "verify", "--repo", tmp_path / "r").out)
    assert any(witness.iterdir())


def test_pushes_are_signed_and_pulls_demand_it_as_set(
    run: Any, models: Any, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cryptography")
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make keys with")
    private, public = tmp_path / "key.pem", tmp_path / "pub.pem"
    plain = tmp_path / "plain.pem"
    for words in (
        ["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", plain],
        ["ec", "-in", plain, "-aes256", "-passout", "pass:right", "-out", private],
        ["ec", "-in", plain, "-pubout", "-out", public],
    ):
        subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, timeout=60)
    monkeypatch.setenv("TEXTNLP_FAST_SIGNATURE_POLICY", f'[{{"models": "*", "public_keys": ["{public}"]}}]')
    assert run("pull", "m@1.1.0", tmp_path / "out", "--repo", place).code == 12
    monkeypatch.setenv("TEXTNLP_FAST_SIGN_KEY", str(private))
    for password, says in (("wrong", "wrong password"), ("", "needs a password")):
        monkeypatch.setenv("TEXTNLP_FAST_SIGN_KEY_PASSWORD", password)
        refused = run("push", models[1], "m@1.2.0", "--repo", place)
        assert refused.code == 2
        assert says in refused.err
    monkeypatch.setenv("TEXTNLP_FAST_SIGN_KEY_PASSWORD", "right")
    assert run("push", models[1], "m@1.2.0", "--repo", place).code == 0
    assert run("sign", "m@1.1.0", "--repo", place).code == 0
    for version in ("1.1.0", "1.2.0"):
        assert run("pull", f"m@{version}", tmp_path / "out", "--repo", place).code == 0


def test_every_kind_of_command_writes_metrics(
    run: Any, models: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("prometheus_client")
    file = tmp_path / "metrics.prom"
    monkeypatch.setenv("TEXTNLP_FAST_METRICS_FILE", str(file))
    assert run("push", models[0], "m@1.0.0", "--repo", tmp_path / "r").code == 0
    (tmp_path / "up").mkdir()
    assert run("upload", models[0] / "model.safetensors", f"{tmp_path}/up/").code == 0
    assert run("shard", models[0], tmp_path / "s").code == 0
    text = file.read_text()
    for verb in ("push", "upload"):
        assert f'operation="{verb}",outcome="ok"' in text


def test_the_service_is_as_set(
    run: Any, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = pytest.importorskip("textnlp_fast.service.serving")
    served: list[Any] = []
    monkeypatch.setattr(serving, "serve", lambda _app, config, **_more: served.append(config) or True)
    monkeypatch.setenv("TEXTNLP_FAST_REPO", str(place))
    assert run("serve").code == 0
    assert not served[0].is_protected
    tokens, folder = tmp_path / "tokens.yaml", tmp_path / "models"
    folder.mkdir()
    assert run("serve", "--new-token", "alice", "--role", "reader", "--tokens", tokens).code == 0
    monkeypatch.setenv("TEXTNLP_FAST_SERVICE_TOKENS", str(tokens))
    oidc = {"issuer": "https://id.example.org", "audience": "models", "roles": {"ops": "operator"}}
    monkeypatch.setenv("TEXTNLP_FAST_SERVICE_OIDC", json.dumps(oidc))
    monkeypatch.setenv("TEXTNLP_FAST_SERVICE_ALLOWED_HOSTS", '["models.example.org"]')
    monkeypatch.setenv("TEXTNLP_FAST_SERVICE_ALLOWED_PATHS", json.dumps([str(folder)]))
    monkeypatch.setenv("TEXTNLP_FAST_SERVICE_HEALTH_AGENTS", '{"node-1": "http://127.0.0.1:9401"}')
    assert run("serve").code == 0
    config = served[1]
    assert config.is_protected
    assert (config.tokens, config.oidc.issuer, config.oidc.roles) == (tokens, oidc["issuer"], oidc["roles"])
    assert (config.allowed_hosts, config.allowed_paths) == (("models.example.org",), (folder.resolve(),))
    assert config.health_agents == {"node-1": "http://127.0.0.1:9401"}


def test_objects_are_read_from_nodes_and_kept_as_set(
    run: Any, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pull(code: int = 0) -> None:
        assert (
            run("pull", "m@1.0.0", tmp_path / f"out{len(list(tmp_path.iterdir()))}", "--repo", place).code
            == code
        )

    store = open_store(place)
    swarm = Swarm(
        store, Members([], me="http://127.0.0.1:1"), cache=PieceCache(tmp_path / "node"), name="node"
    )
    node = NodeServer(swarm, "127.0.0.1", 0, token="secret", name="node")
    serving = threading.Thread(target=node.serve)
    serving.start()
    try:
        monkeypatch.setenv("TEXTNLP_FAST_PEERS", f"http://127.0.0.1:{node.port}")
        pull()
        assert not node.served_bytes  # without the token
        monkeypatch.setenv("TEXTNLP_FAST_PEER_TOKEN", "secret")
        pull()
        assert node.served_bytes
    finally:
        node.close()
        serving.join()
    pull()  # nobody there
    monkeypatch.setenv("TEXTNLP_FAST_PEERS", "nonsense")
    pull(2)
    monkeypatch.delenv("TEXTNLP_FAST_PEERS")
    monkeypatch.setenv("TEXTNLP_FAST_PEER_CACHE", str(tmp_path / "kept"))
    monkeypatch.setenv("TEXTNLP_FAST_PEER_CACHE_GIB", "0")
    pull()
    assert not (tmp_path / "kept").exists()
    monkeypatch.setenv("TEXTNLP_FAST_PEER_CACHE_GIB", "1")
    pull()
    assert sizes(tmp_path / "kept")


def test_traces_are_on_while_a_command_runs(run: Any, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []

    def enable() -> Any:
        happened.append("on")
        return lambda: happened.append("off")

    monkeypatch.setattr("textnlp_fast.telemetry.enable_traces", enable)
    monkeypatch.setenv("TEXTNLP_FAST_TRACES", "true")
    assert run("verify", "--repo", place).code == 0
    assert happened == ["on", "off"]
