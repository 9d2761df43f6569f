"""A sealed document is the canonical form of all of it, with the digest of the canonical form of the rest."""

from __future__ import annotations

import json
from typing import Any

import blake3
from hypothesis import given
from hypothesis import strategies as st

from textnlp_fast.contents.documents import parse_document, seal_document

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def canonical(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


@given(st.dictionaries(st.text().filter(lambda key: key not in {"digest", "format"}), VALUES, max_size=6))
def test_documents_are_sealed_as_the_format_says(members: dict[str, Any]) -> None:
    document = {**members, "format": 1}
    sealed = seal_document(document)
    digest = blake3.blake3(canonical(document)).hexdigest()
    assert sealed == canonical({**document, "digest": digest})
    assert parse_document(sealed, "it") == document
