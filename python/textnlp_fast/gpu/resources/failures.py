"""What failed where, remembered for a while across processes, so that it is not tried first again."""

from __future__ import annotations

import datetime
import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from textnlp_fast.errors import ConflictError, CorruptDataError, MissingObjectError
from textnlp_fast.gpu.types import Market
from textnlp_fast.objectstore import ObjectStore

__all__ = ["Failure", "Failures", "Place"]

_LIMIT_BYTES: Final = 1 << 16
# For how long what failed is put behind what did not: how soon each kind of trouble can pass.
_LASTS_S: Final[Mapping[str, float]] = {
    "CapacityError": 600.0,
    "QuotaError": 3600.0,
    "PriceTooHighError": 600.0,
    "UnknownRegionError": 86400.0,
    "AuthenticationError": 300.0,
    "ProviderUnavailableError": 300.0,
    "InvalidInputError": 3600.0,
}
_LONGEST_S: Final = 6 * 3600.0


@dataclass(frozen=True)
class Place:
    """Where a launch is tried. Hashable."""

    provider: str
    region: str
    zone: str | None
    instance_type: str
    market: Market

    @property
    def key(self) -> str:
        """Where its failures lie in the store."""
        words = json.dumps([self.provider, self.region, self.zone, self.instance_type, str(self.market)])
        return f"failures/{hashlib.sha256(words.encode()).hexdigest()[:40]}.json"


@dataclass(frozen=True, kw_only=True)
class Failure:
    """`kind` is the error's class; `times` how often in a row."""

    kind: str
    why: str
    at: datetime.datetime
    until: datetime.datetime
    times: int


class Failures:
    """Hints, not truth: what cannot be read is as if it had not been, and of two writers either may win."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def of(self, place: Place, now: datetime.datetime) -> Failure | None:
        """What failed there and may do so still."""
        found = self._read(place)
        return found if found is not None and found.until > now else None

    def remember(self, place: Place, error: BaseException, now: datetime.datetime) -> None:
        """Each failure in a row is remembered twice as long as the one before."""
        kind = type(error).__name__
        before = self._read(place)
        # Long past is not in a row.
        recent = before is not None and before.kind == kind and now - before.until < before.until - before.at
        times = before.times + 1 if before is not None and recent else 1
        lasts_s = min(_LONGEST_S, _LASTS_S.get(kind, 600.0) * 2.0 ** min(times - 1, 20))
        document = {
            "format": 1,
            "kind": kind,
            "why": str(error.args[0])[:500] if error.args else kind,
            "at": now.isoformat(),
            "until": (now + datetime.timedelta(seconds=lasts_s)).isoformat(),
            "times": times,
            "write_id": secrets.token_hex(8),
        }
        self._store.put_object(place.key, json.dumps(document, sort_keys=True).encode())

    def forget(self, place: Place) -> None:
        """It worked."""
        self._store.delete(place.key)

    def _read(self, place: Place) -> Failure | None:
        try:
            document = json.loads(self._store.get(place.key, limit_bytes=_LIMIT_BYTES))
            found = Failure(
                kind=str(document["kind"]),
                why=str(document["why"]),
                at=datetime.datetime.fromisoformat(document["at"]),
                until=datetime.datetime.fromisoformat(document["until"]),
                times=int(document["times"]),
            )
        except (MissingObjectError, CorruptDataError, ConflictError, ValueError, KeyError, TypeError):
            return None
        return None if found.at.tzinfo is None or found.until.tzinfo is None else found
