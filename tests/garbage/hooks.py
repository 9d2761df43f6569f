"""An object store that lets something else happen before one of its calls: a pause as long as one likes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from textnlp_fast.objectstore import ObjectStore

_CALLS = frozenset(
    {
        "get",
        "get_versioned",
        "get_range",
        "get_ranges",
        "head",
        "exists",
        "list",
        "put_object",
        "create",
        "compare_and_swap",
        "delete",
    }
)


class HookedStore:
    """The store; runs `hook` once, before call number `at` (from 0), or before the first that `when` picks."""

    def __init__(
        self,
        store: ObjectStore,
        hook: Callable[[], None] = lambda: None,
        *,
        at: int | None = None,
        when: Callable[[str, str], bool] = lambda verb, key: False,
    ) -> None:
        self._store = store
        self._hook = hook
        self._at = at
        self._when = when
        self._lock = threading.Lock()
        self.calls: list[tuple[str, str]] = []
        self.happened: tuple[str, str] | None = None

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name not in _CALLS:
            return found

        def call(*arguments: Any, **options: Any) -> Any:
            what = name, str(arguments[0]) if arguments else ""
            with self._lock:
                number = len(self.calls)
                self.calls.append(what)
                now = self.happened is None and (number == self._at or self._when(*what))
                if now:
                    self.happened = what
            if now:
                self._hook()
            return found(*arguments, **options)

        return call
