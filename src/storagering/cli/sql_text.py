"""Where SQL statements end, without understanding them: quotes and comments may hold a semicolon."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: What a semicolon means nothing in, whole.
_WHOLE = re.compile(
    r"""(?<!\w)[eE]'(?:[^'\\]|\\.|'')*+' | '(?:[^']|'')*+' | "(?:[^"]|"")*+" | --[^\n]*+\n | /\*.*?\*/
    | (?P<tag>\$(?:[a-z_]\w*)?\$).*?(?P=tag)""",
    re.I | re.S | re.X,
)
_OPENER = re.compile(r"(?<!\w)[eE]'|'|\"|--|/\*|\$(?:[a-z_]\w*)?\$", re.I)
_PLAIN = re.compile(r"[^;'\"$/eE-]+")
_BLANK = re.compile(r"(?:\s|--[^\n]*(?:\n|\Z)|/\*.*?\*/)*", re.S)


@dataclass(frozen=True, slots=True)
class Script:
    """Some text, cut into statements.

    Attributes:
        statements: the whole ones, without their semicolons and without blank ones.
        rest: what follows the last semicolon.
        opener: the quote or comment sign that is not closed at the end of the text, '' if none; ``--`` on a
            last line without its end, too.
        inside: where the text after that sign begins.
    """

    statements: tuple[str, ...]
    rest: str
    opener: str
    inside: int

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left over."""
        return is_blank(self.rest)


def cut_script(text: str) -> Script:
    """Cut text at the semicolons that end statements."""
    statements, start, at, opener = [], 0, 0, ""
    while at < len(text) and not opener:
        if found := _PLAIN.match(text, at) or _WHOLE.match(text, at):
            at = found.end()
        elif found := _OPENER.match(text, at):
            opener, at = found[0], found.end()
        else:
            if text[at] == ";":
                statements.append(text[start:at])
                start = at + 1
            at += 1
    return Script(tuple(s.strip() for s in statements if not is_blank(s)), text[start:], opener, at)


def is_blank(text: str) -> bool:
    """Whether there are only spaces and comments."""
    return _BLANK.fullmatch(text) is not None
