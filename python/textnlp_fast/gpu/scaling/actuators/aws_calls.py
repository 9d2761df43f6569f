"""EC2 and EC2 Auto Scaling through boto3, again where they throttle or do not answer."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any, Final

from textnlp_fast.errors import ProviderUnavailableError
from textnlp_fast.gpu.providers.aws_client import connected
from textnlp_fast.gpu.providers.aws_errors import client_meaning
from textnlp_fast.gpu.providers.calling import Patience
from textnlp_fast.gpu.scaling.actuators.groups import DRAINING_TAG, mark_of
from textnlp_fast.gpu.scaling.actuators.reconciling import AnswerLostError

__all__ = ["AwsCalls", "Machine"]

_PAGE: Final = 100


class Machine:
    """What EC2 says of an instance."""

    def __init__(self, described: dict[str, Any]) -> None:
        tags = {tag["Key"]: tag["Value"] for tag in described.get("Tags", ())}
        self.state = str(described.get("State", {}).get("Name", "pending"))
        self.marked_at_s = mark_of(tags.get(DRAINING_TAG))
        launched = described.get("LaunchTime")
        self.created_at_s = launched.timestamp() if isinstance(launched, datetime.datetime) else 0.0
        self.zone = described.get("Placement", {}).get("AvailabilityZone")
        self.spot = described.get("InstanceLifecycle") == "spot"
        self.address = described.get("PrivateIpAddress") or described.get("PublicIpAddress")

    @property
    def ending(self) -> bool:
        return self.state not in ("pending", "running")


class AwsCalls:
    """One region. Clients are made with the object; nothing is asked before the first call."""

    def __init__(
        self,
        region: str,
        *services: str,
        endpoint_url: str | None,
        profile: str | None,
        patience: Patience,
    ) -> None:
        self.region = region
        self.patience = patience
        self._clients = {
            service: connected(
                region,
                service=service,
                endpoint_url=endpoint_url,
                profile=profile,
                timeout_s=patience.timeout_s,
            )
            for service in services
        }

    def call(self, service: str, action: str, until: float, **parameters: Any) -> dict[str, Any]:
        """One action that may be repeated."""
        method = getattr(self._clients[service], action)
        answer: dict[str, Any] = self.patience.call(
            lambda _: method(**parameters),
            lambda error: client_meaning(error, action=action, region=self.region),
            until=until,
        )
        return answer

    def once(self, service: str, action: str, **parameters: Any) -> dict[str, Any]:
        """One action that must not be repeated. Raises AnswerLostError where it is not known what became of it."""
        try:
            answer: dict[str, Any] = getattr(self._clients[service], action)(**parameters)
        except Exception as error:
            meaning = client_meaning(error, action=action, region=self.region)
            if isinstance(meaning.error, ProviderUnavailableError):
                raise AnswerLostError(str(meaning.error.args[0])) from error
            raise meaning.error from error
        return answer

    def machines(self, instance_ids: Sequence[str], until: float) -> dict[str, Machine]:
        """Those of the instances that EC2 knows."""
        found: dict[str, Machine] = {}
        for begin in range(0, len(instance_ids), _PAGE):
            # A filter, for an id that is unknown makes a list of ids an error.
            some = [{"Name": "instance-id", "Values": list(instance_ids[begin : begin + _PAGE])}]
            token: dict[str, str] = {}
            while True:
                answer = self.call("ec2", "describe_instances", until, Filters=some, **token)
                for group in answer.get("Reservations", ()):
                    found |= {one["InstanceId"]: Machine(one) for one in group.get("Instances", ())}
                if not answer.get("NextToken"):
                    break
                token = {"NextToken": answer["NextToken"]}
        return found

    def mark(self, instance_id: str, at_s: float, until: float) -> None:
        tags = [{"Key": DRAINING_TAG, "Value": str(int(at_s))}]
        self.call("ec2", "create_tags", until, Resources=[instance_id], Tags=tags)
