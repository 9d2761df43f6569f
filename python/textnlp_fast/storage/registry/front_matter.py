"""The YAML at the head of a README: as much of YAML as model cards use, and nothing that does anything.

Mappings and lists by indentation, lists in brackets, quoted and plain text, block texts (`|`, `>`). All values are
text: `3` is "3" and `no` is "no". Anchors, aliases, tags, braces and more than one document are refused.
"""

from __future__ import annotations

import re
from typing import Final

from textnlp_fast.errors import InvalidInputError

__all__ = ["Value", "split_front_matter"]

Value = str | list["Value"] | dict[str, "Value"]

_BLANK: Final = " \t"
_MOST_LINES: Final = 20_000
_DEEPEST: Final = 16
_FENCE: Final = "---"
# Longer lists in brackets are no model card's; reading one costs the square of its length.
_MOST_LIST_CHARS: Final = 1 << 16
_QUOTED_KEY = re.compile(r"""("[^"\\]*"|'[^']*')[ \t]*:(?:[ \t]|$)""")
_COLON = re.compile(r":(?:[ \t]|$)")
_NOT_FIRST: Final = frozenset(" \t\"'[]{}#&*!|>%@`,?:")
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "/": "/", "0": "\0"}


def split_front_matter(text: str) -> tuple[dict[str, Value], str]:
    """What is between the `---` lines at the head, as values, and the text below.

    No head gives none. Raises InvalidInputError with the line that cannot be read.
    """
    lines = re.split(r"\r\n|\r|\n", text.removeprefix("\ufeff"))
    if not lines or lines[0].rstrip(_BLANK) != _FENCE:
        return {}, text.removeprefix("\ufeff")
    end = next(
        (number for number, line in enumerate(lines[1:], 1) if line.rstrip(_BLANK) in (_FENCE, "...")), None
    )
    if end is None:
        raise InvalidInputError("the front matter does not end", hint="Close it with a line of ---.")
    if end > _MOST_LINES:
        raise InvalidInputError(f"the front matter has {end} lines; at most {_MOST_LINES} are read")
    value = _Reader(lines[1:end]).document()
    return value, "\n".join(lines[end + 1 :]).lstrip("\n")


def _key_at(line: str) -> tuple[str, int] | None:
    """The key that a line begins with, and where its value does; None if it begins with none."""
    quoted = _QUOTED_KEY.match(line)
    if quoted is not None:
        return quoted[1][1:-1], quoted.end()
    colon = _COLON.search(line)
    if colon is None or not colon.start() or line[0] in _NOT_FIRST or line.startswith(("- ", "-\t")):
        return None
    key = line[: colon.start()].rstrip(_BLANK)
    return None if " #" in key or "\t#" in key else (key, colon.end())


