"""EC2 as moto serves it, and before it a proxy that adds what moto leaves out and what EC2 does on bad days.

moto launches anew for a client token that it has seen, knows no capacity, no prices of spot, and shows everything at
once. The proxy keeps EC2's word on tokens (developer guide, "Ensuring idempotency in Amazon EC2 API requests": the same
parameters get the first answer again, others are refused, and a zone that was named has tokens of its own), gives out
`capacity` at most, and hides what is new for as many looks as it is told to. An instant fleet gets from it the zone, as
`price-capacity-optimized` chooses, and the errors of those that would not do, which moto knows nothing of.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlencode

from fakes.ec2_fleets import Override, chosen, fleet_answer, only, overrides_of
from faults.proxy import Answer, Fault, FaultProxy

__all__ = ["RUNNING", "UBUNTU", "Ec2Proxy", "error_document"]

UBUNTU = "ami-1e749f67"
"""An image that moto knows."""
RUNNING = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]
"""A filter of DescribeInstances: what has ended stays on moto's list."""

_XML = [("Content-Type", "text/xml")]


def error_document(code: str, message: str) -> bytes:
    """An error in the words of EC2's query protocol."""
    return (
        f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>"
        "<RequestID>0</RequestID></Response>"
    ).encode()


_LAUNCHED_FROM = "tag:aws:ec2launchtemplate:id"


