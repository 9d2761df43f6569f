"""Signatures of messages to webhooks, the registry's and the health monitor's: HMAC-SHA256 over the time and the body.

>>> header = sign(b"{}", "a key", at_s=1700000000)
>>> verify_signature(b"{}", header, "a key", now_s=1700000010)
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from typing import Final

from textnlp_fast.errors import InvalidInputError, SignatureError

__all__ = ["SIGNATURE_HEADER", "TOLERANCE_S", "sign", "verify_signature"]

SIGNATURE_HEADER: Final = "Textnlp-Fast-Signature"
TOLERANCE_S: Final = 300.0
_HEADER = re.compile(r"t=(?P<time>\d{1,12}),v1=(?P<signature>[0-9a-f]{64})", re.ASCII)


def sign(body: bytes, key: str, *, at_s: float | None = None) -> str:
    """The header's value for a message sent now, or at `at_s` seconds since 1970."""
    if not key:
        raise InvalidInputError(
            "the key of a webhook is empty", hint="Use 32 random bytes, as hex or base64."
        )
    moment = str(int(time.time() if at_s is None else at_s))
    return f"t={moment},v1={_mac(moment, body, key)}"


def verify_signature(
    body: bytes, header: str, key: str, *, tolerance_s: float = TOLERANCE_S, now_s: float | None = None
) -> None:
    """Raises SignatureError unless the message was signed with the key, and within the last `tolerance_s` seconds.

    A receiver calls it with the body's bytes as they came. Within the tolerance a message can be sent to it again by
    whoever saw it: each carries an `id` by which to know it.
    """
    match = _HEADER.fullmatch(header)
    if match is None or not key:
        raise SignatureError("the message has no signature of this form")
    # Compared first and in constant time: what else is said of a message that is not the sender's tells him nothing.
    if not hmac.compare_digest(_mac(match["time"], body, key), match["signature"]):
        raise SignatureError("the message was not signed with this key")
    age_s = (time.time() if now_s is None else now_s) - int(match["time"])
    if abs(age_s) > tolerance_s:
        raise SignatureError(f"the message was signed {age_s:.0f} s ago; {tolerance_s:g} s are allowed")


def _mac(moment: str, body: bytes, key: str) -> str:
    return hmac.new(key.encode(), moment.encode() + b"." + body, hashlib.sha256).hexdigest()