class _Reader:
    """Reads lines by recursive descent; `self.at` is the next line."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self.at = 0

    def document(self) -> dict[str, Value]:
        if self.next_indent() is None:
            return {}
        value = self.block(self.next_indent() or 0, 0)
        if self.next_indent() is not None:
            raise self.wrong("this line is indented less than those before it, or does not belong here")
        if not isinstance(value, dict):
            raise self.wrong("the front matter is not a mapping of keys to values")
        return value

    def wrong(self, what: str) -> InvalidInputError:
        return InvalidInputError(f"line {min(self.at, len(self.lines) - 1) + 2} of the front matter: {what}")

    def next_indent(self) -> int | None:
        """Spaces before the next line that says something; None at the end."""
        while self.at < len(self.lines):
            line = self.lines[self.at]
            content = line.strip(_BLANK)
            if content and not content.startswith("#"):
                if "\t" in line[: len(line) - len(line.lstrip(_BLANK))]:
                    raise self.wrong("tabs do not indent")
                return len(line) - len(line.lstrip(" "))
            self.at += 1
        return None

    def block(self, indent: int, depth: int) -> Value:
        if depth > _DEEPEST:
            raise self.wrong(f"it is nested more than {_DEEPEST} deep")
        line = self.lines[self.at][indent:]
        if line == "-" or line.startswith("- "):
            return self.sequence(indent, depth)
        if _key_at(line) is not None:
            return self.mapping(indent, depth)
        raise self.wrong("neither `key: value` nor `- item`")

    def sequence(self, indent: int, depth: int) -> Value:
        items: list[Value] = []
        while self.next_indent() == indent:
            line = self.lines[self.at][indent:]
            if line != "-" and not line.startswith("- "):
                break
            rest = line[1:].lstrip(" ")
            if rest and not rest.startswith("#") and (_key_at(rest) is not None or rest.startswith("- ")):
                # The item begins on this line: what follows is indented like its first key.
                inner = indent + len(line) - len(rest)
                self.lines[self.at] = " " * inner + rest
                items.append(self.block(inner, depth + 1))
            else:
                items.append(self.value(rest, indent, depth, in_sequence=True))
        return items

    def mapping(self, indent: int, depth: int) -> Value:
        found: dict[str, Value] = {}
        while self.next_indent() == indent:
            at = _key_at(self.lines[self.at][indent:])
            if at is None:
                raise self.wrong("no `key: value`")
            key, end = at
            if key in found:
                raise self.wrong(f"the key {key!r} is there twice")
            rest = self.lines[self.at][indent + end :]
            found[key] = self.value(rest, indent, depth, in_sequence=False)
        if (self.next_indent() or 0) > indent:
            raise self.wrong("it is indented more than the line it follows")
        return found

    def value(self, rest: str, indent: int, depth: int, *, in_sequence: bool) -> Value:
        """What follows a key or a dash, on its line or below it."""
        text = rest.strip(_BLANK)
        if re.fullmatch(r"[|>][+-]?\d?([ \t]+#.*)?", text):
            return self.block_text(text, indent)
        self.at += 1
        if text and not text.startswith("#"):
            return self.scalar_or_list(text, indent)
        below = self.next_indent()
        if below is None or below < indent:
            return ""
        if below > indent:
            return self.block(below, depth + 1)
        # A list may stand below its key without being indented.
        line = self.lines[self.at][indent:]
        if not in_sequence and (line == "-" or line.startswith("- ")):
            return self.sequence(indent, depth + 1)
        return ""

    def block_text(self, mark: str, indent: int) -> str:
        if not re.fullmatch(r"[|>][+-]?", mark):
            raise self.wrong("block texts with an indentation or a comment are not read")
        self.at += 1
        lines: list[str] = []
        margin: int | None = None
        while self.at < len(self.lines):
            line = self.lines[self.at]
            lead = len(line) - len(line.lstrip(" "))
            if line.strip(_BLANK):
                if lead <= indent:
                    break
                margin = lead if margin is None else margin
                if lead < margin:
                    break
            lines.append(line[margin or 0 :] if line.strip(_BLANK) else "")
            self.at += 1
        while lines and not lines[-1]:
            lines.pop()
        if mark[0] == "|":
            text = "\n".join(lines)
        else:
            text = re.sub(r"(?<!\n)\n(?!\n)", " ", "\n".join(lines)).replace("\n\n", "\n")
        return text if mark.endswith("-") or not text else text + "\n"

    def scalar_or_list(self, text: str, indent: int) -> Value:
        if text[0] == "[":
            while "]" not in text and (self.next_indent() or 0) > indent:
                text += " " + self.lines[self.at].strip(_BLANK)
                self.at += 1
                self.check_list(text)
            self.check_list(text)
            return self.flow_list(text)
        value, rest = self.scalar(text, in_list=False)
        if rest and not rest.lstrip(_BLANK).startswith("#"):
            raise self.wrong("text follows the closing quote")
        return value

    def check_list(self, text: str) -> None:
        if len(text) > _MOST_LIST_CHARS:
            raise self.wrong(f"a list in brackets has more than {_MOST_LIST_CHARS} characters")

    def flow_list(self, text: str) -> Value:
        rest = text[1:].lstrip(_BLANK)
        items: list[Value] = []
        while not rest.startswith("]"):
            if not rest:
                raise self.wrong("a list in brackets does not end")
            item, rest = self.scalar(rest, in_list=True)
            items.append(item)
            rest = rest.lstrip(_BLANK)
            if rest.startswith(","):
                rest = rest[1:].lstrip(_BLANK)
            elif rest and not rest.startswith("]"):
                raise self.wrong("a list in brackets has no ',' between two items")
        if (rest := rest[1:].strip(_BLANK)) and not rest.startswith("#"):
            raise self.wrong("text follows a list in brackets")
        return items

    def scalar(self, text: str, *, in_list: bool) -> tuple[str, str]:
        """A text and what follows it on the line."""
        if text[0] == "'":
            match = re.match(r"'((?:[^']|'')*)'", text)
            if match is None:
                raise self.wrong("a text in quotes does not end on its line")
            return match[1].replace("''", "'"), text[match.end() :]
        if text[0] == '"':
            match = re.match(r'"((?:[^"\\]|\\.)*)"', text)
            if match is None:
                raise self.wrong("a text in quotes does not end on its line")
            return self.unescaped(match[1]), text[match.end() :]
        if text[0] in "&*!{}[]%@`|>,?" or (in_list and text[0] == "#"):
            raise self.wrong(f"{text[0]!r} begins something that is not read here")
        stop = re.search(r"[,\[\]{}]|[ \t]#" if in_list else r"[ \t]#", text)
        plain = text[: stop.start()] if stop else text
        if re.search(r":([ \t]|$)", plain):
            raise self.wrong("a text with ': ' needs quotes")
        return plain.strip(_BLANK), text[len(plain) :] if in_list else ""

    def unescaped(self, text: str) -> str:
        def one(match: re.Match[str]) -> str:
            if match[1] in _ESCAPES:
                return _ESCAPES[match[1]]
            if match[1][0] in "xuU" and len(match[1]) > 1 and int(match[1][1:], 16) <= 0x10FFFF:
                return chr(int(match[1][1:], 16))
            raise self.wrong(f"\\{match[1]} is no escape that is read here")

        return re.sub(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", one, text)
