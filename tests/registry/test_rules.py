"""Who may change the rules, and what is told of it afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textnlp_fast.errors import ConflictError, CorruptDataError, InvalidInputError, NotAllowedError
from textnlp_fast.storage import Repository
from textnlp_fast.storage.audit import AuditLog, Filter, newest
from textnlp_fast.storage.registry.lifecycle import DEFAULT_LIFECYCLE
from textnlp_fast.storage.registry.registry import Registry
from textnlp_fast.storage.registry.rules import (
    RULES_KEY,
    Rules,
    parse_rules,
    read_rules,
    rules_document,
    rules_from_file,
    serialize_rules,
)
from textnlp_fast.storage.registry.rules_changes import difference, rules_digest, rules_history
from textnlp_fast.storage.registry.subscriptions import Webhook


def of(repository: Repository, actor: str) -> Registry:
    return Registry(repository, actor=actor)


ROLES = {"release": ("alice", "ci-*"), "admins": ("root", "alice")}


def test_without_roles_everybody_sets_rules_and_with_them_only_who_has_all(repository: Repository) -> None:
    of(repository, "anybody").set_rules(Rules(webhooks={"w": Webhook("w", "https://h.example/", "K")}))
    of(repository, "alice").set_rules(Rules(roles=ROLES))
    for actor in ("mallory", "root", "ci-1"):
        with pytest.raises(NotAllowedError, match=f"{actor} has not"):
            of(repository, actor).set_rules(Rules())
        with pytest.raises(NotAllowedError):
            of(repository, actor).set_rules(Rules(roles={**ROLES, "release": (actor,)}))
    assert read_rules(repository.store).roles == ROLES
    of(repository, "alice").set_rules(Rules())
    of(repository, "mallory").set_rules(Rules(protected_aliases=None, roles={"r": ("mallory",)}))


def test_a_role_for_it_decides_alone(repository: Repository) -> None:
    rules = Rules(roles=ROLES, administer="admins")
    of(repository, "somebody").set_rules(rules)  # hands it over
    for actor in ("somebody", "ci-1", "ROOT"):
        with pytest.raises(NotAllowedError, match="'admins'") as caught:
            of(repository, actor).set_rules(Rules())
        assert "root, alice" in caught.value.hint
    of(repository, "root").set_rules(Rules(roles={"admins": ("bob",)}, administer="admins"))
    with pytest.raises(NotAllowedError):
        of(repository, "root").set_rules(Rules())
    of(repository, "bob").set_rules(Rules())


def test_nobody_locks_himself_out_by_mistake(repository: Repository) -> None:
    with pytest.raises(InvalidInputError, match="carol would not have every role") as caught:
        of(repository, "carol").set_rules(Rules(roles=ROLES))
    assert "administer" in caught.value.hint
    assert read_rules(repository.store) == Rules()


def test_the_owner_of_the_bucket_has_a_way_back(repository: Repository) -> None:
    of(repository, "alice").set_rules(Rules(roles={"gone": ("nobody-any-more",)}, administer="gone"))
    with pytest.raises(NotAllowedError):
        of(repository, "alice").set_rules(Rules())
    repository.store.delete(RULES_KEY)
    of(repository, "alice").set_rules(Rules(roles=ROLES))


@pytest.mark.parametrize("administer", ["nobody", 7, [], "empty"])
def test_a_role_that_nobody_has_administers_nothing(tmp_path: Path, administer: object) -> None:
    document = {"roles": {"admins": ["a"], "empty": []}, "administer": administer}
    path = tmp_path / "rules.json"
    path.write_text(json.dumps(document))
    with pytest.raises(InvalidInputError, match="nobody has"):
        rules_from_file(path)


def test_rules_are_read_as_they_were_written_and_old_ones_name_no_administrator() -> None:
    rules = Rules(roles=ROLES, administer="admins", revision=3, write_id="0" * 32)
    assert parse_rules(serialize_rules(rules, by="alice")) == rules
    vector = Path(__file__).parents[1] / "vectors" / "registry" / "registry.json"
    old = parse_rules(vector.read_bytes())
    assert old.administer is None
    assert [actor for actor in ("alice", "ci-7", "mallory") if old.may_administer(actor)] == ["alice", "ci-7"]
    with pytest.raises(CorruptDataError):
        parse_rules(vector.read_bytes().replace(b'"roles"', b'"rolex"'))


names = st.sampled_from(["a", "b", "c"])
roles = st.dictionaries(st.sampled_from(["r", "s", "t"]), st.lists(names, min_size=1).map(tuple))


@given(roles, names)
def test_who_may_change_rules_without_a_role_for_it_gains_nothing(
    given_: dict[str, tuple[str, ...]], actor: str
) -> None:
    if Rules(roles=given_).may_administer(actor):
        assert all(actor in patterns for patterns in given_.values())


def test_the_audit_log_says_what_changed_and_what_was_refused(repository: Repository) -> None:
    first = Rules(
        roles=ROLES, administer="admins", webhooks={"w": Webhook("w", "https://h.example/s3cr3t", "K")}
    )
    second = Rules(roles={"admins": ("alice",)}, administer="admins", protected_aliases="admins")
    of(repository, "alice").set_rules(first)
    with pytest.raises(NotAllowedError):
        of(repository, "mallory").set_rules(Rules())
    of(repository, "alice").set_rules(second)
    found = list(rules_history(repository.store, 10))
    assert [(each.actor, each.outcome) for each in found] == [
        ("alice", "done"),
        ("mallory", "failed"),
        ("alice", "done"),
    ]
    assert found[0].changes == (
        "protected aliases: everybody -> admins",
        "role admins: root, alice -> alice",
        "role release: alice, ci-* -> none",
        "webhook w: gone",
    )
    assert "role admins: root, alice -> none" in found[1].changes
    assert (found[0].before, found[0].after) == (rules_digest(first), rules_digest(second))
    assert found[2].before == rules_digest(Rules())
    assert [each.actor for each in rules_history(repository.store, 1)] == ["alice"]
    records = newest(AuditLog(repository.store), Filter(action="rules.set"), 100)
    assert not any("s3cr3t" in str(record.detail) for record in records)


def test_rules_that_changed_meanwhile_are_looked_at_again(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = of(repository, "alice")
    stale = registry.rules()
    of(repository, "alice").set_rules(Rules(roles=ROLES))
    monkeypatch.setattr(registry, "rules", lambda: stale)
    with pytest.raises(ConflictError):
        registry.set_rules(Rules())


def test_a_difference_names_every_part_and_is_bounded() -> None:
    many = Rules(roles={f"r{number}": ("x" * 100,) * 9 for number in range(64)})
    lines = difference(Rules(), many)
    assert len(lines) <= 65
    assert max(map(len, lines)) <= 200
    stages = DEFAULT_LIFECYCLE.stages[:2]
    assert difference(many, many) == []
    assert len(stages) == 2
    digests = {rules_digest(rules) for rules in (Rules(), many, Rules(administer=None))}
    assert len(digests) == 2
    assert set(rules_document(Rules())) == {
        "lifecycle",
        "roles",
        "protected_aliases",
        "webhooks",
    }
