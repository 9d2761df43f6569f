"""Keys that verbs are given, or find in settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from textnlp_fast.cli.configured import current_settings
from textnlp_fast.errors import InvalidInputError

if TYPE_CHECKING:
    from textnlp_fast.storage.signing import PrivateKey, SignaturePolicy

__all__ = ["private_key", "signature_policy"]


def private_key(path: str | None) -> PrivateKey | None:
    """The key at ``path``, or the one that settings name; None if there is neither."""
    settings = current_settings()
    place = path or (settings.sign_key if settings is not None else None)
    if place is None:
        return None
    from textnlp_fast.storage.signing import PrivateKey  # noqa: PLC0415

    password = settings.sign_key_password if settings is not None else None
    return PrivateKey.read(place, password.get_secret_value() if password is not None else None)


def signature_policy(model: str, required: bool, public_keys: Sequence[str]) -> SignaturePolicy | None:
    """What a pull of ``model`` must be signed with; None leaves it to the settings."""
    from textnlp_fast.storage.signing import SignaturePolicy  # noqa: PLC0415

    if public_keys:
        own, wanted = SignaturePolicy.current(), SignaturePolicy.of(public_keys)
        return SignaturePolicy((*own.needs, *wanted.needs))
    if not required:
        return None
    policy = SignaturePolicy.current()
    if not policy.needs_of(model):
        raise InvalidInputError(
            f"a signature of {model!r} is required, and nothing says whose",
            hint="Give --public-key PUB.PEM, or set signature_policy (docs/guide/security.md).",
        )
    return policy
