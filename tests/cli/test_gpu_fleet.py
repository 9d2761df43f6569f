"""The verbs of the fleet, on moto and on GPUs that the mock of the driver shows."""

from __future__ import annotations

import datetime
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from cli.conftest import Run
from fakes.azure_arm import ArmFake
from fakes.azure_arm.server import GROUP, SUBSCRIPTION
from fakes.ec2 import Ec2Proxy
from gpu.providers.aws_harness import AwsHarness
from gpu.providers.azure_harness import StaticToken, arm_sizes
from textnlp_fast.cli.gpu.provider_options import parsed_options
from textnlp_fast.gpu.providers.contract import InstanceState
from textnlp_fast.gpu.providers.local import LocalProvider
from textnlp_fast.gpu.resources.journal import Journal
from textnlp_fast.gpu.resources.records import InstanceRecord, LaunchRecord, Period, Phase
from textnlp_fast.gpu.types import Market


@pytest.fixture
def aws(ec2_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsHarness]:
    with Ec2Proxy(ec2_server) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", proxy.endpoint_url)
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setenv("TEXTNLP_FAST_FLEET_OWNER", "fleet-a")
        yield AwsHarness(ec2_server, proxy)


def test_a_machines_life(aws: AwsHarness, run: Run) -> None:
    words = ("gpu", "launch", "--gpu", "t4", "--in", "aws:us-east-1", "--market", "spot-first")
    planned = run(*words, "--dry-run", "--json")
    assert planned.code == 0, planned.err
    assert aws.truth() == {}
    first = planned.document["candidates"][0]
    assert (first["market"], first["instance_type"]) == ("spot", "g4dn.xlarge")
    shown = run(*words, "--dry-run")
    assert "nothing was launched" in shown.out

    launched = run(*words, "--yes", "--json", "--tag", "team=nlp", "--key", "train")
    assert launched.code == 0, launched.err
    (one,) = launched.document["instances"]
    assert set(aws.truth()) == {one["instance_id"]}
    assert one["usd_per_hour"] == first["usd_per_hour"]
    assert one["tags"]["team"] == "nlp"
    again = run(*words, "--yes", "--json", "--tag", "team=nlp", "--key", "train")
    assert [it["instance_id"] for it in again.document["instances"]] == [one["instance_id"]]

    listed = run("gpu", "list", "--json")
    assert [it["instance_id"] for it in listed.document["instances"]] == [one["instance_id"]]
    assert one["instance_id"] in run("gpu", "list").out
    assert one["instance_id"] in run("gpu", "list", "--offline").out
    costs = run("gpu", "costs", "--json").document
    assert costs["total"]["running"] == 1
    assert costs["total"]["usd_per_hour"] == one["usd_per_hour"]
    assert "saved by spot" in run("gpu", "costs").out

    ended = run("gpu", "terminate", one["instance_id"], "--yes", "--json")
    assert ended.document == {"terminated": [one["instance_id"]]}
    assert aws.truth() == {}
    assert (
        "nothing to end" in run("gpu", "terminate", one["instance_id"], "--yes", "--in", "aws:us-east-1").out
    )
    assert run("gpu", "list", "--in", "aws:us-east-1").out == "no machines\n"


def test_a_key_says_what_it_holds(aws: AwsHarness, run: Run) -> None:
    words = ("gpu", "launch", "--gpu", "t4", "--key", "a", "--yes")
    first = run(*words, "--in", "aws:us-east-1", "--market", "on-demand", "--instances", 2)
    assert first.code == 0, first.err
    here = (*words, "--in", "aws:us-east-1")
    refused = run(*here, "--market", "spot", "--max-usd-per-hour", "0.25")
    assert (refused.code, refused.out) == (7, "")
    assert "on-demand, not spot" in refused.err
    elsewhere = run(*words, "--in", "aws:us-west-2")
    assert elsewhere.code == 7
    assert "us-east-1" in elsewhere.err
    fewer = run(*here, "--json")
    assert fewer.code == 0
    assert len(fewer.document["instances"]) == 2
    assert "holds 2 machines, and 1 was asked for" in fewer.err
    assert len(aws.truth()) == 2


