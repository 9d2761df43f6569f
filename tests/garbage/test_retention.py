"""Rules of retention: what each keeps, and that no rule can take what another keeps."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

import pytest
import semver
from hypothesis import given
from hypothesis import strategies as st

from textnlp_fast.errors import InvalidInputError, ModelNotFoundError
from textnlp_fast.storage import RetentionRules
from textnlp_fast.storage.garbage.retention import Verdict, check_policy, decide, parse_age
from textnlp_fast.storage.garbage.usage import VersionFacts

NOW_S = 1_800_000_000.0
DAY_S = 86400.0
VERSIONS = ["0.9.0", "1.0.0-rc.1", "1.0.0", "1.2.0", "1.10.0", "2.0.0-beta"]


def facts(version: str, age_days: float = 0.0, model: str = "m") -> VersionFacts:
    at = datetime.fromtimestamp(NOW_S - age_days * DAY_S, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return VersionFacts(model, version, at, 1, frozenset(), None)


def decided(
    versions: list[VersionFacts], rules: RetentionRules, **given_: dict[tuple[str, str], object]
) -> list[Verdict]:
    kept, stages = given_.get("kept", {}), given_.get("stages", {})
    return decide(versions, [("*", rules)], kept=kept, stages=stages, now_s=NOW_S)  # type: ignore[arg-type]


def staying(verdicts: list[Verdict]) -> list[str]:
    return [verdict.facts.version for verdict in verdicts if not verdict.goes]


def test_the_last_are_those_of_the_highest_numbers() -> None:
    """And the latest that is no pre-release, which is another."""
    verdicts = decided([facts(version) for version in reversed(VERSIONS)], RetentionRules(keep_last=1))
    assert [verdict.facts.version for verdict in verdicts] == sorted(VERSIONS, key=semver.Version.parse)
    assert staying(verdicts) == ["1.10.0", "2.0.0-beta"]
    assert verdicts[-2].reasons == ("latest",)


def test_each_rule_keeps_its_own() -> None:
    versions = [facts(version, age_days=40 - 10 * place) for place, version in enumerate(VERSIONS[:5])]
    stages = {("m", "1.0.0-rc.1"): "staging"}
    rules = RetentionRules(keep_stages=frozenset({"staging"}), older_than_s=25 * DAY_S)
    verdicts = decided(versions, rules, stages=stages, kept={("m", "0.9.0"): ["alias champion"]})
    assert {verdict.facts.version: verdict.reasons for verdict in verdicts} == {
        "0.9.0": ("alias champion",),
        "1.0.0-rc.1": ("stage staging",),
        "1.0.0": ("young",),
        "1.2.0": ("young",),
        "1.10.0": ("latest", "young"),
    }
    older = decided(versions, replace(rules, older_than_s=15 * DAY_S), stages=stages)
    assert staying(older) == ["1.0.0-rc.1", "1.2.0", "1.10.0"]


def test_models_have_rules_of_their_own_and_none_keep_all() -> None:
    versions = [facts(f"1.{number}.0", model=model) for model in ("a", "org/b", "c") for number in range(4)]
    policy = [("org/*", RetentionRules(keep_last=1)), ("a", RetentionRules(keep_last=3))]
    verdicts = decide(versions, policy, kept={}, stages={}, now_s=NOW_S)
    gone = [verdict.facts.name for verdict in verdicts if verdict.goes]
    assert gone == ["a@1.0.0", "org/b@1.0.0", "org/b@1.1.0", "org/b@1.2.0"]
    assert verdicts[4].reasons == ("no rules",)


def test_rules_for_what_is_not_there_are_refused() -> None:
    """With `draft` misspelled, versions in it would go."""
    stages = ["draft", "live"]
    kept = RetentionRules(keep_stages=frozenset({"live"}))
    check_policy([("org/*", kept), ("*", RetentionRules(keep_last=1))], ["org/a", "b"], stages)
    check_policy([("org/*", kept)], [], stages)  # of an empty repository nothing can go
    with pytest.raises(InvalidInputError, match="'lives'") as caught:
        check_policy([("*", RetentionRules(keep_stages=frozenset({"live", "lives"})))], ["b"], stages)
    assert caught.value.hint == "The stages are: draft, live."
    with pytest.raises(ModelNotFoundError, match=r"'og/\*'"):
        check_policy([("og/*", kept), ("*", RetentionRules(keep_last=1))], ["org/a", "b"], stages)


def test_a_version_of_unknown_age_is_young() -> None:
    odd = replace(facts("1.0.0"), created_at="yesterday")
    assert staying(decided([odd, facts("1.1.0")], RetentionRules(older_than_s=0))) == ["1.0.0", "1.1.0"]


def test_who_is_coded_against_a_version_that_goes_is_told() -> None:
    versions = [facts("1.0.0"), replace(facts("1.1.0"), coded_against=("m", "1.0.0"))]
    verdicts = decided(versions, RetentionRules(keep_last=1))
    assert verdicts[0].goes
    assert verdicts[0].reasons == ("no rule keeps it", "its tensors stay as bases of m@1.1.0")


@given(
    ages=st.lists(st.floats(0, 100), min_size=1, max_size=len(VERSIONS)),
    keep_last=st.none() | st.integers(1, 4),
    days=st.none() | st.floats(0, 100),
    stages=st.lists(st.sampled_from(["draft", "staging", "production"]), min_size=6, max_size=6),
    keep_stages=st.frozensets(st.sampled_from(["staging", "production"])),
    named=st.frozensets(st.sampled_from(VERSIONS)),
)
def test_more_rules_never_keep_less(
    ages: list[float],
    keep_last: int | None,
    days: float | None,
    stages: list[str],
    keep_stages: frozenset[str],
    named: frozenset[str],
) -> None:
    versions = [facts(version, age) for version, age in zip(VERSIONS, ages, strict=False)]
    there = {("m", version): stage for version, stage in zip(VERSIONS, stages, strict=True)}
    kept = {("m", version): ["a name"] for version in named}
    rules = RetentionRules(
        keep_last=keep_last, keep_stages=keep_stages, older_than_s=None if days is None else days * DAY_S
    )
    stays = set(staying(decided(versions, rules, kept=kept, stages=there)))
    held = {each.version for each in versions}
    assert named & held <= stays
    assert stays
    if keep_last is not None:
        assert set(sorted(held, key=semver.Version.parse)[-keep_last:]) <= stays
        wider = replace(rules, keep_last=keep_last + 1)
        assert stays <= set(staying(decided(versions, wider, kept=kept, stages=there)))
    if days is not None:
        longer = replace(rules, older_than_s=2 * days * DAY_S + 1)
        assert stays <= set(staying(decided(versions, longer, kept=kept, stages=there)))


@pytest.mark.parametrize(
    ("text", "seconds"), [("45s", 45), ("90m", 5400), ("12h", 43200), ("30d", 30 * DAY_S), ("2w", 14 * DAY_S)]
)
def test_ages_are_read(text: str, seconds: float) -> None:
    assert parse_age(text) == seconds


@pytest.mark.parametrize("text", ["", "d", "3", "-1d", "1.5d", "3 d", "3y", "³d"])
def test_odd_ages_are_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="is no age"):
        parse_age(text)
