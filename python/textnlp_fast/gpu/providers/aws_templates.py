"""Launch templates of fleets: made by whoever needs one, removed by whoever makes a new one long after.

A template is named by its content, so it is the same for all launches of that content, and may be removed at any time:
it is made again. Each carries the fleet's owner and what it is for; others' are never touched.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from textnlp_fast.errors import ConflictError, TextnlpFastError
from textnlp_fast.gpu.providers.aws_errors import MissingTemplateError
from textnlp_fast.gpu.providers.contract import OWNER_TAG, LaunchRequest

__all__ = ["PURPOSE_TAG", "TEMPLATE_PREFIX", "Templates", "template"]

_log = logging.getLogger(__name__)

TEMPLATE_PREFIX: Final = "textnlp-fast-"
PURPOSE_TAG: Final = "textnlp-fast-purpose"
"""Says that a template is an instant fleet's, which needs it for one request only: scaling groups keep theirs."""
_PURPOSE: Final = "instant-fleet"
_MADE_BY: Final = "aws:ec2launchtemplate:id"
"""EC2's own tag on what it launched from a template."""
_KEPT: Final = datetime.timedelta(days=7)
_PAGE: Final = 200


def template(
    request: LaunchRequest, *, image: str, root_device: str, tags: Mapping[str, str], extra: Mapping[str, Any]
) -> dict[str, Any]:
    """The parameters of CreateLaunchTemplate. Of the tags it carries the owner's alone, and is not another owner's."""
    disk = {"VolumeSize": request.disk_gib, "VolumeType": "gp3", "DeleteOnTermination": True}
    data: dict[str, Any] = {
        **extra,
        "ImageId": image,
        "BlockDeviceMappings": [{"DeviceName": root_device, "Ebs": disk}],
        # As for RunInstances: who can be talked into fetching a URL must not hand out the machine's role.
        "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 2},
    }
    owner = tags[OWNER_TAG]
    digest = hashlib.sha256(json.dumps([owner, data], sort_keys=True).encode()).hexdigest()
    own = [{"Key": OWNER_TAG, "Value": owner}, {"Key": PURPOSE_TAG, "Value": _PURPOSE}]
    return {
        "LaunchTemplateName": f"{TEMPLATE_PREFIX}{digest[:40]}",
        "LaunchTemplateData": data,
        "TagSpecifications": [{"ResourceType": "launch-template", "Tags": own}],
    }


class Templates:
    """Those of one region, through the provider's `call` and `pages`."""

    def __init__(
        self,
        call: Callable[..., dict[str, Any]],
        pages: Callable[..., list[Any]],
        *,
        kept: datetime.timedelta = _KEPT,
    ) -> None:
        self._call = call
        self._pages = pages
        self._kept = kept
        # Made or found by this object, by name: not asked for again.
        self._made: set[str] = set()
        self._lock = threading.Lock()

    def make(self, template: Mapping[str, Any]) -> None:
        """Makes a template unless it is there. A new one is the occasion to remove old ones of its owner."""
        name = template["LaunchTemplateName"]
        with self._lock:
            if name in self._made:
                return
        try:
            self._call("create_launch_template", **template)
        except ConflictError:
            new = False  # Where there is one of the name it is the one, for its name is its content.
        else:
            new = True
        with self._lock:
            self._made.add(name)
        if new:
            self._tidied(template)

    def forget(self, name: str) -> None:
        """It was not there after all."""
        with self._lock:
            self._made.discard(name)

    def _tidied(self, template: Mapping[str, Any]) -> None:
        (tags,) = (one["Tags"] for one in template["TagSpecifications"])
        owner = next(one["Value"] for one in tags if one["Key"] == OWNER_TAG)
        try:
            self.prune(owner, keep=template["LaunchTemplateName"])
        except TextnlpFastError as error:
            # No launch fails for that. A role from before this was done may not look at templates.
            _log.warning("old launch templates are left where they are: %s", error.args[0])

    def prune(self, owner: str, *, keep: str = "") -> list[str]:
        """Removes the owner's templates (but that called `keep`) that are old and that nothing alive was launched from.

        Returns their ids. Safe beside launches and others that prune: who needs one that is gone makes it again, and
        what is deleted is the template that was looked at, not a later one of its name.
        """
        filters = [
            {"Name": f"tag:{OWNER_TAG}", "Values": [owner]},
            {"Name": f"tag:{PURPOSE_TAG}", "Values": [_PURPOSE]},
        ]
        found = self._pages("describe_launch_templates", "LaunchTemplates", Filters=filters, MaxResults=_PAGE)
        before = datetime.datetime.now(datetime.timezone.utc) - self._kept
        old = {
            one["LaunchTemplateId"]: one["LaunchTemplateName"]
            for one in found
            if one["LaunchTemplateName"].startswith(TEMPLATE_PREFIX)
            and one["CreateTime"] <= before
            and one["LaunchTemplateName"] != keep
        }
        removed = []
        for template_id, name in old.items():
            if self._is_used(template_id):
                continue
            self.forget(name)
            try:
                self._call("delete_launch_template", LaunchTemplateId=template_id)
            except MissingTemplateError:
                continue  # another has removed it
            removed.append(template_id)
        return removed

    def _is_used(self, template_id: str) -> bool:
        alive = ["pending", "running", "stopping", "stopped"]
        filters = [
            {"Name": f"tag:{_MADE_BY}", "Values": [template_id]},
            {"Name": "instance-state-name", "Values": alive},
        ]
        return bool(self._pages("describe_instances", "Reservations", Filters=filters, MaxResults=500))
