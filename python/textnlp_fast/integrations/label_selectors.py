"""Label selectors as Kubernetes writes them in a query: `app=llm,tier!=test,zone in (a, b),gpu,!spot`.

After "Labels and Selectors" of Kubernetes' documentation. `!=` and `notin` also match where the label is missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from textnlp_fast.errors import InvalidInputError

__all__ = ["Selector", "parse_selector"]

Selector = Callable[[Mapping[str, str]], bool]

_KEY: Final = r"(?:[A-Za-z0-9][A-Za-z0-9.-]{0,252}/)?[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_VALUE: Final = r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?"
_TERM: Final = re.compile(
    rf"\s*(?:(?P<absent>!)\s*(?P<gone>{_KEY})"
    rf"|(?P<key>{_KEY})(?:\s*(?P<sign>==|!=|=)\s*(?P<value>{_VALUE})"
    rf"|\s+(?P<set>in|notin)\s*\((?P<values>[^()]*)\))?)\s*(?:,|$)",
    re.ASCII,
)
_LONGEST: Final = 4096


def parse_selector(text: str) -> Selector:
    """A function that says whether labels match. The empty text matches all. Raises InvalidInputError."""
    if len(text) > _LONGEST:
        raise InvalidInputError(f"the selector is longer than {_LONGEST} characters")
    terms: list[Selector] = []
    at = 0
    while at < len(text.rstrip()):
        match = _TERM.match(text, at)
        if match is None:
            raise InvalidInputError(f"the selector cannot be read at {text[at : at + 40]!r}")
        terms.append(_term(match))
        at = match.end()
    if text.rstrip().endswith(","):
        raise InvalidInputError("the selector ends with a comma")
    return lambda labels: all(term(labels) for term in terms)


def _term(match: re.Match[str]) -> Selector:
    if match["absent"]:
        gone = match["gone"]
        return lambda labels: gone not in labels
    key = match["key"]
    if match["sign"]:
        wanted, negated = {match["value"]}, match["sign"] == "!="
    elif match["set"]:
        wanted, negated = {one.strip() for one in match["values"].split(",")}, match["set"] == "notin"
        if not all(re.fullmatch(_VALUE, one, re.ASCII) for one in wanted):
            raise InvalidInputError(
                f"the selector has a value that no label can have: {match['values'][:80]!r}"
            )
    else:
        return lambda labels: key in labels
    if negated:
        return lambda labels: key not in labels or labels[key] not in wanted
    return lambda labels: labels.get(key) in wanted
