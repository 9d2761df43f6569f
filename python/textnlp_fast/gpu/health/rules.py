"""The rules: what the package ships (`data/rules.yaml`, `data/xids.csv`), and a file of one's own over it.

>>> rules = load_rules()
>>> rules.polled["remap-failed"].levels[0].action
<Action.REPLACE: 'replace'>
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.gpu.health.facts import Action, Severity
from textnlp_fast.gpu.health.signals import SIGNALS

__all__ = [
    "EventRule",
    "HealthRules",
    "Level",
    "PolledRule",
    "Verdict",
    "XidRow",
    "action_rank",
    "load_rules",
    "rules_schema",
    "severity_rank",
    "worse",
    "xid_catalogue",
]

_LIMIT_BYTES: Final = 1 << 20
_ACTIONS: Final = {action: rank for rank, action in enumerate(Action)}
_SEVERITIES: Final = {severity: rank for rank, severity in enumerate(Severity)}

Seconds = Annotated[float, Field(ge=0, le=10 * 365 * 86400, allow_inf_nan=False)]
Xid = Annotated[int, Field(ge=1, le=65535)]


def action_rank(action: Action) -> int:
    """0 for `none`; greater for what is harder to do."""
    return _ACTIONS[action]


def severity_rank(severity: Severity) -> int:
    """0 for `info`."""
    return _SEVERITIES[severity]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Verdict(_Model):
    """How bad something is, and what to do."""

    severity: Severity
    action: Action
    source: tuple[str, ...] = ()
    why: str = ""


def worse(one: Verdict, other: Verdict) -> Verdict:
    """The greater severity with the greater action."""
    return Verdict(
        severity=max(one.severity, other.severity, key=severity_rank),
        action=max(one.action, other.action, key=action_rank),
    )


class Level(_Model):
    at: Annotated[float, Field(allow_inf_nan=False)]
    severity: Severity
    action: Action


class PolledRule(_Model):
    """A signal of `signals.py` with levels. `below`: it is bad when it is small."""

    signal: str
    levels: Annotated[tuple[Level, ...], Field(min_length=1, max_length=8)]
    summary: Annotated[str, Field(min_length=1, max_length=300)]
    source: tuple[str, ...]
    below: bool = False
    clear: Annotated[float | None, Field(allow_inf_nan=False)] = None
    for_s: Seconds = 0.0
    readings: Annotated[int, Field(ge=1, le=100)] = 3
    """How many readings in a row it takes at least, where `for_s` asks for some time."""
    clear_s: Seconds = 0.0
    window_s: Seconds = 0.0
    min_utilisation_percent: Annotated[float, Field(ge=0, le=100)] = 0.0
    enabled: bool = True

    @field_validator("signal")
    @classmethod
    def _known(cls, signal: str) -> str:
        if signal not in SIGNALS:
            raise ValueError(f"there is no signal {signal!r}; there are {', '.join(sorted(SIGNALS))}")
        return signal

    @model_validator(mode="after")
    def _ordered(self) -> PolledRule:
        sign = -1 if self.below else 1
        for milder, harder in zip(self.levels, self.levels[1:], strict=False):
            if sign * harder.at <= sign * milder.at:
                raise ValueError("levels go from the mildest to the worst")
            if severity_rank(harder.severity) < severity_rank(milder.severity) or action_rank(
                harder.action
            ) < action_rank(milder.action):
                raise ValueError("a worse level may not be judged milder")
        if self.clear is not None and sign * self.clear > sign * self.levels[0].at:
            raise ValueError("`clear` lies on the bad side of the first level")
        if self.signal.endswith("_growth") and not self.window_s:
            raise ValueError(f"{self.signal} needs `window_s`")
        return self


class EventRule(_Model):
    severity: Severity
    action: Action
    summary: Annotated[str, Field(min_length=1, max_length=300)]
    source: tuple[str, ...]
    ended_by: tuple[str, ...] = ()
    clears_after_s: Seconds | None = None
    critical_after_s: Seconds | None = None
    enabled: bool = True


class Repeats(_Model):
    """Each `every` occurrences within the window are a step along the ladder. `xids` empty: all that no other has."""

    xids: tuple[Xid, ...]
    window_s: Annotated[Seconds, Field(gt=0)]
    every: Annotated[int, Field(ge=2, le=1000)]
    ladder: Annotated[tuple[Action, ...], Field(min_length=1)]
    source: tuple[str, ...] = ()

    @field_validator("ladder")
    @classmethod
    def _climbs(cls, ladder: tuple[Action, ...]) -> tuple[Action, ...]:
        ranks = [action_rank(action) for action in ladder]
        if ranks != sorted(set(ranks)):
            raise ValueError(f"a ladder goes upwards: {', '.join(action.value for action in Action)}")
        return ladder


class Together(_Model):
    xids: tuple[Xid, ...]
    rules: tuple[str, ...] = ()
    machine_rules: tuple[str, ...] = ()
    within_s: Seconds = 60.0


class DrainWhen(_Model):
    xid: Xid
    # `with` is a word of Python's.
    with_: Annotated[tuple[Xid, ...], Field(alias="with")]
    within_s: Seconds
    action: Action
    source: tuple[str, ...] = ()


class SxidGroup(_Model):
    severity: Severity
    action: Action
    class_: Annotated[Literal["fatal", "non-fatal"], Field(alias="class")]
    source: tuple[str, ...]
    codes: str

    @field_validator("codes")
    @classmethod
    def _spans(cls, codes: str) -> str:
        _spans(codes)
        return codes

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """First and last code of each range."""
        return _spans(self.codes)


class Flapping(_Model):
    closings: Annotated[int, Field(ge=2, le=32)]
    window_s: Annotated[Seconds, Field(gt=0)]
    most_s: Seconds


class HealthRules(_Model):
    """All rules. Every finding names one of them."""

    version: Literal[1] = 1
    sources: Mapping[str, str]
    buckets: Mapping[str, Verdict]
    xids: Mapping[Xid, Verdict] = {}
    unknown_xid: Verdict
    together: Mapping[str, Together] = {}
    drain_when: DrainWhen
    repeats: Mapping[str, Repeats]
    burst_s: Seconds = 10.0
    clears_after_s: Mapping[Action, Seconds]
    sxids: Mapping[str, SxidGroup] = {}
    polled: Mapping[str, PolledRule]
    events: Mapping[str, EventRule]
    flapping: Flapping
    gap_s: Annotated[Seconds, Field(gt=0)] = 90.0
    same_event_s: Seconds = 2.0
    same_event_scraped_s: Seconds = 120.0
    forget_after_s: Annotated[Seconds, Field(gt=0)] = 604800.0

    @model_validator(mode="after")
    def _whole(self) -> HealthRules:
        missing = [action.value for action in Action if action not in self.clears_after_s]
        if missing:
            raise ValueError(f"clears_after_s lacks {', '.join(missing)}")
        if sum(not one.xids for one in self.repeats.values()) != 1:
            raise ValueError("exactly one of `repeats` is for all other XIDs (xids: [])")
        known = set(self.sources)
        judged: list[Any] = [
            *self.xids.values(),
            *self.repeats.values(),
            *self.sxids.values(),
            *self.polled.values(),
            *self.events.values(),
        ]
        strange = sorted({name for one in judged for name in one.source} - known)
        if strange:
            raise ValueError(f"no source is called {', '.join(strange)}; name it under `sources`")
        return self

    def spoken(self, source: tuple[str, ...]) -> str:
        """The full names of sources."""
        return "; ".join(self.sources.get(name, name) for name in source)


@dataclass(frozen=True, slots=True)
class XidRow:
    """One XID as NVIDIA lists it. `description` is the older listing's where the catalogue says "Unused"."""

    code: int
    mnemonic: str
    description: str
    applies_to: str
    """Of A100, H100, B100 and GB200 the first letters; `-`: none of these."""
    immediate: str
    """NVIDIA's resolution bucket; empty where it names none."""
    investigatory: str
    announces_recovery: bool
    """XID 154 follows and says what to do."""
    older_gpus: str
    nvsentinel: str
    device_plugin_ignores: bool


