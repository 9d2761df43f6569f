"""Delivery of webhooks: signed, a few tries within a budget of time, and a record of what could not be delivered.

A change is made whether anybody hears of it or not: delivery comes after it, takes no longer than its budget, and
raises nothing. What failed lies below `webhooks/undelivered/` and can be sent again.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import queue
import secrets
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import SplitResult

from textnlp_fast.contents.documents import Broken, canonical, parse_document, seal_document, take
from textnlp_fast.errors import CorruptDataError, InvalidInputError, TextnlpFastError
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.signed_messages import SIGNATURE_HEADER, sign
from textnlp_fast.storage.names import now_utc
from textnlp_fast.storage.registry.state import Change
from textnlp_fast.storage.registry.subscriptions import Webhook, check_url

__all__ = ["Delivery", "Failure", "Message", "message_of", "undelivered"]

FOLDER: Final = "webhooks/undelivered"
_MAX_LETTER_BYTES: Final = 1 << 16
_AT_ONCE: Final = 64
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent: an id that stays the same however often it is tried, and the body's bytes."""

    id: str
    action: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Failure:
    """A message that a webhook did not take. `key` names its record; None if that could not be written either."""

    webhook: str
    message: Message
    reason: str
    key: str | None = None


def message_of(repository: str, model: str, change: Change) -> Message:
    """The message that tells of a change."""
    identity = f"{change.id}-{change.number}"
    document = {
        "id": identity,
        "action": change.action,
        "repository": repository,
        "model": model,
        "number": change.number,
        "at": change.at,
        "by": change.by,
        "detail": dict(change.detail),
    }
    return Message(identity, change.action, canonical(document))


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """How patiently webhooks are delivered.

    All of one change's messages together take at most `budget_s` seconds; within it, each is tried up to `tries`
    times, with pauses that double from `first_pause_s`.
    """

    budget_s: float = 10.0
    tries: int = 4
    first_pause_s: float = 0.25

    def deliver(
        self, store: ObjectStore, model: str, changes: Sequence[Change], webhooks: Mapping[str, Webhook]
    ) -> list[Failure]:
        """Tells the webhooks of the changes; what none of the tries could deliver is recorded and returned."""
        wanted = [
            (webhook, message_of(store.url, model, change))
            for webhook in webhooks.values()
            for change in changes
            if webhook.wants(change.action)
        ]
        return [_record(store, failure) for failure in self.send(wanted)] if wanted else []

    def redeliver(
        self, store: ObjectStore, webhooks: Mapping[str, Webhook], *, forget: bool = False
    ) -> list[Failure]:
        """Sends what is recorded as undelivered, and forgets what arrives, with `forget` all. Returns what does not."""
        waiting = [failure for failure, _ in undelivered(store)]
        lost = [failure for failure in waiting if failure.webhook not in webhooks]
        known = [failure for failure in waiting if failure.webhook in webhooks]
        failures: list[Failure] = []
        for begin in range(0, len(known), _AT_ONCE):
            some = known[begin : begin + _AT_ONCE]
            again = {
                (each.webhook, each.message): each
                for each in self.send([(webhooks[each.webhook], each.message) for each in some])
            }
            for each in some:
                failed = again.get((each.webhook, each.message))
                if failed is None and each.key is not None:
                    store.delete(each.key)
                elif failed is not None:
                    failures.append(replace(failed, key=each.key))
        failures = [*(replace(each, reason="there is no such webhook any more") for each in lost), *failures]
        for each in failures:
            if forget and each.key is not None:
                store.delete(each.key)
        return failures

    def send(self, wanted: Sequence[tuple[Webhook, Message]]) -> list[Failure]:
        """Sends messages, each webhook's in order and all webhooks at once. Returns those that did not arrive."""
        deadline = time.monotonic() + self.budget_s
        answers: queue.SimpleQueue[tuple[int, str | None]] = queue.SimpleQueue()
        waiting = dict(enumerate(wanted))
        by_webhook: dict[str, list[tuple[int, Webhook, Message]]] = {}
        for number, (webhook, message) in waiting.items():
            by_webhook.setdefault(webhook.name, []).append((number, webhook, message))

        def work(items: list[tuple[int, Webhook, Message]]) -> None:
            for number, webhook, message in items:
                answers.put((number, self._try(webhook, message, deadline)))

        for items in by_webhook.values():
            # A daemon: a receiver that trickles bytes must not keep the process from ending.
            threading.Thread(target=work, args=(items,), daemon=True, name="webhook").start()
        failures: list[Failure] = []
        while waiting:
            try:
                number, reason = answers.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            webhook, message = waiting.pop(number)
            if reason is not None:
                failures.append(Failure(webhook.name, message, reason))
        late = f"no answer within the budget of {self.budget_s:g} s"
        failures += [Failure(webhook.name, message, late) for webhook, message in waiting.values()]
        return failures

    def _try(self, webhook: Webhook, message: Message, deadline: float) -> str | None:
        """Why a message did not arrive; None if it did."""
        reason: str | None = f"no time was left of the budget of {self.budget_s:g} s"
        pause_s = self.first_pause_s
        for attempt in range(self.tries):
            left_s = deadline - time.monotonic()
            if attempt:
                if left_s <= pause_s:
                    break
                time.sleep(pause_s)
                pause_s *= 2
                left_s = deadline - time.monotonic()
            if left_s <= 0:
                break
            reason, final = _post(webhook, message, left_s)
            if reason is None or final:
                break
        return reason


