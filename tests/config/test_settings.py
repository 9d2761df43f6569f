"""Settings: which source wins, what is refused, and what is shown of secrets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textnlp_fast.config import Settings, load_settings
from textnlp_fast.config.settings import names_of
from textnlp_fast.errors import InvalidInputError
from textnlp_fast.storage import StorageConfig

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting comes from the machine that runs the tests."""
    for name in Settings.model_fields:
        for variable in names_of(name):
            monkeypatch.delenv(variable, raising=False)
    for variable in ("TEXTNLP_FAST_CONFIG", "TEXTNLP_FAST_ENV_FILE"):
        monkeypatch.delenv(variable, raising=False)


def test_an_argument_comes_before_the_environment_before_files_before_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, variables = tmp_path / "c.yaml", tmp_path / ".env"
    file.write_text("threads: 1\nprefix: of-file\nmemory_mib: 200\nactor: of-file\n")
    variables.write_text(
        "TEXTNLP_FAST_THREADS=2\nTEXTNLP_FAST_PREFIX=of-env-file\nTEXTNLP_FAST_MEMORY_MIB=201\nOTHERS=1\n"
    )
    monkeypatch.setenv("TEXTNLP_FAST_THREADS", "3")
    monkeypatch.setenv("TEXTNLP_FAST_PREFIX", "of-environment")
    settings = load_settings(file, env_file=variables, threads=4)
    assert (settings.threads, settings.prefix, settings.memory_mib) == (4, "of-environment", 201)
    assert (settings.actor, settings.max_shard_size_gb) == ("of-file", 2.0)
    assert settings.sources == {
        "threads": "argument",
        "prefix": "environment (TEXTNLP_FAST_PREFIX)",
        "memory_mib": f"{variables} (TEXTNLP_FAST_MEMORY_MIB)",
        "actor": str(file),
    }


def test_the_names_of_the_specification(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "AWS_REGION": "eu-west-1",
        "GCP_PROJECT_ID": "p",
        "AZURE_RESOURCE_GROUP": "g",
        "MODEL_STORAGE_BUCKET": "b",
        "MAX_SHARD_SIZE_GB": "0.5",
        "ENABLE_COMPRESSION": "false",
        "DEFAULT_GPU_TYPE": "A100",
        "ENABLE_SPOT_INSTANCES": "true",
        "GPU_AUTOSCALING": "1",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    for name, value in given.items():
        assert str(getattr(settings, name.lower())).lower() in {value.lower(), {"1": "true"}.get(value, "")}
    monkeypatch.setenv("TEXTNLP_FAST_AWS_REGION", "us-east-2")  # of two names the longer one wins
    assert load_settings().aws_region == "us-east-2"


def test_files_are_read_only_if_they_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "development.yaml").write_text("repo: s3://not-yours\n")
    (tmp_path / ".env").write_text("TEXTNLP_FAST_REPO=s3://not-yours\n")
    monkeypatch.chdir(tmp_path)
    assert load_settings().repo is None
    monkeypatch.setenv("TEXTNLP_FAST_CONFIG", "config/development.yaml")
    assert load_settings().repo == "s3://not-yours"


def test_the_committed_files_are_what_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    development = load_settings("config/development.yaml")
    assert development.repository_url == str(ROOT / "textnlp-models")
    assert StorageConfig.from_settings(development).url == development.repository_url
    example = load_settings(env_file="config/.env.example")
    assert example.repository_url == "s3://my-bucket"
    assert example.max_shard_size_gb == 2.0
    assert example.gcp_project_id is None


