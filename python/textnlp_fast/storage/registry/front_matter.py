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

_MOST_LINES: Final = 20_000
_DEEPEST: Final = 16
_FENCE: Final = "---"
_KEY = re.compile(
    r"""(?P<key>"[^"\\]*"|'[^']*'|[^\s"'\[\]{}#&*!|>%@`,?:-][^#]*?|-[^\s#][^#]*?)\s*:(?:\s+|$)"""
)
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "/": "/", "0": "\0"}


def split_front_matter(text: str) -> tuple[dict[str, Value], str]:
    """What is between the `---` lines at the head, as values, and the text below.

    No head gives none. Raises InvalidInputError with the line that cannot be read.
    """
    lines = text.removeprefix("\ufeff").splitlines()
    if not lines or lines[0].rstrip() != _FENCE:
        return {}, text.removeprefix("\ufeff")
    end = next((number for number, line in enumerate(lines[1:], 1) if line.rstrip() in (_FENCE, "...")), None)
    if end is None:
        raise InvalidInputError("the front matter does not end", hint="Close it with a line of ---.")
    if end > _MOST_LINES:
        raise InvalidInputError(f"the front matter has {end} lines; at most {_MOST_LINES} are read")
    value = _Reader(lines[1:end]).document()
    return value, "\n".join(lines[end + 1 :]).lstrip("\n")


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
            content = line.strip()
            if content and not content.startswith("#"):
                if "\t" in line[: len(line) - len(line.lstrip())]:
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
        if _KEY.match(line):
            return self.mapping(indent, depth)
        raise self.wrong("neither `key: value` nor `- item`")

    def sequence(self, indent: int, depth: int) -> Value:
        items: list[Value] = []
        while self.next_indent() == indent:
            line = self.lines[self.at][indent:]
            if line != "-" and not line.startswith("- "):
                break
            rest = line[1:].lstrip(" ")
            if rest and not rest.startswith("#") and (_KEY.match(rest) or rest.startswith("- ")):
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
            match = _KEY.match(self.lines[self.at][indent:])
            if match is None:
                raise self.wrong("no `key: value`")
            key = match["key"]
            key = key[1:-1] if key[0] in "\"'" else key
            if key in found:
                raise self.wrong(f"the key {key!r} is there twice")
            rest = self.lines[self.at][indent + match.end() :]
            found[key] = self.value(rest, indent, depth, in_sequence=False)
        if (self.next_indent() or 0) > indent:
            raise self.wrong("it is indented more than the line it follows")
        return found

    def value(self, rest: str, indent: int, depth: int, *, in_sequence: bool) -> Value:
        """What follows a key or a dash, on its line or below it."""
        text = rest.strip()
        if re.fullmatch(r"[|>][+-]?\d?(\s+#.*)?", text):
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
            if line.strip():
                if lead <= indent:
                    break
                margin = lead if margin is None else margin
                if lead < margin:
                    break
            lines.append(line[margin or 0 :] if line.strip() else "")
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
                text += " " + self.lines[self.at].strip()
                self.at += 1
            return self.flow_list(text)
        value, rest = self.scalar(text, in_list=False)
        if rest and not rest.lstrip().startswith("#"):
            raise self.wrong("text follows the closing quote")
        return value

    def flow_list(self, text: str) -> Value:
        rest = text[1:].lstrip()
        items: list[Value] = []
        while not rest.startswith("]"):
            if not rest:
                raise self.wrong("a list in brackets does not end")
            item, rest = self.scalar(rest, in_list=True)
            items.append(item)
            rest = rest.lstrip()
            if rest.startswith(","):
                rest = rest[1:].lstrip()
            elif not rest.startswith("]"):
                raise self.wrong("a list in brackets has no ',' between two items")
        if (rest := rest[1:].strip()) and not rest.startswith("#"):
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
        stop = re.search(r"[,\[\]{}]|\s#" if in_list else r"\s#", text)
        plain = text[: stop.start()] if stop else text
        if re.search(r":(\s|$)", plain):
            raise self.wrong("a text with ': ' needs quotes")
        return plain.strip(), text[len(plain) :] if in_list else ""

    def unescaped(self, text: str) -> str:
        def one(match: re.Match[str]) -> str:
            if match[1] in _ESCAPES:
                return _ESCAPES[match[1]]
            if match[1][0] in "xuU" and len(match[1]) > 1 and int(match[1][1:], 16) <= 0x10FFFF:
                return chr(int(match[1][1:], 16))
            raise self.wrong(f"\\{match[1]} is no escape that is read here")

        return re.sub(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", one, text)
