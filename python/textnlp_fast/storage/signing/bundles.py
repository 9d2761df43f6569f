"""A signature as an object: a Sigstore bundle around a DSSE envelope, as model-signing writes and reads it."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, Final

from textnlp_fast.contents.documents import Broken, canonical, count_values, take
from textnlp_fast.storage.signing.keys import PrivateKey, PublicKey
from textnlp_fast.storage.signing.statements import PAYLOAD_TYPE

__all__ = ["MAX_BUNDLE_BYTES", "open_bundle", "seal_bundle"]

MAX_BUNDLE_BYTES: Final = 32 << 20
_MOST_VALUES: Final = 1000
_MEDIA_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"


def _signed_bytes(payload: bytes) -> bytes:
    """What DSSE signs: the payload with its type and both lengths in front."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def seal_bundle(payload: bytes, key: PrivateKey) -> bytes:
    """The bundle of a payload signed with `key`."""
    signature = key.sign(_signed_bytes(payload))
    return canonical(
        {
            "dsseEnvelope": {
                "payload": base64.b64encode(payload).decode(),
                "payloadType": PAYLOAD_TYPE,
                "signatures": [{"keyid": "", "sig": base64.b64encode(signature).decode()}],
            },
            "mediaType": _MEDIA_TYPE,
            "verificationMaterial": {"publicKey": {"hint": key.id}, "tlogEntries": []},
        }
    )


def open_bundle(data: bytes, key: PublicKey) -> bytes:
    """The payload, once its signature was found to be one of `key`. Raises Broken with what is wrong.

    Stricter than it need be: one signature, one payload type, one way to sign. What older writers did is refused.
    """
    if count_values(data) > _MOST_VALUES:
        raise Broken("it has more fields than a bundle")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Broken(f"it is not JSON: {error}") from None
    if not isinstance(document, dict) or document.get("mediaType") != _MEDIA_TYPE:
        raise Broken("it is not a Sigstore bundle of version 0.3")
    envelope: dict[str, Any] = take(document, "dsseEnvelope", dict, "it")
    if envelope.get("payloadType") != PAYLOAD_TYPE:
        raise Broken("its payload is of another type")
    signatures = take(envelope, "signatures", list, "it")
    if len(signatures) != 1 or not isinstance(signatures[0], dict):
        raise Broken("it does not have one signature")
    payload = _decoded(take(envelope, "payload", str, "it"))
    if not key.verifies(_decoded(take(signatures[0], "sig", str, "it")), _signed_bytes(payload)):
        raise Broken("it was not made with this key, or what it signs was changed")
    return payload


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Broken("a field of it is not base64") from None
