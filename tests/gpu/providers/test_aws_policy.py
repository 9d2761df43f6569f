"""The fleet's policy, on moto that asks who is there.

moto knows actions and not conditions on tags, so the statements with conditions are tried without them: that the policy
names the actions that are needed, and none besides, is tested; that it keeps other machines out is AWS's to do.
"""

from __future__ import annotations

import datetime
import json
import os
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes.ec2 import UBUNTU
from servers.process import shared_process
from textnlp_fast.errors import AuthenticationError
from textnlp_fast.gpu.providers.aws import AwsProvider
from textnlp_fast.gpu.providers.aws_templates import Templates
from textnlp_fast.gpu.providers.contract import OWNER_TAG, LaunchRequest
from textnlp_fast.gpu.types import Market

_POLICY = Path(__file__).parents[3] / "docs" / "guide" / "policies" / "aws-fleet.json"
_NOT_MOTOS = {"ssm:GetParameters"}  # EC2 looks the image up in its caller's name; moto does not


def _document() -> Any:
    return json.loads(_POLICY.read_text(encoding="utf-8"))


def _actions() -> set[str]:
    found: set[str] = set()
    for statement in _document()["Statement"]:
        action = statement["Action"]
        found |= {action} if isinstance(action, str) else set(action)
    return found


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, tuple[str, str]]]]:
    boto3 = pytest.importorskip("boto3")
    pytest.importorskip("moto.server")

    def command(port: int, _: Path) -> tuple[Sequence[str], Mapping[str, str]]:
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], {}

    worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")
    with shared_process(f"moto-fleet-iam-{worker}", tmp_path_factory, command) as url:
        iam = boto3.client(
            "iam", endpoint_url=url, region_name="us-east-1", aws_access_key_id="r", aws_secret_access_key="r"
        )
        users: dict[str, set[str]] = {"fleet": _actions(), "nobody": set()}
        users |= {
            f"no-{action.partition(':')[2]}": _actions() - {action} for action in _actions() - _NOT_MOTOS
        }
        keys = {}
        for name, actions in users.items():
            iam.create_user(UserName=name)
            if actions:
                statement = {"Effect": "Allow", "Action": sorted(actions), "Resource": "*"}
                document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
                iam.put_user_policy(UserName=name, PolicyName=name, PolicyDocument=document)
            key = iam.create_access_key(UserName=name)["AccessKey"]
            keys[name] = (key["AccessKeyId"], key["SecretAccessKey"])
        switch = urllib.request.Request(
            f"{url}/moto-api/reset-auth", data=b"0", method="POST", headers={"Content-Type": "text/plain"}
        )
        with urllib.request.urlopen(switch, timeout=60):
            yield url, keys


@pytest.fixture
def provider_of(
    guarded: tuple[str, dict[str, tuple[str, str]]], aws_environment: None, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], AwsProvider]:
    url, keys = guarded

    def make(user: str) -> AwsProvider:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys[user][0])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys[user][1])
        return AwsProvider("us-east-1", endpoint_url=url, image=UBUNTU)

    return make


def _everything(provider: AwsProvider, launch_id: str) -> None:
    assert provider.zones("g4dn.xlarge")
    tags = {OWNER_TAG: "fleet-a"}
    request = LaunchRequest(launch_id=launch_id, instance_type="g4dn.xlarge", tags=tags)
    ids = [provider.launch(request).instances[0].instance_id]
    assert provider.describe(ids)
    provider.tag(ids, {"drain": "yes"})
    provider.stop(ids)
    provider.start(ids)
    provider.terminate(ids)
    spot = replace(request, launch_id=f"s-{launch_id}"[:36], market=Market.SPOT)
    (spotted,) = provider.launch(spot).instances
    provider.terminate([spotted.instance_id])
    Templates(provider._call, provider._pages, kept=-datetime.timedelta(minutes=1)).prune("fleet-a")


def test_the_policy_is_enough(provider_of: Callable[[str], AwsProvider]) -> None:
    _everything(provider_of("fleet"), "enough")


@pytest.mark.parametrize("action", sorted(_actions() - _NOT_MOTOS))
def test_the_policy_names_nothing_that_is_not_needed(
    provider_of: Callable[[str], AwsProvider], action: str
) -> None:
    name = action.partition(":")[2]
    with pytest.raises(AuthenticationError, match=r"aws-fleet\.json"):
        _everything(provider_of(f"no-{name}"), f"no-{name}".lower()[:36])


def test_who_has_no_policy_may_do_nothing(provider_of: Callable[[str], AwsProvider]) -> None:
    with pytest.raises(AuthenticationError):
        provider_of("nobody").list_instances()


def test_launches_and_ends_are_bound_to_the_fleets_tag() -> None:
    by_sid = {one["Sid"]: one for one in _document()["Statement"]}
    launch = by_sid["LaunchWithTheFleetsTag"]["Condition"]["StringEquals"]
    assert launch == {f"aws:RequestTag/{OWNER_TAG}": "MY-FLEET"}
    template = by_sid["LaunchFromTheFleetsTemplates"]["Condition"]["StringEquals"]
    assert template == {f"aws:ResourceTag/{OWNER_TAG}": "MY-FLEET"}
    change = by_sid["StopStartEndAndTagTheFleetsOwn"]["Condition"]["StringEquals"]
    assert change == {f"aws:ResourceTag/{OWNER_TAG}": "MY-FLEET"}
    unconditional = {"LookAtMachines", "LaunchFromAndInto", "FindTheImageWithNvidiasDriver"}
    assert all("Condition" in one for sid, one in by_sid.items() if sid not in unconditional)
    for resource in ("instance/", "launch-template/"):
        assert not any(resource in one for one in by_sid["LaunchFromAndInto"]["Resource"])