def _post(webhook: Webhook, message: Message, timeout_s: float) -> tuple[str | None, bool]:
    """Why one try failed (None: it did not), and whether another would fail the same way."""
    key = os.environ.get(webhook.secret_env)
    if not key:
        return f"the environment has no {webhook.secret_env} to sign with", True
    try:
        parts = check_url(webhook.url)
    except InvalidInputError as error:
        return str(error.args[0]), True
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "textnlp-fast",
        "Textnlp-Fast-Event": message.action,
        "Textnlp-Fast-Delivery": message.id,
        SIGNATURE_HEADER: sign(message.body, key),
    }
    connection = _connect(parts, timeout_s)
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", path, body=message.body, headers=headers)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"{type(error).__name__}: {error}"[:300], False
    finally:
        connection.close()
    if 200 <= status < 300:
        return None, True
    # A redirect is not followed: it could lead the message anywhere.
    return f"answered {status}", status not in (408, 425, 429) and status < 500


def _connect(parts: SplitResult, timeout_s: float) -> http.client.HTTPConnection:
    host = parts.hostname or ""
    if parts.scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(host, parts.port, timeout=timeout_s, context=context)
    return http.client.HTTPConnection(host, parts.port, timeout=timeout_s)


# --- what did not arrive ------------------------------------------------------------------------------------


def _record(store: ObjectStore, failure: Failure) -> Failure:
    key = f"{FOLDER}/{now_utc().replace(':', '')}-{secrets.token_hex(8)}.json"
    data = seal_document(
        {
            "format": 1,
            "write_id": secrets.token_hex(16),
            "at": now_utc(),
            "webhook": failure.webhook,
            "reason": failure.reason,
            "id": failure.message.id,
            "action": failure.message.action,
            "body": failure.message.body.decode(),
        }
    )
    try:
        store.create(key, data)
    except TextnlpFastError as error:
        _log.warning("webhook %s: %s; its record: %s", failure.webhook, failure.reason, error)
        return failure
    return Failure(failure.webhook, failure.message, failure.reason, key)


def undelivered(store: ObjectStore) -> Iterator[tuple[Failure, str]]:
    """Messages that did not arrive and when that was, the oldest first. Raises CorruptDataError and its kinds."""
    for meta in store.list(FOLDER):
        document = parse_document(store.get(meta.key, limit_bytes=_MAX_LETTER_BYTES), meta.key)
        try:
            yield _read(document, meta.key), take(document, "at", str, meta.key)
        except Broken as error:
            raise CorruptDataError(f"{meta.key!r} is not valid: {error}") from None


def _read(document: Mapping[str, Any], key: str) -> Failure:
    texts = {
        name: take(document, name, str, "the record")
        for name in ("webhook", "reason", "id", "action", "body")
    }
    try:
        json.loads(texts["body"])
    except (ValueError, RecursionError):
        raise Broken("its body is not JSON") from None
    message = Message(texts["id"], texts["action"], texts["body"].encode())
    return Failure(texts["webhook"], message, texts["reason"], key)