@lru_cache(maxsize=1)
def xid_catalogue() -> Mapping[int, XidRow]:
    """NVIDIA's catalogue, by code."""
    text = (resources.files("textnlp_fast.gpu.health") / "data" / "xids.csv").read_text(encoding="utf-8")
    rows: dict[int, XidRow] = {}
    for row in csv.DictReader(text.splitlines()):
        code = int(row["code"])
        rows[code] = XidRow(
            code=code,
            mnemonic=row["mnemonic"],
            description=row["older_gpus"] or row["description"],
            applies_to=row["applies_to"],
            immediate=row["immediate"],
            investigatory=row["investigatory"],
            announces_recovery=row["announces_recovery"] == "yes",
            older_gpus=row["older_gpus"],
            nvsentinel=row["nvsentinel"],
            device_plugin_ignores=row["device_plugin_ignores"] == "yes",
        )
    return rows


def load_rules(path: str | Path | None = None) -> HealthRules:
    """The rules that ship, with what a YAML or JSON file at `path` changes.

    Such a file holds what differs, at any depth: `polled: {pcie-replays: {enabled: false}}`. Lists are replaced whole.
    Raises InvalidInputError that names each place where it is wrong.
    """
    shipped = _shipped()
    if path is None:
        return _parsed(json.dumps(shipped), "the rules that ship")
    if not isinstance(path, str | Path):
        raise InvalidInputError(f"{path!r:.100} is neither a set of health rules nor the path of one")
    path = Path(path)
    return _validated(_merged(shipped, _read(path), ""), str(path))


