"""Signed versions: who published these files, whoever may write to the bucket. `docs/guide/security.md` explains it."""

from textnlp_fast.storage.signing.keys import PrivateKey, PublicKey
from textnlp_fast.storage.signing.policy import SignatureNeed, SignaturePolicy
from textnlp_fast.storage.signing.signatures import Signed, require_signatures, sign_files, sign_version

__all__ = [
    "PrivateKey",
    "PublicKey",
    "SignatureNeed",
    "SignaturePolicy",
    "Signed",
    "require_signatures",
    "sign_files",
    "sign_version",
]
