"""What one XID or SXID means by the rules: pure, without a look at what came before it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from textnlp_fast.gpu.health.facts import Action, Event, Severity
from textnlp_fast.gpu.health.rules import HealthRules, SxidGroup, Verdict, action_rank, xid_catalogue

__all__ = ["ACTION_WORDS", "Judgement", "judge_sxid", "judge_xid", "recovery_in"]

ACTION_WORDS: Final = {
    Action.NONE: "nothing to do",
    Action.CHECK: "check the machine and its agent",
    Action.RESTART_APP: "restart the application",
    Action.RESET_GPU: "reset the GPU",
    Action.REBOOT: "reboot the machine",
    Action.DRAIN: "drain the machine",
    Action.REPLACE: "replace the machine",
    Action.CONTACT_VENDOR: "contact the vendor",
}

#: More of a message is not looked at: messages come from logs that anyone may write to.
_MOST_TEXT: Final = 1000
_NVLINK5: Final = range(144, 151)
# `<unit> <fatal or nonfatal> <contained> <injected> <link> (<interrupt> <status> ...)`, as the catalogue gives it.
_FATALITY: Final = re.compile(r"\b(?:(non)[- ]?fatal|fatal)\b", re.IGNORECASE)
_STATUS: Final = re.compile(r"\(0x[0-9a-f]{1,8},?\s+0x([0-9a-f]{1,8})\b", re.IGNORECASE)
# Catalogue, sheet "Xid 144-150 Decode": non-fatal errors that end the application unless XID 154 says more.
_EVALUATE: Final = {
    "RLW_REMAP": frozenset({0x1, 0x2, 0x4, 0x8, 0x10, 0x20}),
    "RLW_SRC_TRACK": frozenset({0x4, 0x8}),
}
_RECOVERY: Final = re.compile(r"\bto\s+(?:0x)?[0-9a-f]{1,8}\s*\(\s*([a-z0-9 ]{1,40}?)\s*\)", re.IGNORECASE)
_RECOVERY_WORDS: Final = {
    "none": Action.NONE,
    "gpu reset required": Action.RESET_GPU,
    "node reboot required": Action.REBOOT,
    "drain p2p": Action.DRAIN,
    "drain and reset": Action.DRAIN,
}


@dataclass(frozen=True, slots=True)
class Judgement:
    """A rule's word on one event."""

    rule: str
    severity: Severity
    action: Action
    what: str
    """What happened, without what to do."""
    source: tuple[str, ...]
    why: str = ""


def judge_xid(rules: HealthRules, event: Event) -> Judgement:
    """What an XID means by itself. XIDs that no list has are judged by `unknown_xid`."""
    assert event.code is not None
    code = event.code
    row = xid_catalogue().get(code)
    override = rules.xids.get(code)
    rule = f"xid-{code}"
    if row is None:
        verdict = override or rules.unknown_xid
        return Judgement(
            rule,
            verdict.severity,
            verdict.action,
            f"XID {code}, in no catalogue",
            verdict.source,
            verdict.why,
        )
    what = f"XID {code}, {row.description if row.description != 'Unused' else row.mnemonic}"
    if override is not None:
        return Judgement(
            rule, override.severity, override.action, what, override.source or ("house",), override.why
        )
    bucket = row.immediate
    if code in _NVLINK5:
        bucket = _nvlink5(event.text[:_MOST_TEXT], bucket)
    source: tuple[str, ...] = ("catalogue",)
    if row.older_gpus:
        source = ("catalogue", "archive")
    if row.device_plugin_ignores:
        source = (*source, "device-plugin")
    verdict = rules.buckets.get(bucket) or Verdict(severity=Severity.WARNING, action=Action.CONTACT_VENDOR)
    return Judgement(rule, verdict.severity, verdict.action, what, source)


def _nvlink5(text: str, bucket: str) -> str:
    """NVIDIA's bucket of XIDs 144 to 150, which depends on the message."""
    word = _FATALITY.search(text)
    if word is None or not word[1]:
        return bucket
    for unit, statuses in _EVALUATE.items():
        status = _STATUS.search(text)
        if unit in text and status is not None and int(status[1], 16) in statuses:
            return "XID_154_EVAL"
    return "IGNORE"


def recovery_in(text: str) -> Action | None:
    """What XID 154 says to do, from "GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)"."""
    match = _RECOVERY.search(text[:_MOST_TEXT])
    return _RECOVERY_WORDS.get(" ".join(match[1].lower().split())) if match else None


def judge_sxid(rules: HealthRules, event: Event) -> Judgement:
    """What an SXID means. The driver's own word of how fatal it is goes before the table's."""
    assert event.code is not None
    group = _sxid_group(rules, event.code)
    word = _FATALITY.search(event.text[:_MOST_TEXT])
    fatal = None if word is None else not word[1]
    what = f"SXID {event.code} of NVSwitch"
    if group is None:
        if fatal is False:
            return Judgement(
                f"sxid-{event.code}", Severity.INFO, Action.NONE, f"{what}, not fatal", ("fabric-manager",)
            )
        action = Action.RESET_GPU if fatal else Action.CONTACT_VENDOR
        severity = Severity.CRITICAL if fatal else Severity.WARNING
        return Judgement(
            f"sxid-{event.code}", severity, action, f"{what}, in no list", ("fabric-manager", "house")
        )
    severity, action = group.severity, group.action
    if fatal and group.class_ == "non-fatal":
        severity, action = Severity.CRITICAL, max(action, Action.RESET_GPU, key=action_rank)
    elif fatal is False and group.class_ == "fatal":
        severity = Severity.WARNING
    words = "fatal" if (fatal if fatal is not None else group.class_ == "fatal") else "not fatal"
    return Judgement(f"sxid-{event.code}", severity, action, f"{what}, {words}", group.source)


def _sxid_group(rules: HealthRules, code: int) -> SxidGroup | None:
    for group in rules.sxids.values():
        if any(first <= code <= last for first, last in group.spans):
            return group
    return None