def test_nothing_is_spent_without_a_word(aws: AwsHarness, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("gpu", "launch", "--gpu", "t4", "--in", "aws:us-east-1")
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    outcome = run(*words)
    assert outcome.code == 2
    assert "--yes" in outcome.err

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    assert run(*words).code == 130
    assert aws.truth() == {}
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    outcome = run(*words)
    assert outcome.code == 0
    assert "an hour each" in outcome.err
    assert len(aws.truth()) == 1


def test_caps_budgets_and_capacity_have_their_exit_codes(
    aws: AwsHarness, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("gpu", "launch", "--gpu", "t4", "--in", "aws:us-east-1", "--yes")
    assert run(*words, "--max-usd-per-hour", "0.01").code == 15
    monkeypatch.setenv("TEXTNLP_FAST_GPU_BUDGET_USD_PER_HOUR", "0.1")
    assert run(*words).code == 15
    dry = run(*words, "--dry-run")
    assert (dry.code, dry.out) == (15, "")
    assert "over the budget of 0.10 an hour" in dry.err
    monkeypatch.setenv("TEXTNLP_FAST_GPU_BUDGET_USD_PER_HOUR", "0.6")
    dry = run(*words, "--dry-run")
    assert dry.code == 0
    assert "not tried: on-demand g4dn.12xlarge" in dry.out
    assert "over the budget of 0.60 an hour" in dry.out
    monkeypatch.delenv("TEXTNLP_FAST_GPU_BUDGET_USD_PER_HOUR")
    aws.no_capacity()
    outcome = run(*words, "--type", "g4dn.xlarge")
    assert outcome.code == 14
    assert "InsufficientInstanceCapacity" in outcome.err
    assert "tried last: CapacityError" in run(*words, "--type", "g4dn.xlarge", "--dry-run").out
    assert run("gpu", "launch", "--gpu", "t4", "--yes", "--in", "aws").code == 2
    assert run("gpu", "launch", "--gpu", "t5", "--yes", "--in", "aws:us-east-1").code == 2
    assert run("gpu", "launch", "--gpu", "t4", "--yes", "--in", "aws:us-east-9").code == 2
    slip = run("gpu", "launch", "--gpu", "t4", "--yes", "--in", "aws:us-east-1", "--type", "g4dn.xlrage")
    assert slip.code == 2
    assert "Did you mean g4dn.xlarge?" in slip.err
    assert run("gpu", "launch", "--gpu", "b300", "--yes", "--in", "aws:ap-south-2").code == 13
    assert aws.truth() == {}


def test_orphans(aws: AwsHarness, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("gpu", "launch", "--gpu", "t4", "--in", "aws:us-east-1", "--yes", "--json")
    (lost,) = run(*words).document["instances"]
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
    (stray,) = run(*words).document["instances"]
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    aws.ec2.terminate_instances(InstanceIds=[lost["instance_id"]])
    found = run("gpu", "orphans", "--json")
    assert [one["instance_id"] for one in found.document["strays"]] == [stray["instance_id"]]
    assert [one["instance_id"] for one in found.document["lost"]] == [lost["instance_id"]]
    assert set(aws.truth()) == {stray["instance_id"]}
    outcome = run("gpu", "orphans", "--in", "aws:us-east-1", "--terminate", "--yes")
    assert stray["instance_id"] in outcome.out
    assert aws.truth() == {}
    assert run("gpu", "orphans", "--in", "aws:us-east-1").out == "none\n"


def test_a_cloud_that_does_not_answer_is_told_of(aws: AwsHarness, run: Run) -> None:
    (one,) = run("gpu", "launch", "--gpu", "t4", "--in", "aws:us-east-1", "--yes", "--json").document[
        "instances"
    ]
    aws.proxy.refuse(r"\w+", "ExpiredToken", times=1000)
    outcome = run("gpu", "list")
    assert outcome.code == 9
    assert one["instance_id"] in outcome.out
    assert "did not answer" in outcome.err


def test_a_launch_that_was_refused_before_it_was_asked_leaves_no_place(
    aws: AwsHarness, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Google's has no image and no credentials: nothing was asked of it, so it need not be asked what became of it."""
    monkeypatch.setenv("GCP_PROJECT_ID", "some-project")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent/key.json")
    (one,) = run("gpu", "launch", "--gpu", "t4", "--in", "aws:us-east-1", "--yes", "--json").document[
        "instances"
    ]
    words = ("gpu", "launch", "--gpu", "t4", "--in", "gcp:us-central1", "--yes")
    assert run(*words).code == 2  # no image
    refused = run(*words, "--image", "projects/p/global/images/i")
    assert refused.code == 9, refused.err  # no credentials
    listed = run("gpu", "list")
    assert (listed.code, listed.err) == (0, "")
    assert one["instance_id"] in listed.out
    # Named, it is looked at, and does not answer.
    assert "gcp in us-central1" in run("gpu", "list", "--in", "gcp:us-central1").err


def test_a_launch_without_a_login_to_aws_leaves_no_place_and_blames_none(
    aws: AwsHarness, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "nothing"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for market in ("on-demand", "spot"):
        refused = run("gpu", "launch", "--gpu", "t4", "--market", market, "--in", "aws:us-east-1", "--yes")
        assert refused.code == 9, refused.err
        assert "aws configure" in refused.err
    monkeypatch.delenv("AWS_REGION", raising=False)
    listed = run("gpu", "list")
    assert (listed.code, listed.out) == (2, ""), listed.err  # there is no place to look at
    assert "no place was named" in listed.err
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    plan = run("gpu", "launch", "--gpu", "t4", "--in", "aws:us-east-1", "--dry-run", "--json").document
    assert [one["failure"] for one in plan["candidates"]] == [None] * len(plan["candidates"])


@pytest.fixture
def lost_place(aws: AwsHarness) -> str:
    """A machine in a place of a provider that this environment has not: its package is gone."""
    clock = datetime.datetime(2026, 11, 1, tzinfo=datetime.timezone.utc)
    period = Period(began=clock)
    machine = InstanceRecord(
        instance_id="elsewhere/m-1",
        zone=None,
        state=InstanceState.RUNNING,
        wanted=InstanceState.RUNNING,
        periods=(period,),
    )
    record = LaunchRecord(
        acquisition="a00",
        number=0,
        owner="fleet-a",
        phase=Phase.LAUNCHED,
        provider="gone-cloud",
        region="elsewhere",
        zone=None,
        market=Market.ON_DEMAND,
        instance_type="x",
        gpu_type="nvidia-t4",
        gpu_count=1,
        count=1,
        min_count=1,
        usd_per_hour=Decimal(1),
        on_demand_usd_per_hour=None,
        max_usd_per_hour=None,
        image=None,
        disk_gib=100,
        user_data_digest=None,
        created_at=clock,
        process="p",
        instances=(machine,),
    )
    assert Journal.open().create(record)
    return machine.instance_id


def test_a_place_that_cannot_be_asked_leaves_the_others_as_they_are(
    aws: AwsHarness, run: Run, lost_place: str
) -> None:
    (one,) = run("gpu", "launch", "--gpu", "t4", "--in", "aws:us-east-1", "--yes", "--json").document[
        "instances"
    ]
    for words in (("list",), ("list", "--in", "aws:us-east-1")):
        listed = run("gpu", *words)
        assert listed.code == 2
        assert "gone-cloud in elsewhere cannot be asked: there is no provider" in listed.err
        assert one["instance_id"] in listed.out and lost_place in listed.out
    assert run("gpu", "orphans").out == "none\n"
    assert run("gpu", "terminate", lost_place, "--yes", "--json").document == {"terminated": []}
    ended = run("gpu", "terminate", "--all", "--yes", "--json")
    assert ended.code == 2
    assert "gone-cloud in elsewhere" in ended.err
    assert ended.document == {"terminated": [one["instance_id"]]}
    assert aws.truth() == {}
    assert [it["instance_id"] for it in run("gpu", "list", "--json").document["instances"]] == [lost_place]


@pytest.mark.parametrize(("name", "value"), [("AWS_PROFILE", "nope"), ("AWS_REGION", "mars")])
def test_a_setting_that_is_wrong_does_not_hide_the_machines(
    aws: AwsHarness, run: Run, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    words = ("gpu", "launch", "--gpu", "t4", "--in", "aws:us-east-1", "--yes", "--json")
    (one,) = run(*words).document["instances"]
    monkeypatch.setenv(name, value)
    listed = run("gpu", "list")
    assert listed.code != 0
    assert value in listed.err
    assert one["instance_id"] in listed.out
    named = run("gpu", "list", "--in", "aws:mars")
    assert named.out == ""  # whoever names a place is told that it is wrong
    assert "bucket" not in named.err
    if name == "AWS_PROFILE":
        assert "list-profiles" in run("gpu", "list", "--in", "aws:us-east-1").err


def test_no_place_was_named(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("AWS_REGION", raising=False)
    for verb in (("launch", "--gpu", "t4"), ("list",), ("orphans",), ("terminate", "--all")):
        outcome = run("gpu", *verb)
        assert outcome.code == 2
        assert "--in" in outcome.err


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("subnet=a/b", "PROVIDER.NAME"),
        ("azure.subnet", "KEY=VALUE"),
        ("gcp.network=n", "--in does not name"),
        ("azure.subnett=a/b", "Did you mean 'subnet'"),
        ("azure.credential=x", "takes no option"),
        ("azure.price_of=x", "takes no option"),
        ("azure.public_ip=yes", "neither true nor false"),
        ("azure.ssh_public_key=@/nonexistent/key", "cannot be read"),
    ],
)
def test_options_that_no_provider_takes(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, said: str
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    outcome = run("gpu", "launch", "--gpu", "t4", "--in", "azure:eastus", "--yes", "--option", option)
    assert outcome.code == 2
    assert said in outcome.err


def test_options_as_the_providers_take_them(tmp_path: Path) -> None:
    (tmp_path / "key.pub").write_text("ssh-ed25519 AAAA me\n")
    texts = [
        "azure.subnet=net/default",
        f"azure.ssh-public-key=@{tmp_path}/key.pub",
        "azure.public_ip=true",
        "aws.security_groups=sg-1,sg-2",
    ]
    assert parsed_options(texts, ["azure", "aws"]) == {
        "azure": {"subnet": "net/default", "ssh_public_key": "ssh-ed25519 AAAA me", "public_ip": True},
        "aws": {"security_groups": ["sg-1", "sg-2"]},
    }


def test_a_machine_of_azures(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it from the command line, on the fake of Azure; only the login is put there."""
    identity = pytest.importorskip("azure.identity")
    monkeypatch.setattr(identity, "DefaultAzureCredential", lambda **_: StaticToken("good"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("AZURE_RESOURCE_GROUP", GROUP)
    monkeypatch.setenv("AZURE_SUBSCRIPTION_ID", SUBSCRIPTION)
    (tmp_path / "key.pub").write_text("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE test\n")
    words = ("gpu", "launch", "--gpu", "t4", "--in", "azure:westeurope", "--yes", "--json")
    with ArmFake(arm_sizes()) as fake:
        there = ("--option", f"azure.endpoint_url={fake.endpoint_url}")
        without = run(*words, *there)
        assert without.code == 2
        assert "TEXTNLP_FAST_AZURE_SUBNET=" in without.err
        assert "--option azure.subnet=" in without.err
        assert "a subnet and an SSH key" in without.document["error"]
        launched = run(
            *words,
            *there,
            "--option",
            "azure.subnet=network/gpu",
            "--option",
            f"azure.ssh_public_key=@{tmp_path}/key.pub",
        )
        assert launched.code == 0, launched.err
        (one,) = launched.document["instances"]
        assert [it.name for it in fake.machines()] == [one["instance_id"]]


def test_a_machine_without_gpus_says_so(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setitem(LocalProvider.__init__.__kwdefaults__, "inventory", list)
    outcome = run("gpu", "launch", "--gpu", "t4", "--in", "local", "--yes")
    assert outcome.code == 13
    assert "this machine has no GPU" in outcome.err
    assert "gpu doctor" in outcome.err
    assert "region" not in outcome.err


def test_a_journal_that_is_not_there(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXTNLP_FAST_FLEET_STATE", str(tmp_path / "typo"))
    for words in (("list", "--offline"), ("list", "--in", "local")):
        outcome = run("gpu", *words)
        assert outcome.out == "no machines\n"
        assert "typo" in outcome.err
    (tmp_path / "typo").write_text("a file")
    outcome = run("gpu", "list", "--offline")
    assert (outcome.code, outcome.out) == (2, "")
    assert "no folder" in outcome.err


def test_azure_without_a_login_says_it_once(tmp_path: Path) -> None:
    """In a process of its own: what Python prints of a log that nobody hears shows there only."""
    pytest.importorskip("azure.identity")
    environment = {
        "PATH": str(tmp_path),
        "HOME": str(tmp_path),
        "AZURE_RESOURCE_GROUP": "group",
        "AZURE_SUBSCRIPTION_ID": "00000000-0000-0000-0000-000000000000",
        "AZURE_TOKEN_CREDENTIALS": "AzureCliCredential",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    words = ["gpu", "list", "--in", "azure:westeurope"]
    done = subprocess.run(
        [sys.executable, "-c", "from textnlp_fast.cli import main; main()", *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 9, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
