"""Webhooks: what a receiver on this machine gets, checks and refuses, and what becomes of what it does not take."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textnlp_fast.errors import CorruptDataError, InvalidInputError, SignatureError
from textnlp_fast.signed_messages import SIGNATURE_HEADER, sign, verify_signature
from textnlp_fast.storage import Registry, Repository
from textnlp_fast.storage.registry.delivery import Delivery, Failure
from textnlp_fast.storage.registry.rules import Rules
from textnlp_fast.storage.registry.subscriptions import Webhook, check_url, read_webhooks

KEY = "5f2c9e4d7a1b8c3f"


@dataclass
class Receiver:
    """A server that keeps what it gets and answers as told; the last answer is given for ever."""

    answers: list[int | float] = field(default_factory=lambda: [204])
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""

    def documents(self) -> list[dict[str, object]]:
        """The messages, each signature checked."""
        for headers, body in self.got:
            verify_signature(body, headers[SIGNATURE_HEADER], KEY)
        return [json.loads(body) for _, body in self.got]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    kept = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            kept.got.append((dict(self.headers.items()), body))
            answer = kept.answers.pop(0) if len(kept.answers) > 1 else kept.answers[0]
            if isinstance(answer, float):
                time.sleep(answer)
                answer = 204
            self.send_response(answer)
            if answer in (301, 307):
                self.send_header("Location", kept.url)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    kept.url = f"http://127.0.0.1:{server.server_address[1]}/hook?x=1"
    yield kept
    server.shutdown()
    server.server_close()
    thread.join()


Told = Callable[..., Registry]


@pytest.fixture
def told(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Told:
    """A registry whose webhooks go to a URL, patiently or not."""
    monkeypatch.setenv("HOOK_KEY", KEY)

    def make(url: str, *events: str, failures: list[Failure] | None = None, **patience: float) -> Registry:
        hook = Webhook("ci", url, "HOOK_KEY", events or ("*",))
        registry.set_rules(Rules(webhooks={"ci": hook}))
        settings = {"budget_s": 60.0, "first_pause_s": 0.001, **patience}
        return Registry(
            registry.repository,
            actor="alice",
            on_failure=None if failures is None else failures.append,
            delivery=Delivery(**settings),  # type: ignore[arg-type]
        )

    return make


def test_a_receiver_hears_of_changes_it_asked_for_and_can_check_them(receiver: Receiver, told: Told) -> None:
    registry = told(receiver.url, "stage", "alias.*")
    registry.move("m", "1.0.0", "staging", note="ready")
    registry.tag("m", "1.0.0", {"a": "b"})
    registry.set_alias("m", "champion", "1.0.0")
    first, second = receiver.documents()
    assert (first["action"], second["action"]) == ("stage", "alias.set")
    assert first["model"] == "m"
    assert first["by"] == "alice"
    assert first["detail"] == {"version": "1.0.0", "from": "draft", "to": "staging", "note": "ready"}
    assert first["id"] != second["id"]
    headers = receiver.got[0][0]
    assert headers["Textnlp-Fast-Delivery"] == first["id"]
    assert headers["Textnlp-Fast-Event"] == "stage"


def test_a_failure_is_tried_again_with_the_same_id(receiver: Receiver, told: Told) -> None:
    failures: list[Failure] = []
    receiver.answers = [503, 429, 204]
    told(receiver.url, failures=failures).move("m", "1.0.0", "staging")
    assert len({document["id"] for document in receiver.documents()}) == 1
    assert len(receiver.got) == 3
    assert failures == []


@pytest.mark.parametrize(("answer", "tries"), [(503, 4), (400, 1), (410, 1), (301, 1), (307, 1)], ids=str)
def test_what_is_not_taken_is_kept_and_can_be_sent_again(
    receiver: Receiver, told: Told, answer: int, tries: int
) -> None:
    failures: list[Failure] = []
    receiver.answers = [answer]
    registry = told(receiver.url, failures=failures)
    registry.move("m", "1.0.0", "staging")
    assert registry.references("m").stage_of("1.0.0") == "staging"
    assert len(receiver.got) == tries
    assert [failure.reason for failure in failures] == [f"answered {answer}"]
    ((waiting, _),) = registry.undelivered()
    assert waiting == failures[0]
    assert len(registry.redeliver()) == 1
    receiver.answers = [200]
    receiver.got.clear()
    assert registry.redeliver() == []
    assert list(registry.undelivered()) == []
    assert receiver.documents()[0]["action"] == "stage"


def test_a_silent_receiver_costs_no_more_than_the_budget(receiver: Receiver, told: Told) -> None:
    failures: list[Failure] = []
    receiver.answers = [120.0]
    registry = told(receiver.url, failures=failures, budget_s=0.3)
    started = time.monotonic()
    registry.move("m", "1.0.0", "staging")
    assert time.monotonic() - started < 60
    assert "budget" in failures[0].reason or "timed out" in failures[0].reason
    assert registry.references("m").stage_of("1.0.0") == "staging"


def test_nobody_listening_and_no_key_fail_no_change(
    told: Told, monkeypatch: pytest.MonkeyPatch, receiver: Receiver
) -> None:
    failures: list[Failure] = []
    told("http://127.0.0.1:1/", failures=failures, tries=2).move("m", "1.0.0", "staging")
    monkeypatch.delenv("HOOK_KEY")
    told(receiver.url, failures=failures).move("m", "1.1.0", "staging")
    assert "ConnectionRefusedError" in failures[0].reason
    assert "no HOOK_KEY" in failures[1].reason
    assert receiver.got == []


def test_the_key_is_stored_nowhere(receiver: Receiver, told: Told) -> None:
    receiver.answers = [500]
    registry = told(receiver.url)
    registry.move("m", "1.0.0", "staging")
    store = registry.repository.store
    assert not any(KEY.encode() in store.get(meta.key) for meta in store.list())


def test_a_message_of_a_webhook_that_is_gone_stays(receiver: Receiver, told: Told) -> None:
    receiver.answers = [500]
    registry = told(receiver.url)
    registry.move("m", "1.0.0", "staging")
    registry.set_rules(Rules())
    assert [failure.reason for failure in registry.redeliver()] == ["there is no such webhook any more"]
    assert len(list(registry.undelivered())) == 1
    assert len(registry.redeliver(forget=True)) == 1
    assert list(registry.undelivered()) == []


def test_a_record_that_was_tampered_with_is_refused(receiver: Receiver, told: Told) -> None:
    receiver.answers = [500]
    registry = told(receiver.url)
    registry.move("m", "1.0.0", "staging")
    store = registry.repository.store
    key = next(meta.key for meta in store.list("webhooks"))
    store.put_object(key, store.get(key).replace(b"staging", b"stagin!"))
    with pytest.raises(CorruptDataError):
        registry.redeliver()


# --- signatures ---------------------------------------------------------------------------------------------


def test_a_signature_is_what_openssl_makes_of_it() -> None:
    """Made by `printf '1700000000.{}' | openssl dgst -sha256 -hmac secret`."""
    made = "b8569b78799ff9e3cbff0fc2d63a33a2b57f3282abd07c37ae5e8e7d79a5f163"
    assert sign(b"{}", "secret", at_s=1700000000) == f"t=1700000000,v1={made}"


@given(st.binary(max_size=50), st.text(min_size=1, max_size=20), st.integers(0, 2**36))
def test_a_signature_fits_its_message_and_key_and_time_only(body: bytes, key: str, moment: int) -> None:
    header = sign(body, key, at_s=moment)
    verify_signature(body, header, key, now_s=moment + 299)
    for wrong in (
        lambda: verify_signature(body + b" ", header, key, now_s=moment),
        lambda: verify_signature(body, header, key + "x", now_s=moment),
        lambda: verify_signature(body, header.replace("t=", "t=1"), key, now_s=moment),
        lambda: verify_signature(body, header, key, now_s=moment + 301),
        lambda: verify_signature(body, header, key, now_s=moment - 301),
    ):
        with pytest.raises(SignatureError):
            wrong()


@given(st.text(max_size=80))
def test_any_header_is_refused(header: str) -> None:
    with pytest.raises(SignatureError):
        verify_signature(b"{}", header, KEY)


# --- subscriptions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["https://example.org/x", "http://127.0.0.1:80/", "http://[::1]/", "http://localhost/"]
)
def test_urls_that_are_safe_are_taken(url: str) -> None:
    assert check_url(url).hostname


@pytest.mark.parametrize(
    "url",
    ["http://example.org/", "http://10.0.0.1/", "http://127.0.0.1.example.org/", "ftp://localhost/", "file:///etc",
     "https://user:pw@example.org/", "https:///x", "https://example.org/#x", "https://exa mple.org/", "",
     "https://example.org:99999/", "https://example.org:0/", "https://example.org/" + "x" * 2000, "https://[::1"],
)  # fmt: skip
def test_urls_that_are_not_safe_are_refused(url: str) -> None:
    with pytest.raises(InvalidInputError):
        check_url(url)


@pytest.mark.parametrize(
    "document",
    [[], {"a": []}, {"a b": {}}, {"a": {"url": "https://x.org", "secret_env": "K", "secret": "s"}},
     {"a": {"url": "https://x.org"}}, {"a": {"url": "https://x.org", "secret_env": "not a name"}},
     {"a": {"url": 1, "secret_env": "K"}}, {"a": {"url": "https://x.org", "secret_env": "K", "events": []}},
     {"a": {"url": "https://x.org", "secret_env": "K", "events": ["[a"]}},
     {"a": {"url": "https://x.org", "secret_env": "K", "events": "stage"}}],
)  # fmt: skip
def test_odd_subscriptions_are_refused(document: object) -> None:
    with pytest.raises(InvalidInputError):
        read_webhooks(document)


def test_a_registry_without_webhooks_starts_no_thread(
    repository: Repository, publish: Callable[..., None]
) -> None:
    publish("m", "1.0.0")
    before = set(threading.enumerate())
    Registry(repository).pin("m", "1.0.0")
    assert [each for each in set(threading.enumerate()) - before if each.name == "webhook"] == []
