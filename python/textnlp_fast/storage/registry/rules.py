"""`registry.json`: the rules of a repository's registry, one small object that changes by compare-and-swap.

Everybody who writes has to go by the same rules, so they lie where the versions do. `docs/format.md` ("Rules") states
the document. They are kept by this package, not by the bucket: who may write there without it is for its policy to say.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from textnlp_fast.contents.documents import Broken, parse_document, seal_document, take, take_size
from textnlp_fast.errors import (
    ConflictError,
    CorruptDataError,
    InvalidInputError,
    MissingObjectError,
    NotAllowedError,
)
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.objectstore.backend import Version
from textnlp_fast.storage.names import now_utc
from textnlp_fast.storage.registry.grammar import check_actor
from textnlp_fast.storage.registry.lifecycle import (
    DEFAULT_LIFECYCLE,
    Lifecycle,
    check_roles,
    lifecycle_document,
    may,
    read_lifecycle,
)
from textnlp_fast.storage.registry.state import References
from textnlp_fast.storage.registry.subscriptions import Webhook, read_webhooks, webhooks_document

__all__ = [
    "RULES_KEY",
    "Rules",
    "change_rules",
    "parse_rules",
    "read_rules",
    "rules_document",
    "rules_from_file",
    "serialize_rules",
]

RULES_KEY: Final = "registry.json"
_MAX_RULES_BYTES: Final = 1 << 20
_MOST_ATTEMPTS: Final = 20
_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_KEYS: Final = ("lifecycle", "roles", "protected_aliases", "administer", "webhooks")


@dataclass(frozen=True, slots=True)
class Rules:
    """Who may do what, and who hears of it.

    `roles` maps a role to patterns of actors (`ci-*`); `protected_aliases` is the role that moves those, None for
    everybody. `administer` is the role that may change the rules; None: see `may_administer`.
    """

    lifecycle: Lifecycle = DEFAULT_LIFECYCLE
    roles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    protected_aliases: str | None = None
    webhooks: Mapping[str, Webhook] = field(default_factory=dict)
    revision: int = 0
    write_id: str = ""
    administer: str | None = None

    def may_administer(self, actor: str) -> bool:
        """Whether the actor may change these rules.

        Without a role for it that is who has every role there is: nobody gains by a change what he had not. So before
        roles are set it is everybody.
        """
        return all(self.may(actor, role) for role in ([self.administer] if self.administer else self.roles))

    def may(self, actor: str, role: str | None) -> bool:
        """Whether the actor has the role; everybody has None."""
        return may(self.roles, actor, role)


def read_rules(store: ObjectStore) -> Rules:
    """The rules as they are now, the default ones if none were chosen. Raises CorruptDataError and its kinds."""
    return _read(store)[0]


def under_rules(references: References, rules: Rules) -> References:
    """References that know in which stage versions begin, and which stages keep them."""
    lifecycle = rules.lifecycle
    return replace(references, initial_stage=lifecycle.initial, released_stages=lifecycle.released)


def change_rules(store: ObjectStore, decide: Callable[[Rules], Rules], *, by: str) -> Rules:
    """Replaces the rules by what `decide` makes of them.

    Raises NotAllowedError if the rules that are there leave it to others, InvalidInputError for rules that would lock
    out who sets them by mistake, ConflictError if others kept changing them.
    """
    check_actor(by)
    for _ in range(_MOST_ATTEMPTS):
        rules, version = _read(store)
        wanted = decide(rules)
        if rules_document(wanted) == rules_document(rules):
            return rules
        _check_administrator(rules, wanted, by)
        new = replace(wanted, revision=rules.revision + 1, write_id=secrets.token_hex(16))
        try:
            store.compare_and_swap(RULES_KEY, serialize_rules(new, by=by), version)
        except ConflictError as error:
            if error.may_have_applied:
                # Rules are set, not counted: whoever came after decided on what is now there.
                error.hint = "The rules may have been changed for a moment: look at what they are now."
                raise
            continue
        return new
    raise ConflictError("other writers kept changing the rules", hint="Nothing was changed. Try again.")


def _check_administrator(rules: Rules, wanted: Rules, by: str) -> None:
    if not rules.may_administer(by):
        needed = f"the role {rules.administer!r}" if rules.administer else "every role that they list"
        who = ", ".join(rules.roles[rules.administer]) if rules.administer else "who has all of them"
        raise NotAllowedError(
            f"the rules are changed by who has {needed}; {by} has not",
            hint=f"Ask {who}, or the bucket's owner.",
        )
    if wanted.administer is None and not wanted.may_administer(by):
        raise InvalidInputError(
            f"{by} would not have every role of these rules, and so could not change them again",
            hint='Say who may: "administer": "admins", with that role under roles.',
        )


def _read(store: ObjectStore) -> tuple[Rules, Version | None]:
    try:
        data, version = store.get_versioned(RULES_KEY, limit_bytes=_MAX_RULES_BYTES)
    except MissingObjectError:
        return Rules(), None
    return parse_rules(data), version


def serialize_rules(rules: Rules, *, by: str) -> bytes:
    """The sealed document."""
    return seal_document(
        {
            **rules_document(rules),
            "format": 1,
            "revision": rules.revision,
            "write_id": rules.write_id,
            "changed_at": now_utc(),
            "changed_by": by,
        }
    )


def rules_document(rules: Rules) -> dict[str, Any]:
    """The part of the rules that a person chooses, as `rules_from_file` reads it."""
    return {
        "lifecycle": lifecycle_document(rules.lifecycle),
        "roles": {role: list(patterns) for role, patterns in rules.roles.items()},
        "protected_aliases": rules.protected_aliases,
        "webhooks": webhooks_document(rules.webhooks),
        **({} if rules.administer is None else {"administer": rules.administer}),
    }


def parse_rules(data: bytes | memoryview, what: str = RULES_KEY) -> Rules:
    """Reads and validates rules; errors as those of `parse_references`."""
    if len(data) > _MAX_RULES_BYTES:
        raise CorruptDataError(f"{what} has {len(data)} bytes; at most {_MAX_RULES_BYTES} are read")
    document = parse_document(data, what)
    try:
        revision = take_size(document, "revision", "the document")
        write_id = take(document, "write_id", str, "the document")
        if revision < 1 or _ID.fullmatch(write_id) is None:
            raise Broken("it has no revision or no write_id")
        rules = _build(document)
    except (Broken, InvalidInputError) as error:
        raise CorruptDataError(f"{what} is not valid: {error.args[0]}") from None
    return replace(rules, revision=revision, write_id=write_id)


def rules_from_file(path: str | Path) -> Rules:
    """Reads rules that a person wrote: JSON with some of the document's keys; what is missing is as by default.

    Raises InvalidInputError with the key that is wrong.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"the rules at {path} cannot be read: {error}") from None
    if not isinstance(document, dict):
        raise InvalidInputError(f"{path} is not a JSON object")
    unknown = sorted(document.keys() - set(_KEYS))
    if unknown:
        raise InvalidInputError(
            f"{path}: rules have no {unknown[0]!r}", hint=f"They may have: {', '.join(_KEYS)}."
        )
    return _build(document)


def _build(document: Mapping[str, Any]) -> Rules:
    roles = check_roles(document.get("roles", {}))
    role = document.get("protected_aliases")
    if role is not None and (not isinstance(role, str) or role not in roles):
        raise InvalidInputError(
            f"protected aliases need the role {role!r}, which nobody has", hint="List who has it under roles."
        )
    administer = document.get("administer")
    if administer is not None and (not isinstance(administer, str) or not roles.get(administer)):
        raise InvalidInputError(
            f"changing the rules needs the role {administer!r}, which nobody has",
            hint="List who has it under roles.",
        )
    lifecycle = document.get("lifecycle")
    return Rules(
        DEFAULT_LIFECYCLE if lifecycle is None else read_lifecycle(lifecycle, roles),
        roles,
        role,
        read_webhooks(document.get("webhooks", {})),
        administer=administer,
    )
