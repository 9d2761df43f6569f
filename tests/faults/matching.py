"""Which requests a fault is for."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["RequestFault"]


@dataclass
class RequestFault:
    """What to do (`kind`, and what servers add) to which requests. ``hits`` counts how often it was done.

    ``path`` is searched in path and query. ``meanwhile`` runs when the request was done and the client has not heard of
    it yet.
    """

    kind: str
    method: str = ".*"
    path: str = ".*"
    after: int = 0
    times: int = 1
    code: int = 503
    meanwhile: Callable[[], None] | None = None
    hits: int = 0
    _seen: int = field(default=0, repr=False)

    def applies(self, method: str, path: str) -> bool:
        """Whether this request is one to harm; counts it."""
        if not re.fullmatch(self.method, method) or not re.search(self.path, path):
            return False
        self._seen += 1
        if not self.after < self._seen <= self.after + self.times:
            return False
        self.hits += 1
        return True
