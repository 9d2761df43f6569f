"""The policies of the guides: well-formed, and each grants what its holder needs and nothing else."""

from __future__ import annotations

import importlib
import json
import os
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from servers.process import shared_process
from textnlp_fast.errors import AuthenticationError
from textnlp_fast.objectstore import ObjectStore, open_store
from textnlp_fast.storage import CollectionOptions, Repository, TransferOptions

POLICIES = Path(__file__).parents[2] / "docs" / "guide" / "policies"
GUIDES = {
    name: (POLICIES.parent / f"{name}.md").read_text(encoding="utf-8") for name in ("aws", "gcp", "azure")
}
OPTIONS = TransferOptions(shard_bytes=1 << 16, threads=2)
BUCKET = "a-bucket-of-models"


def read(name: str) -> Any:
    return json.loads((POLICIES / name).read_text(encoding="utf-8"))


def test_the_guides_name_every_policy_and_no_other() -> None:
    for path in POLICIES.iterdir():
        cloud = path.name.partition("-")[0]
        assert f"policies/{path.name}" in GUIDES[cloud], path.name
        assert read(path.name)


def actions(policy: dict[str, Any]) -> set[str]:
    found: set[str] = set()
    for statement in policy["Statement"]:
        found |= set([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
    return found


@pytest.mark.parametrize("name", sorted(path.name for path in POLICIES.glob("aws-*.json")))
def test_amazon_has_these_actions(name: str) -> None:
    managed = pytest.importorskip("moto.iam.aws_managed_policies", reason="needs moto")
    text = managed.aws_managed_policies_data
    # What trust policies name is in no policy that is attached to somebody.
    for action in actions(read(name)) - {"s3:*", "sts:AssumeRoleWithWebIdentity"}:
        assert f'"{action}"' in text, f"no policy of Amazon's own names {action}"


# The documentation's lists of data actions of blobs and of permissions on objects.
AZURE_DATA_ACTIONS = {"read", "write", "delete", "add/action", "move/action", "tags/read", "tags/write"}
GOOGLE_PERMISSIONS = {
    "create",
    "delete",
    "get",
    "getIamPolicy",
    "list",
    "restore",
    "setIamPolicy",
    "update",
    "move",
}


def test_azures_and_googles_roles_allow_objects_only() -> None:
    for kind in ("reader", "writer"):
        role = read(f"azure-{kind}-role.json")
        assert set(role) >= {"Name", "IsCustom", "Description", "Actions", "DataActions", "AssignableScopes"}
        assert role["Actions"] == []  # nothing of the account's management
        blobs = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/"
        granted = {action.removeprefix(blobs) for action in role["DataActions"]}
        assert granted <= AZURE_DATA_ACTIONS
        permissions = read(f"gcp-{kind}-role.json")["includedPermissions"]
        assert {each.removeprefix("storage.objects.") for each in permissions} <= GOOGLE_PERMISSIONS
        assert ("delete" in granted) == ("storage.objects.delete" in permissions) == (kind == "writer")


# --- Amazon's, enforced by moto -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, tuple[str, str]]]]:
    """A moto that checks who may do what, a bucket, and the keys of one user for each policy."""
    boto3 = pytest.importorskip("boto3", reason="needs boto3")
    pytest.importorskip("moto.server", reason="needs moto")

    def command(port: int, _: Path) -> tuple[Sequence[str], Mapping[str, str]]:
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], {}

    worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")  # the server's state is not to be shared
    with shared_process(f"moto-iam-{worker}", tmp_path_factory, command) as url:
        keywords = {
            **{"endpoint_url": url, "region_name": "us-east-1"},
            **{"aws_access_key_id": "root", "aws_secret_access_key": "root"},
        }
        iam, s3 = boto3.client("iam", **keywords), boto3.client("s3", **keywords)
        s3.create_bucket(Bucket=BUCKET)
        s3.create_bucket(Bucket="elsewhere")
        keys = {}
        for name in ("reader", "writer", "maintainer", "nobody"):
            iam.create_user(UserName=name)
            if name != "nobody":
                document = json.dumps(read(f"aws-{name}.json")).replace("MY-BUCKET", BUCKET)
                iam.put_user_policy(UserName=name, PolicyName=name, PolicyDocument=document)
            key = iam.create_access_key(UserName=name)["AccessKey"]
            keys[name] = (key["AccessKeyId"], key["SecretAccessKey"])
        switch = urllib.request.Request(
            f"{url}/moto-api/reset-auth", data=b"0", method="POST", headers={"Content-Type": "text/plain"}
        )
        with urllib.request.urlopen(switch, timeout=60):
            yield url, keys


@pytest.fixture
def open_as(guarded: Any, aws_environment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Opens a place with the keys of a user."""
    url, keys = guarded
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def open_(user: str, place: str = f"{BUCKET}/models") -> ObjectStore:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys[user][0])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys[user][1])
        return open_store(f"s3://{place}", endpoint_url=url, retries=1)

    return open_


def test_each_may_do_his_own_work_and_no_more(guarded: Any, open_as: Any, tmp_path: Path) -> None:
    makers = importlib.import_module("storage.conftest").Makers
    source = makers.write(tmp_path / "in" / "m.safetensors", makers.tensors(rows=256))
    Repository(open_as("maintainer"), OPTIONS).push(source, "m", "1.0.0")  # who makes the repository
    other = makers.write(tmp_path / "in" / "m.safetensors", makers.tensors(rows=256, seed=3))

    writer = Repository(open_as("writer"), OPTIONS)
    writer.push(other, "m", "1.1.0")
    assert writer.verify().ok
    store = open_as("writer")
    store.put_object("objects/large", bytes(17 << 20))  # in parts
    assert not list(store.list("pushes"))
    for kept in ("objects/large", "models/m/versions/1.0.0.json", "repository.json"):
        with pytest.raises(AuthenticationError):
            store.delete(kept)

    reader = Repository(open_as("reader"), OPTIONS)
    reader.pull("m", "1.1.0", tmp_path / "out")
    assert makers.tree(tmp_path / "out") == makers.tree(tmp_path / "in")
    assert not open_as("reader").exists("models/m/versions/9.9.9.json")  # missing, not forbidden
    with pytest.raises(AuthenticationError):
        reader.push(source, "m", "2.0.0")
    with pytest.raises(AuthenticationError):
        open_as("reader").delete("repository.json")

    maintainer = open_as("maintainer")
    Repository(maintainer, OPTIONS).collect_garbage(CollectionOptions(delete=True))
    maintainer.delete("objects/large")
    assert not maintainer.exists("objects/large")
    assert not list(maintainer.list("pushes"))

    for user in ("reader", "writer", "maintainer", "nobody"):
        for place in (
            "elsewhere/models",
            f"{BUCKET}/private",
            *([f"{BUCKET}/models"] if user == "nobody" else []),
        ):
            store = open_as(user, place)
            for forbidden in (
                lambda store=store: store.get("a"),
                lambda store=store: store.create("a", b"x"),
                lambda store=store: store.delete("a"),
            ):
                with pytest.raises(AuthenticationError):
                    forbidden()