class Ec2Proxy(FaultProxy):
    """In front of moto."""

    def __init__(self, upstream_url: str) -> None:
        super().__init__(upstream_url)
        self.capacity: int | None = None
        """Instances that a launch gets at most; None: as many as it asks for."""
        self.spot_price_usd = 0.2
        self.pools: dict[tuple[str, str], tuple[int, float]] = {}
        """For fleets: (type, zone) -> how many there are, and what one costs; without an entry as the two above say."""
        self.fleet_errors: list[tuple[str, str]] = []
        """What the next fleets are told (code, message) of each of their places, in an answer that is a good one."""
        self.hide_for = 0
        """Looks (describe, terminate, tag, stop, start) that new instances stay hidden from."""
        self.calls: list[str] = []
        self._tokens: dict[tuple[str, str], tuple[dict[str, str], Answer]] = {}
        self.zone_of: dict[str, str] = {}
        """Of subnets, for fleets that name them."""
        self._launched_from: dict[str, set[str]] = {}
        self._hidden: dict[str, int] = {}
        self._launching = threading.Lock()

    def refuse(
        self, action: str, code: str, status: int = 400, *, times: int = 1, message: str = "no"
    ) -> Fault:
        """EC2 answers the next calls of `action` with an error, and does nothing."""
        body = error_document(code, message)
        return self.inject(Fault("status", path=rf"\bAction={action}\b", times=times, code=status, body=body))

    def ask(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        form = dict(parse_qsl(body.decode(), keep_blank_values=True))
        action = form.get("Action", "")
        self.calls.append(action)
        if action == "RunInstances":
            with self._launching:
                return self._launch(method, path, headers, form)
        if action == "CreateFleet":
            with self._launching:
                return self._launch_fleet(method, path, headers, form)
        if action == "CreateLaunchTemplate" and form["LaunchTemplateData.ImageId"].startswith("resolve:ssm:"):
            body = urlencode({**form, "LaunchTemplateData.ImageId": UBUNTU}).encode()
            headers = {name: value for name, value in headers.items() if name.lower() != "content-length"}
        if action == "DescribeInstances" and _LAUNCHED_FROM in form.values():
            body = urlencode(self._by_instance(form)).encode()
            headers = {name: value for name, value in headers.items() if name.lower() != "content-length"}
        hidden = self._hidden_now(action)
        asked = {value for name, value in form.items() if re.match(r"(InstanceId|ResourceId)\.\d+$", name)}
        if asked & hidden:
            one = min(asked & hidden)
            message = f"The instance ID '{one}' does not exist"
            return 400, _XML, error_document("InvalidInstanceID.NotFound", message)
        if action in (
            "CreateTags",
            "StartInstances",
            "StopInstances",
        ):  # moto tags anything, and starts the dead
            states = self._states(headers, asked)
            if asked - set(states):
                message = f"The instance ID '{min(asked - set(states))}' does not exist"
                return 400, _XML, error_document("InvalidInstanceID.NotFound", message)
            ended = sorted(one for one, state in states.items() if state in ("shutting-down", "terminated"))
            if ended and action != "CreateTags":
                message = f"The instance '{ended[0]}' is not in a state from which it can be started."
                return 400, _XML, error_document("IncorrectInstanceState", message)
        status, answered, document = super().ask(method, path, headers, body)
        if hidden and action == "DescribeInstances":
            document = _without(document, hidden)
            answered = [one for one in answered if one[0].lower() != "content-length"]
        return status, answered, document

    def _launch(self, method: str, path: str, headers: Mapping[str, str], form: dict[str, str]) -> Answer:
        zone = form.get("Placement.AvailabilityZone") or form.get("SubnetId") or ""
        key = (form.get("ClientToken", ""), zone)
        if (answered := self._answered(key, form)) is not None:
            return answered
        most, least = int(form["MaxCount"]), int(form["MinCount"])
        granted = most if self.capacity is None else min(most, self.capacity)
        if granted < least:
            message = f"We currently do not have sufficient {form['InstanceType']} capacity."
            return 500, _XML, error_document("InsufficientInstanceCapacity", message)
        cap = form.get("InstanceMarketOptions.SpotOptions.MaxPrice")
        if cap is not None and float(cap) < self.spot_price_usd:
            message = f"Your Spot request price of {cap} is lower than the minimum of {self.spot_price_usd}."
            return 400, _XML, error_document("SpotMaxPriceTooLow", message)
        # moto launches MinCount, and resolves no names of images.
        changes = {"MinCount": str(granted), "MaxCount": str(granted)}
        if form.get("ImageId", "").startswith("resolve:ssm:"):
            changes["ImageId"] = UBUNTU
        sent = urlencode({**form, **changes}).encode()
        changed = {name: value for name, value in headers.items() if name.lower() != "content-length"}
        answer = super().ask(method, path, changed, sent)
        if answer[0] == 200:
            if key[0]:
                self._tokens[key] = (form, answer)
            self._hide(re.findall(rb"<instanceId>(i-[0-9a-f]+)</instanceId>", answer[2]))
        return answer

    def _answered(self, key: tuple[str, str], form: dict[str, str]) -> Answer | None:
        """What was answered to this token before."""
        if not key[0] or key not in self._tokens:
            return None
        before, answer = self._tokens[key]
        if before != form:
            message = "Arguments on this idempotent request are inconsistent with those of a previous one."
            return 400, _XML, error_document("IdempotentParameterMismatch", message)
        return answer

    def _hide(self, new: list[bytes]) -> None:
        if self.hide_for:
            self._hidden.update((one.decode(), self.hide_for) for one in new)

    def _launch_fleet(
        self, method: str, path: str, headers: Mapping[str, str], form: dict[str, str]
    ) -> Answer:
        """An answer with nothing launched belongs to its token, too: the fleet was made, and has no machine."""
        key = (form.get("ClientToken", ""), "of a fleet")
        if (answered := self._answered(key, form)) is not None:
            return answered
        wanted, least = (
            int(form[f"{name}TargetCapacity"])
            for name in ("TargetCapacitySpecification.Total", "SpotOptions.Min")
        )
        overrides = overrides_of(form)
        if self.fleet_errors:
            code, message = self.fleet_errors.pop(0)
            answer: Answer = 200, _XML, fleet_answer(form, [(one, code, message) for one in overrides])
        else:
            place, granted, errors = chosen(overrides, wanted, least, self._pool)
            if place is None:
                answer = 200, _XML, fleet_answer(form, errors)
            else:
                changed = {name: value for name, value in headers.items() if name.lower() != "content-length"}
                subnet = place.subnet or self._subnet_of(changed, place.zone)
                sent = urlencode(only(form, place, subnet, granted)).encode()
                status, _, document = super().ask(method, path, changed, sent)
                if status != 200:  # EC2 tells what is wrong with a template's content in a good answer
                    code, message = (
                        re.search(rf"<{name}>(.*?)</{name}>", document.decode()).group(1)  # type: ignore[union-attr]
                        for name in ("Code", "Message")
                    )
                    if code.startswith("InvalidLaunchTemplate"):
                        return status, _XML, document  # no fleet was made, and the token is free
                    answer = 200, _XML, fleet_answer(form, [(one, code, message) for one in overrides])
                else:
                    new = re.findall(rb">(i-[0-9a-f]+)<", document)
                    self._hide(new)
                    source = self._template_id(changed, form)
                    self._launched_from.setdefault(source, set()).update(one.decode() for one in new)
                    answer = 200, _XML, fleet_answer(form, errors, place, [one.decode() for one in new])
        if key[0]:
            self._tokens[key] = (form, answer)
        return answer

    def templates_of(self, instance_id: str) -> set[str]:
        """The launch templates of fleets that launched the instance."""
        return {
            form["LaunchTemplateConfigs.1.LaunchTemplateSpecification.LaunchTemplateName"]
            for form, answer in self._tokens.values()
            if form["Action"] == "CreateFleet" and instance_id.encode() in answer[2]
        }

    def _template_id(self, headers: Mapping[str, str], form: Mapping[str, str]) -> str:
        name = form["LaunchTemplateConfigs.1.LaunchTemplateSpecification.LaunchTemplateName"]
        asked = {"Action": "DescribeLaunchTemplates", "Version": "2016-11-15", "LaunchTemplateName.1": name}
        document = super().ask("POST", "/", headers, urlencode(asked).encode())[2].decode()
        found = re.search(r"<launchTemplateId>(.*?)</launchTemplateId>", document)
        return found.group(1) if found else ""

    def _by_instance(self, form: Mapping[str, str]) -> dict[str, str]:
        """moto's fleets put no tag on their machines that says which template they are of: they are named instead."""
        (name,) = (key for key, value in form.items() if value == _LAUNCHED_FROM)
        value = name.removesuffix(".Name") + ".Value."
        ids = [one for key in form if key.startswith(value) for one in self._launched_from.get(form[key], ())]
        kept = {key: text for key, text in form.items() if not key.startswith(value)}
        kept[name] = "instance-id"
        return kept | {f"{value}{place}": one for place, one in enumerate(sorted(ids) or ["i-0"], 1)}

    def _pool(self, override: Override) -> tuple[int, float]:
        usual = (10**6 if self.capacity is None else self.capacity, self.spot_price_usd)
        zone = override.zone or self.zone_of[override.subnet or ""]
        return self.pools.get((override.instance_type, zone), usual)

    def _subnet_of(self, headers: Mapping[str, str], zone: str) -> str:
        """The default VPC's subnet in the zone."""
        form = {"Action": "DescribeSubnets", "Version": "2016-11-15", "Filter.1.Name": "availability-zone"}
        form |= {"Filter.1.Value.1": zone}
        document = super().ask("POST", "/", headers, urlencode(form).encode())[2].decode()
        found = re.search(r"<subnetId>(subnet-[0-9a-f]+)</subnetId>", document)
        assert found is not None, document
        return found.group(1)

    def _states(self, headers: Mapping[str, str], instances: set[str]) -> dict[str, str]:
        """Those of the instances that moto knows, and their states."""
        form = {"Action": "DescribeInstances", "Version": "2016-11-15", "Filter.1.Name": "instance-id"}
        form |= {f"Filter.1.Value.{place}": one for place, one in enumerate(sorted(instances), 1)}
        changed = {name: value for name, value in headers.items() if name.lower() != "content-length"}
        document = super().ask("POST", "/", changed, urlencode(form).encode())[2].decode()
        found = {}
        for one in instances:
            _, _, after = document.partition(f"<instanceId>{one}</instanceId>")
            state = re.search(r"<instanceState>.*?<name>(.*?)</name>", after, re.DOTALL)
            if state is not None:
                found[one] = state.group(1)
        return found

    def _hidden_now(self, action: str) -> set[str]:
        if not self._hidden or not action:
            return set()
        now = set(self._hidden)
        self._hidden = {one: left - 1 for one, left in self._hidden.items() if left > 1}
        return now


def _without(document: bytes, hidden: set[str]) -> bytes:
    """The answer of DescribeInstances without reservations that hold a hidden instance."""
    start, end = document.find(b"<reservationSet>"), document.rfind(b"</reservationSet>")
    if start < 0 or end < 0:
        return document
    start += len(b"<reservationSet>")
    # Items nest; a reservation begins with its id.
    parts = re.split(rb"(?=<item>\s*<reservationId>)", document[start:end])
    kept = [part for part in parts if not any(one.encode() in part for one in hidden)]
    return document[:start] + b"".join(kept) + document[end:]
