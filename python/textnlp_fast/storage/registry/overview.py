"""The references of many models at once, for listings: what cannot be read is noted and left out."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from textnlp_fast.contents.windows import DATA_ERRORS, DataError
from textnlp_fast.objectstore import ObjectStore
from textnlp_fast.storage.registry.references import read_references
from textnlp_fast.storage.registry.rules import Rules, read_rules
from textnlp_fast.storage.registry.state import References

__all__ = ["overview"]

_READS_AT_ONCE: Final = 16


def overview(
    store: ObjectStore, names: Sequence[str], problems: dict[str, DataError]
) -> dict[str, References]:
    """What is said of these models, by name; `problems` gets the errors of those that cannot be read."""
    try:
        rules = read_rules(store)
    except DATA_ERRORS as error:
        problems["registry.json"] = error
        rules = Rules()

    def read(name: str) -> References | DataError:
        try:
            return read_references(store, name, rules)
        except DATA_ERRORS as error:
            return error

    found: dict[str, References] = {}
    with ThreadPoolExecutor(_READS_AT_ONCE) as pool:
        for name, each in zip(names, pool.map(read, names), strict=True):
            if isinstance(each, References):
                found[name] = each
            else:
                problems[name] = each
    return found
