"""Which versions are kept, and why. Pure: data in, data out; no store, no clock."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from fnmatch import fnmatchcase

from textnlp_fast.errors import InvalidInputError, ModelNotFoundError
from textnlp_fast.storage.garbage.usage import VersionFacts
from textnlp_fast.storage.names import precedence
from textnlp_fast.storage.version_manager import latest_of

__all__ = ["RetentionRules", "Verdict", "check_policy", "decide", "parse_age", "rules_for", "with_dependents"]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionRules:
    """What is kept of a model. A version goes only if none of them keeps it, and if there is at least one.

    Whatever they say, these stay: the latest version, and every version that the registry has a reason for (an alias,
    a pin, a deployment).
    """

    keep_last: int | None = None
    """The highest versions, by semantic versioning."""
    keep_stages: frozenset[str] = frozenset()
    """Versions in one of these stages, which the registry's rules must have."""
    older_than_s: float | None = None
    """Younger versions stay, by the time of their push."""

    def __post_init__(self) -> None:
        if self.keep_last is not None and self.keep_last < 1:
            raise InvalidInputError(f"keep_last is {self.keep_last}; the latest version is kept always")
        if self.older_than_s is not None and self.older_than_s < 0:
            raise InvalidInputError(f"older_than_s is {self.older_than_s}; an age is not negative")

    @property
    def keep_all(self) -> bool:
        """Whether no rule was given."""
        return self.keep_last is None and self.older_than_s is None and not self.keep_stages


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a version goes; `reasons` say what keeps it, or why nothing does."""

    facts: VersionFacts
    goes: bool
    reasons: tuple[str, ...]


def check_policy(
    policy: Sequence[tuple[str, RetentionRules]], models: Collection[str], stages: Collection[str]
) -> None:
    """Refuses rules for what is not there: a name with a mistake would let go what it was to keep.

    Raises InvalidInputError for a stage that is none of `stages`, ModelNotFoundError for a pattern that no model fits.
    """
    for pattern, rules in policy:
        unknown = sorted(rules.keep_stages.difference(stages))
        if unknown:
            raise InvalidInputError(
                f"there is no stage {unknown[0]!r} to keep versions of",
                hint=f"The stages are: {', '.join(stages)}.",
            )
        if models and not any(fnmatchcase(model, pattern) for model in models):
            raise ModelNotFoundError(
                f"rules are for {pattern!r}, which is the name of no model",
                hint=f"There are: {', '.join(sorted(models)[:10])}{', ...' if len(models) > 10 else ''}.",
            )


def rules_for(model: str, policy: Sequence[tuple[str, RetentionRules]]) -> RetentionRules:
    """The rules of the first pattern (`org/*`) that the model's name matches; none keep everything."""
    return next((rules for pattern, rules in policy if fnmatchcase(model, pattern)), RetentionRules())


def decide(
    versions: Iterable[VersionFacts],
    policy: Sequence[tuple[str, RetentionRules]],
    *,
    kept: Mapping[tuple[str, str], Sequence[str]],
    stages: Mapping[tuple[str, str], str],
    now_s: float,
) -> list[Verdict]:
    """A verdict for each version, by model and in the order of semantic versioning.

    `kept` are the registry's reasons to keep a version, `stages` where versions are, both by model and version;
    `now_s` is the time in seconds since 1970.
    """
    models: dict[str, list[VersionFacts]] = {}
    for facts in versions:
        models.setdefault(facts.model, []).append(facts)
    verdicts: list[Verdict] = []
    for model in sorted(models):
        ordered = sorted(models[model], key=lambda facts: precedence(facts.version))
        rules = rules_for(model, policy)
        latest = latest_of([facts.version for facts in ordered])
        for place, facts in enumerate(ordered):
            key = (model, facts.version)
            reasons = list(kept.get(key, ()))
            if facts.version == latest:
                reasons.append("latest")
            reasons += _by_rules(rules, facts, len(ordered) - place, stages.get(key), now_s)
            verdicts.append(Verdict(facts, not reasons, tuple(reasons) or ("no rule keeps it",)))
    return with_dependents(verdicts)


def with_dependents(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts; those on versions that go say which of those that stay are coded against them.

    That is no reason to keep a version: what the others need of it stays with them.
    """
    dependents: dict[tuple[str, str], list[str]] = {}
    for verdict in verdicts:
        if not verdict.goes and verdict.facts.coded_against is not None:
            dependents.setdefault(verdict.facts.coded_against, []).append(verdict.facts.name)
    found: list[Verdict] = []
    for verdict in verdicts:
        needed_by = dependents.get((verdict.facts.model, verdict.facts.version)) if verdict.goes else None
        if needed_by:
            note = (
                f"its tensors stay as bases of {', '.join(needed_by[:3])}{', ...' if needed_by[3:] else ''}"
            )
            verdict = replace(verdict, reasons=(*verdict.reasons, note))  # noqa: PLW2901
        found.append(verdict)
    return found


def _by_rules(
    rules: RetentionRules, facts: VersionFacts, place: int, stage: str | None, now_s: float
) -> list[str]:
    """Why the rules keep a version, which is the `place`-th from above."""
    if rules.keep_all:
        return ["no rules"]
    reasons: list[str] = []
    if rules.keep_last is not None and place <= rules.keep_last:
        reasons.append(f"among the last {rules.keep_last}")
    if stage is not None and stage in rules.keep_stages:
        reasons.append(f"stage {stage}")
    if rules.older_than_s is not None:
        created = _seconds(facts.created_at)
        if created is None:
            reasons.append("of unknown age")
        elif now_s - created < rules.older_than_s:
            reasons.append("young")
    return reasons


def _seconds(created_at: str) -> float | None:
    """Seconds since 1970 of a manifest's time; None if it is none."""
    try:
        return datetime.strptime(created_at, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc).timestamp()
    except ValueError:
        return None


def parse_age(text: str) -> float:
    """Seconds of `30d`, `12h`, `90m`, `45s` or `2w`. Raises InvalidInputError."""
    number, unit = text[:-1], text[-1:]
    if unit not in _UNITS or not number.isascii() or not number.isdigit() or len(number) > 12:
        raise InvalidInputError(f"{text!r} is no age", hint="Write 45s, 90m, 12h, 30d or 2w.")
    return float(int(number) * _UNITS[unit])
