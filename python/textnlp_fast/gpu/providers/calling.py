"""Calls of a control plane, again where it throttles or does not answer, up to a deadline.

For clients whose own retries are switched off, because they take "no capacity", which some clouds answer with 503, for
a reason to ask again. Whatever is called here may be repeated.
"""

from __future__ import annotations

import importlib
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from textnlp_fast.errors import (
    AuthenticationError,
    MissingPackageError,
    ProviderUnavailableError,
    TextnlpFastError,
)
from textnlp_fast.telemetry import count

__all__ = ["Meaning", "NoCredentialsError", "Patience", "asked_pause_s", "at_once", "imported"]

LONGEST_PAUSE_S: Final = 8.0
_AT_ONCE: Final = 8
Answer = TypeVar("Answer")
Thing = TypeVar("Thing")


class NoCredentialsError(AuthenticationError):
    """There are none on this machine, so that the cloud was asked nothing."""


@dataclass(frozen=True)
class Meaning:
    """What an error of a client means: the error of ours, whether to ask again, and when the cloud said to."""

    error: TextnlpFastError
    again: bool = False
    after_s: float | None = None


def imported(module: str, *, provider: str, package: str, extra: str) -> Any:
    """A module of a cloud's SDK, when it is first needed. MissingPackageError names `package` and how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackageError(
            f"the provider {provider} needs {package}", hint=f"Run: pip install 'textnlp-fast[{extra}]'"
        ) from error


def asked_pause_s(error: Any) -> float | None:
    """The seconds that the answer behind a client's error says to wait (`Retry-After`); None: it says none."""
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    try:
        return max(0.0, float(headers.get("Retry-After", "")))
    except ValueError:
        return None


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long one call may take with all its tries, and each request of it."""

    timeout_s: float = 30.0
    """Of one request."""
    deadline_s: float = 120.0
    """Of one call, with its tries and pauses."""
    retries: int = 5
    first_pause_s: float = 0.3
    """Upper end of the first random pause; doubles up to 8 s."""

    def until(self) -> float:
        """The deadline of what begins now, by the monotonic clock."""
        return time.monotonic() + self.deadline_s

    def call(
        self, ask: Callable[[float], Answer], meaning_of: Callable[[Exception], Meaning], *, until: float
    ) -> Answer:
        """What `ask(timeout_s)` answers; its errors are told by `meaning_of` and raised as ours.

        Raises ProviderUnavailableError where the deadline comes before an answer.
        """
        ceiling_s, last = self.first_pause_s, None
        for attempt in range(self.retries + 1):
            left_s = until - time.monotonic()
            if left_s <= 0:
                break
            try:
                return ask(min(self.timeout_s, left_s))
            except Exception as error:
                meaning = meaning_of(error)
                if not meaning.again:
                    raise meaning.error from error
                last = (meaning.error, error)
            # A pause that the cloud asks for is kept, unless it ends behind the deadline.
            pause_s = meaning.after_s if meaning.after_s is not None else random.uniform(0, ceiling_s)
            if attempt == self.retries or time.monotonic() + pause_s >= until:
                break
            count(retries=1)
            time.sleep(pause_s)
            ceiling_s = min(2 * ceiling_s, LONGEST_PAUSE_S)
        if last is None:
            raise ProviderUnavailableError(f"no answer within {self.deadline_s:g} s")
        raise last[0] from last[1]

    def pauses(self, *, until: float) -> Callable[[], bool]:
        """A function that waits a little longer at each call, and is False when the deadline has come."""
        ceiling_s = [self.first_pause_s]

        def pause() -> bool:
            left_s = until - time.monotonic()
            if left_s <= 0:
                return False
            time.sleep(min(left_s, ceiling_s[0] * random.uniform(0.5, 1)))
            ceiling_s[0] = min(1.5 * ceiling_s[0], LONGEST_PAUSE_S)
            return True

        return pause


def at_once(do: Callable[[Thing], Answer], things: Sequence[Thing]) -> list[Answer]:
    """What `do` makes of each, up to eight at a time, in their order."""
    if len(things) < 2:
        return [do(one) for one in things]
    with ThreadPoolExecutor(min(_AT_ONCE, len(things)), thread_name_prefix="provider") as pool:
        return list(pool.map(do, things))
