"""The policies of the guides: well-formed, and each grants what its holder needs and nothing else."""

from __future__ import annotations

import importlib
import json
import os
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from servers.process import shared_process
from textnlp_fast.errors import AuthenticationError
from textnlp_fast.objectstore import ObjectStore, open_store
from textnlp_fast.storage import CollectionOptions, Repository, TransferOptions

POLICIES = Path(__file__).parents[2] / "docs" / "guide" / "policies"
GUIDES = {
    name: (POLICIES.parent / f"{name}.md").read_text(encoding="utf-8")
    for name in ("aws", "gcp", "azure", "gpu-fleet", "gpu-clouds")
}
OPTIONS = TransferOptions(shard_bytes=1 << 16, threads=2)


def read(name: str) -> Any:
    return json.loads((POLICIES / name).read_text(encoding="utf-8"))


def test_the_guides_name_every_policy_and_no_other() -> None:
    for path in POLICIES.iterdir():
        fleets = ("gpu-fleet", "gpu-clouds") if "-fleet" in path.stem else ()
        guides = [GUIDES[name] for name in (path.name.partition("-")[0], *fleets)]
        assert any(f"policies/{path.name}" in guide for guide in guides), path.name
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


# --- Amazon's, enforced by servers --------------------------------------------------------------------------

ROLES = ("reader", "writer", "maintainer")


@dataclass(frozen=True)
class Guarded:
    """A server that checks who may do what: two buckets, and each user's key and secret."""

    url: str
    bucket: str
    elsewhere: str
    keys: dict[str, tuple[str, str]]


def client(service: str, url: str, user: str) -> Any:
    boto3 = pytest.importorskip("boto3", reason="needs boto3")
    return boto3.client(
        service, endpoint_url=url, region_name="us-east-1", aws_access_key_id=user, aws_secret_access_key=user
    )


def grant(iam: Any, s3: Any, bucket: str, elsewhere: str) -> None:
    """Give the roles their policies, and put objects where none of them leads."""
    for place, key in ((bucket, "private/a"), (elsewhere, "models/a")):
        s3.put_object(Bucket=place, Key=key, Body=b"secret")
    for name in ROLES:
        document = json.dumps(read(f"aws-{name}.json")).replace("MY-BUCKET", bucket)
        iam.put_user_policy(UserName=name, PolicyName=name, PolicyDocument=document)


@pytest.fixture(scope="module")
def moto_guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    pytest.importorskip("moto.server", reason="needs moto")

    def command(port: int, _: Path) -> tuple[Sequence[str], Mapping[str, str]]:
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], {}

    worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")  # the server's state is not to be shared
    with shared_process(f"moto-iam-{worker}", tmp_path_factory, command) as url:
        iam, s3 = client("iam", url, "root"), client("s3", url, "root")
        for bucket in ("a-bucket", "elsewhere"):
            s3.create_bucket(Bucket=bucket)
        keys = {}
        for name in (*ROLES, "nobody"):
            iam.create_user(UserName=name)
            key = iam.create_access_key(UserName=name)["AccessKey"]
            keys[name] = (key["AccessKeyId"], key["SecretAccessKey"])
        grant(iam, s3, "a-bucket", "elsewhere")
        # From here on it asks who is there.
        switch = urllib.request.Request(
            f"{url}/moto-api/reset-auth", data=b"0", method="POST", headers={"Content-Type": "text/plain"}
        )
        with urllib.request.urlopen(switch, timeout=60):
            yield Guarded(url, "a-bucket", "elsewhere", keys)


@pytest.fixture
def guarded(request: pytest.FixtureRequest) -> Guarded:
    if request.param == "moto":
        return request.getfixturevalue("moto_guarded")  # type: ignore[no-any-return]
    server = request.getfixturevalue("radosgw")
    bucket, elsewhere = server.make_bucket(), server.make_bucket()
    owner = [client(service, server.endpoint_url, "test") for service in ("iam", "s3")]
    grant(*owner, bucket, elsewhere)
    return Guarded(
        server.endpoint_url, bucket, elsewhere, {name: (name, name) for name in (*ROLES, "nobody")}
    )


@pytest.fixture
def open_as(guarded: Guarded, aws_environment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Opens a place with the keys of a user."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def open_(user: str, place: str = f"{guarded.bucket}/models") -> ObjectStore:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", guarded.keys[user][0])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", guarded.keys[user][1])
        return open_store(f"s3://{place}", endpoint_url=guarded.url, retries=1)

    return open_


@pytest.mark.parametrize("guarded", ["moto", "radosgw"], indirect=True)
def test_each_may_do_his_own_work_and_no_more(guarded: Guarded, open_as: Any, tmp_path: Path) -> None:
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
            f"{guarded.elsewhere}/models",
            f"{guarded.bucket}/private",
            *([f"{guarded.bucket}/models"] if user == "nobody" else []),
        ):
            name = "repository.json" if user == "nobody" and place == f"{guarded.bucket}/models" else "a"
            store = open_as(user, place)
            for forbidden in (
                lambda store=store, name=name: store.get(name),
                lambda store=store, name=name: store.create(name, b"x"),
                lambda store=store, name=name: store.delete(name),
            ):
                with pytest.raises(AuthenticationError):
                    forbidden()
