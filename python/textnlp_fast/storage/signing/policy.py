"""Which models need signatures of which keys."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.storage.signing.keys import PublicKey

if TYPE_CHECKING:
    from textnlp_fast.config import Settings

__all__ = ["SignatureNeed", "SignaturePolicy"]


@dataclass(frozen=True, slots=True)
class SignatureNeed:
    """Models whose names match `models` need signatures of `threshold` of these keys."""

    models: str
    keys: tuple[PublicKey, ...]
    threshold: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.threshold <= len({key.id for key in self.keys}):
            raise InvalidInputError(
                f"{self.threshold} signatures are asked for, of {len({key.id for key in self.keys})} keys",
                hint="Name as many different keys as signatures are needed, at least one.",
            )


@dataclass(frozen=True, slots=True)
class SignaturePolicy:
    """All needs that a model's name matches must be met. Without needs nothing is asked for."""

    needs: tuple[SignatureNeed, ...] = ()

    @classmethod
    def of(cls, public_keys: Sequence[str | os.PathLike[str]], *, threshold: int = 1) -> SignaturePolicy:
        """Every model needs signatures of `threshold` of these keys (PEM files)."""
        return cls((SignatureNeed("*", tuple(map(PublicKey.read, public_keys)), threshold),))

    @classmethod
    def from_settings(cls, settings: Settings) -> SignaturePolicy:
        """What the setting `signature_policy` says. Raises InvalidInputError for keys that cannot be read."""
        return cls(
            tuple(
                SignatureNeed(rule.models, tuple(map(PublicKey.read, rule.public_keys)), rule.threshold)
                for rule in settings.signature_policy
            )
        )

    @classmethod
    def current(cls) -> SignaturePolicy:
        """As the environment and the files that it names say, at this moment."""
        # Most say nothing, and looking at all settings takes a while.
        if not any(
            os.environ.get(f"TEXTNLP_FAST_{name}") for name in ("SIGNATURE_POLICY", "CONFIG", "ENV_FILE")
        ):
            return cls()
        from textnlp_fast.config import load_settings  # noqa: PLC0415

        return cls.from_settings(load_settings())

    def needs_of(self, model: str) -> tuple[SignatureNeed, ...]:
        """Those that a model must meet."""
        return tuple(need for need in self.needs if fnmatchcase(model, need.models))