def rules_schema() -> dict[str, Any]:
    """The JSON schema of a whole set of rules; a file of one's own may leave out anything."""
    return HealthRules.model_json_schema(by_alias=True)


@lru_cache(maxsize=1)
def _shipped() -> dict[str, Any]:
    text = (resources.files("textnlp_fast.gpu.health") / "data" / "rules.yaml").read_text(encoding="utf-8")
    document: dict[str, Any] = yaml.safe_load(text)
    # Keys as JSON has them, so that a file in JSON can name them too.
    document["xids"] = {str(code): verdict for code, verdict in document["xids"].items()}
    return document


@lru_cache(maxsize=2)
def _parsed(document: str, name: str) -> HealthRules:
    return _validated(json.loads(document), name)


def _validated(document: Mapping[str, Any], name: str) -> HealthRules:
    try:
        return HealthRules.model_validate(document)
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(part) for part in one['loc']) or 'the whole'}: {one['msg']}"
            for one in error.errors(include_url=False, include_input=False)[:5]
        ]
        raise InvalidInputError(
            f"{name} is not a set of health rules: {'; '.join(problems)}",
            hint="`textnlp-fast gpu health --schema` prints the schema; docs/guide/gpu-health.md explains it.",
        ) from None


def _read(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(_LIMIT_BYTES + 1)
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror or error}") from error
    if len(data) > _LIMIT_BYTES:
        raise InvalidInputError(f"{path} is larger than {_LIMIT_BYTES >> 20} MiB: no set of rules")
    try:
        document = yaml.safe_load(data.decode("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        why = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        if isinstance(error, RecursionError):
            why = "it is nested too deeply"
        raise InvalidInputError(
            f"{path}{where} is neither YAML nor JSON: {' '.join(str(why).split())[:200]}"
        ) from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise InvalidInputError(
            f"{path} holds no rules", hint="Write `polled:`, `xids:` and so on at its top."
        )
    return document


def _merged(base: Mapping[str, Any], over: Mapping[Any, Any], where: str) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        name = str(key)
        before = merged.get(name)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            merged[name] = _merged(before, value, f"{where}{name}.")
        else:
            merged[name] = value
    return merged


def _spans(codes: str) -> tuple[tuple[int, int], ...]:
    spans = []
    for word in codes.split():
        first, dash, last = word.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or len(word) > 13:
            raise ValueError(f"{word!r} is neither a code nor a range of codes")
        spans.append((int(first), int(last or first)))
        if spans[-1][0] > spans[-1][1]:
            raise ValueError(f"{word!r} runs backwards")
    return tuple(spans)
