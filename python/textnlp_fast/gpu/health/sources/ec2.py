"""What EC2 says of instances: their state, its status checks, and events that it has planned.

DescribeInstanceStatus, asked by filter: by id, EC2 refuses all of them for one that it does not know.
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstanceStatus.html
"""

from __future__ import annotations

import asyncio
import datetime
import importlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from textnlp_fast.errors import (
    AuthenticationError,
    InvalidInputError,
    MissingPackageError,
    ProviderUnavailableError,
)
from textnlp_fast.gpu.health.engine import Fact
from textnlp_fast.gpu.health.facts import Event
from textnlp_fast.gpu.providers.aws_errors import translated

__all__ = ["Ec2Source", "ec2_client", "events_of"]

_PAGE: Final = 100
_MOST_PAGES: Final = 100
_CHECKS: Final = {"SystemStatus": "system", "InstanceStatus": "instance", "AttachedEbsStatus": "ebs"}
_RUNS: Final = frozenset({"pending", "running"})


def ec2_client(
    region: str | None,
    *,
    endpoint_url: str | None = None,
    profile: str | None = None,
    timeout_s: float = 10.0,
) -> Any:
    """boto3's client, with bounded tries.

    Raises MissingPackageError without boto3, InvalidInputError without a region.
    """
    try:
        boto3 = importlib.import_module("boto3")
        config = importlib.import_module("botocore.config")
        errors = importlib.import_module("botocore.exceptions")
    except ImportError as error:
        raise MissingPackageError(
            "watching EC2 needs boto3", hint="Run: pip install 'textnlp-fast[aws]'"
        ) from error
    settings = config.Config(
        connect_timeout=timeout_s, read_timeout=timeout_s, retries={"max_attempts": 2, "mode": "standard"}
    )
    try:
        session = boto3.Session(profile_name=profile, region_name=region)
        return session.client("ec2", endpoint_url=endpoint_url, config=settings)
    except errors.NoRegionError:
        raise InvalidInputError(
            "no AWS region is set",
            hint="Name one: --region on the command line, the argument region in Python, or AWS_REGION.",
        ) from None
    except (errors.BotoCoreError, ValueError) as error:
        raise InvalidInputError(f"EC2 cannot be asked: {error}") from error


class Ec2Source:
    """Asks EC2 about instances of one region, all of them together."""

    reads_gpus = False

    def __init__(
        self,
        instance_ids: Sequence[str],
        client: Any,
        *,
        region: str = "",
        interval_s: float = 30.0,
        timeout_s: float = 60.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = f"ec2 {region}".strip()
        self.machines = tuple(instance_ids)
        self.interval_s = interval_s
        self.timeout_s = timeout_s
        self._client = client
        self._region = region or str(client.meta.region_name)
        self._clock = clock
        self._planned: dict[str, set[str]] = {}

    async def read(self) -> Sequence[Fact]:
        # boto3 blocks; its own timeouts end the thread where the loop has given up on it.
        return await asyncio.to_thread(self._read)

    async def close(self) -> None:
        await asyncio.to_thread(self._client.close)

    def _read(self) -> list[Fact]:
        errors = importlib.import_module("botocore.exceptions")
        statuses: dict[str, Mapping[str, Any]] = {}
        try:
            for start in range(0, len(self.machines), _PAGE):
                for status in self._statuses(list(self.machines[start : start + _PAGE])):
                    statuses[status["InstanceId"]] = status
        except errors.ClientError as error:
            raise translated(error, action="describe_instance_status", region=self._region) from error
        except (errors.NoCredentialsError, errors.PartialCredentialsError) as error:
            raise AuthenticationError(
                "no AWS credentials found", hint="Run `aws configure` or `aws sso login`, or use a role."
            ) from error
        except (errors.TokenRetrievalError, errors.CredentialRetrievalError) as error:
            raise AuthenticationError(f"AWS credentials cannot be got: {error}") from error
        except errors.BotoCoreError as error:
            raise ProviderUnavailableError(f"EC2 did not answer: {error}"[:300]) from error
        facts: list[Fact] = []
        for machine in self.machines:
            before = self._planned.setdefault(machine, set())
            facts += events_of(machine, statuses.get(machine), self._clock(), before)
        return facts

    def _statuses(self, ids: list[str]) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = []
        token: dict[str, str] = {}
        for _ in range(_MOST_PAGES):
            answer = self._client.describe_instance_status(
                Filters=[{"Name": "instance-id", "Values": ids}], IncludeAllInstances=True, **token
            )
            # What a filter does not hold back is looked through here.
            found += [one for one in answer.get("InstanceStatuses", ()) if one.get("InstanceId") in ids]
            if not answer.get("NextToken"):
                break
            token = {"NextToken": answer["NextToken"]}
        return found


def events_of(machine: str, status: Mapping[str, Any] | None, at_s: float, planned: set[str]) -> list[Event]:
    """What one instance's status tells; None: EC2 knows no such instance. `planned` is what was told before."""

    def check(name: str, text: str, *, good: bool) -> Event:
        details = {"check": name} | ({"over": "true"} if good else {})
        return Event(
            machine=machine, kind="status-check", at_s=at_s, text=text, source="aws", details=details
        )

    missing = check("missing", f"EC2 has no instance {machine} in this region", good=status is not None)
    if status is None:
        return [missing]
    events = [missing]
    state = str(status.get("InstanceState", {}).get("Name", "unknown"))
    events.append(check("state", f"the instance is {state}", good=state in _RUNS))
    for key, name in _CHECKS.items():
        said = str((status.get(key) or {}).get("Status", "not-applicable"))
        failed = [
            f"{one.get('Name')} {one.get('Status')}"
            + (
                f" since {one['ImpairedSince']:%Y-%m-%d %H:%M} UTC"
                if _is_time(one.get("ImpairedSince"))
                else ""
            )
            for one in (status.get(key) or {}).get("Details", ())
            if one.get("Status") == "failed"
        ]
        if said == "impaired":
            events.append(check(name, "; ".join(failed) or f"{name} status is impaired", good=False))
        elif said in ("ok", "not-applicable"):
            events.append(check(name, said, good=True))
        # `initializing` and `insufficient-data` say neither.
    events += _planned(machine, status, at_s, planned)
    return events


def _planned(machine: str, status: Mapping[str, Any], at_s: float, planned: set[str]) -> list[Event]:
    events: list[Event] = []
    now: set[str] = set()
    for one in status.get("Events", ()):
        description = str(one.get("Description", ""))
        identity = str(one.get("InstanceEventId") or one.get("Code", ""))
        if description.startswith(("[Completed]", "[Canceled]")):
            continue
        now.add(identity)
        when = one.get("NotBefore")
        begins = f", not before {when:%Y-%m-%d %H:%M} UTC" if _is_time(when) else ""
        text = f"{one.get('Code')}{begins}: {description}"
        events.append(_maintenance(machine, at_s, identity, text))
    events += [_maintenance(machine, at_s, gone, "", over=True) for gone in planned - now]
    planned.clear()
    planned |= now
    return events


def _maintenance(machine: str, at_s: float, identity: str, text: str, *, over: bool = False) -> Event:
    details = {"id": identity} | ({"over": "true"} if over else {})
    return Event(machine=machine, kind="maintenance", at_s=at_s, text=text, source="aws", details=details)


def _is_time(value: object) -> bool:
    return isinstance(value, datetime.datetime)
