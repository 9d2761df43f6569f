"""Who is told of changes: webhooks as the rules list them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from textnlp_fast.errors import InvalidInputError

__all__ = ["Webhook", "check_url", "read_webhooks", "webhooks_document"]

_MOST_WEBHOOKS: Final = 32
_MOST_EVENTS: Final = 32
_MAX_URL_CHARS: Final = 2000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_EVENT = re.compile(r"[a-z*?.]{1,40}", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Webhook:
    """An address that hears of changes whose action one of the patterns `events` fits.

    `secret_env` names the environment variable with the key that messages are signed with, on the machine that makes
    the change. The key itself is stored nowhere.
    """

    name: str
    url: str
    secret_env: str
    events: tuple[str, ...] = ("*",)

    def wants(self, action: str) -> bool:
        """Whether it hears of this action."""
        return any(fnmatchcase(action, pattern) for pattern in self.events)


def check_url(url: str) -> SplitResult:
    """The parts of a webhook's URL: HTTPS, or HTTP to this machine. Raises InvalidInputError."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidInputError(f"a webhook's URL {url!r} is malformed: {error}") from None
    if len(url) > _MAX_URL_CHARS or not url.isprintable() or " " in url or not parts.hostname or port == 0:
        raise InvalidInputError(f"{url!r} is no URL for a webhook", hint="Write https://host/path.")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise InvalidInputError(
            "a webhook's URL has no credentials and no '#'",
            hint="Messages are signed: the receiver knows by that.",
        )
    if parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname)):
        return parts
    raise InvalidInputError(
        f"a webhook at {parts.scheme}://{parts.hostname} would send in the clear",
        hint="Use https://; plain http:// is for this machine only.",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def webhooks_document(webhooks: Mapping[str, Webhook]) -> dict[str, Any]:
    """Webhooks as JSON, by name."""
    return {
        name: {"url": webhook.url, "secret_env": webhook.secret_env, "events": list(webhook.events)}
        for name, webhook in webhooks.items()
    }


def read_webhooks(value: object) -> dict[str, Webhook]:
    """Reads what `webhooks_document` wrote. Raises InvalidInputError."""
    if not isinstance(value, dict) or len(value) > _MOST_WEBHOOKS:
        raise InvalidInputError(f"webhooks are an object of at most {_MOST_WEBHOOKS}, by name")
    return {name: _read(name, each) for name, each in value.items()}


def _read(name: str, value: object) -> Webhook:
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise InvalidInputError(
            f"{name!r} is not a webhook's name", hint="Use letters, digits, '.', '_', '-'."
        )
    if not isinstance(value, dict) or value.keys() - {"url", "secret_env", "events"}:
        raise InvalidInputError(f"webhook {name!r} is not an object of url, secret_env and events")
    url, variable, events = value.get("url"), value.get("secret_env"), value.get("events", ["*"])
    if not isinstance(url, str):
        raise InvalidInputError(f"webhook {name!r} has no url")
    check_url(url)
    if not isinstance(variable, str) or _VARIABLE.fullmatch(variable) is None:
        raise InvalidInputError(
            f"webhook {name!r} names no environment variable for its key",
            hint="Give its name, not the key: secret_env=REGISTRY_WEBHOOK_KEY.",
        )
    if not isinstance(events, list) or not 0 < len(events) <= _MOST_EVENTS:
        raise InvalidInputError(
            f"the events of webhook {name!r} are not a list of 1 to {_MOST_EVENTS} patterns"
        )
    if not all(isinstance(event, str) and _EVENT.fullmatch(event) for event in events):
        raise InvalidInputError(
            f"the events of webhook {name!r} are not patterns like stage, alias.* or *",
        )
    return Webhook(name, url, variable, tuple(events))