@pytest.mark.parametrize(
    ("text", "complaint", "hint"),
    [
        ("thread: 1", "no setting 'thread'", "'threads'"),
        ("max_shard_size: 1", "no setting 'max_shard_size'", "'max_shard_size_gb'"),
        ("1: 1", "no setting 1", ""),
        ("threads: many", r"threads, from .*c\.yaml", ""),
        ("threads: -1", "threads", ""),
        ("max_shard_size_gb: .nan", "max_shard_size_gb", ""),
        ("audit: sometimes", "audit", ""),
        ("provider: ibm", "provider", ""),
        ("- a\n- b", "not a list of settings", ""),
        ("a: [", "line 1 is not YAML|line 2 is not YAML", ""),
        ("!!python/object/apply:os.system ['true']", "not YAML", ""),
        ("signature_policy: [{models: '*', public_keys: []}]", "signature_policy", ""),
        ("signature_policy: [{model: '*', public_keys: [a]}]", r"signature_policy\.0\.model", ""),
        ("[" * 3_000, "not YAML", ""),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, complaint: str, hint: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(InvalidInputError, match=complaint) as caught:
        load_settings(file)
    assert hint in caught.value.hint


def test_what_looks_like_ours_in_a_file_of_variables_must_be_ours(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    for wrong, near in [
        ("TEXTNLP_FAST_THREAD", "TEXTNLP_FAST_THREADS"),
        ("MAX_SHARD_SIZE_GBS", "MAX_SHARD_SIZE_GB"),
    ]:
        file.write_text(f"{wrong}=1\n")
        with pytest.raises(InvalidInputError, match=wrong) as caught:
            load_settings(env_file=file)
        assert near in caught.value.hint
    file.write_text("DATABASE_URL=postgres://x\nAWS_ACCESS_KEY_ID=x\n")
    assert load_settings(env_file=file).sources == {}


def test_an_argument_that_is_none_is_not_given_and_one_that_is_unknown_is_refused() -> None:
    assert load_settings(threads=None).sources == {}
    with pytest.raises(InvalidInputError, match="'thread'"):
        load_settings(thread=3)


def test_a_secret_is_shown_nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TEXTNLP_FAST_AUDIT_KEY", "5ec2e7" * 12)
    settings = load_settings()
    assert settings.audit_key is not None
    assert "5ec2e7" not in f"{settings!r} {settings} {settings.model_dump_json()} {settings.model_dump()}"
    file = tmp_path / "c.yaml"
    file.write_text("audit_key: [5ec2e7, 5ec2e7]")
    monkeypatch.delenv("TEXTNLP_FAST_AUDIT_KEY")
    with pytest.raises(InvalidInputError) as caught:
        load_settings(file)
    assert "5ec2e7" not in str(caught.value)


def test_which_bucket_is_meant() -> None:
    def url(**values: object) -> str | None:
        return load_settings(**values).repository_url

    assert url() is None
    assert url(repo="s3://b/p", model_storage_bucket="other") == "s3://b/p"
    assert url(model_storage_bucket="b", aws_region="r") == "s3://b"
    assert url(model_storage_bucket="b", prefix="p/q", gcp_project_id="p") == "gs://b/p/q"
    assert url(model_storage_bucket="b", provider="azure", aws_region="r") == "az://b"
    assert url(model_storage_bucket="s3://b/x", prefix="y") == "s3://b/x/y"
    assert url(model_storage_bucket="b", root=Path("/data")) == "/data/b"
    with pytest.raises(InvalidInputError, match="aws or gcp") as caught:
        url(model_storage_bucket="b", aws_region="r", gcp_project_id="p")
    assert "TEXTNLP_FAST_PROVIDER" in caught.value.hint
    with pytest.raises(InvalidInputError, match="no bucket"):
        StorageConfig.from_settings(load_settings())


def test_the_environments_settings_make_a_storage_config(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_STORAGE_BUCKET", "b")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("ENABLE_COMPRESSION", "false")
    config = StorageConfig.from_settings()
    assert (config.provider, config.url, config.region) == ("aws", "s3://b", "eu-west-1")
    assert not config.enable_compression


def test_rules_are_found_by_the_models_name() -> None:
    rules = [
        {"models": "org/*", "public_keys": ["a.pem"]},
        {"models": "*", "public_keys": ["b.pem"], "threshold": 1},
    ]
    settings = load_settings(signature_policy=rules)
    assert [rule.models for rule in settings.signature_rules("org/m")] == ["org/*", "*"]
    assert [rule.models for rule in settings.signature_rules("m")] == ["*"]


def test_rules_come_from_the_environment_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXTNLP_FAST_SIGNATURE_POLICY", '[{"public_keys": ["a.pem"]}]')
    assert load_settings().signature_rules("m")[0].public_keys == (Path("a.pem"),)
    monkeypatch.setenv("TEXTNLP_FAST_SIGNATURE_POLICY", "[")
    with pytest.raises(InvalidInputError, match="JSON"):
        load_settings()


@given(
    st.dictionaries(
        st.text(max_size=12), st.text(max_size=12) | st.integers() | st.none() | st.booleans(), max_size=4
    )
)
def test_any_arguments_are_taken_or_refused_with_one_error(arguments: dict[str, object]) -> None:
    arguments = {name: value for name, value in arguments.items() if name not in {"path", "env_file"}}
    try:
        settings = load_settings(None, **arguments)
    except InvalidInputError:
        return
    assert set(settings.sources) <= set(Settings.model_fields)


def test_importing_the_package_does_not_load_settings() -> None:
    code = "import sys, textnlp_fast.storage, textnlp_fast.cli.program; sys.exit('pydantic' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], env=os.environ, timeout=120, check=False).returncode == 0
    )
