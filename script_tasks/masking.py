"""Masking the values of secrets in what a script printed, in the spellings that docs/tasks.md lists.

Runs in the script worker, outside of the script's process, for every language alike.
"""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
import urllib.parse
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

MASK: Final = "********"
SHORTEST_MASKED_CHARS: Final = 4
"""A shorter secret is not masked: it occurs in ordinary words, and can be guessed."""
SHORTEST_LINE_CHARS: Final = 8
"""A shorter line of a secret of several lines is not masked by itself: a line `}` would mask every `}`."""
_KEY_CHARS: Final = 8
"""Spellings are looked up by their first characters, this many at most."""
_URL_SAFE: Final = (
    # urllib.parse.quote(safe=""), quote_plus and urlencode; Go's url.QueryEscape
    "",
    # urllib.parse.quote
    "/",
    # Go's url.PathEscape, url.URL, and url.Userinfo
    "$&+=:@",
    "$&+,/:;=@",
    "$&+,;=",
    # JavaScript's encodeURIComponent and encodeURI
    "!'()*",
    "!'()*;/?:@&=+$,#",
)
"""Which characters, beside letters, digits and `_.-~`, an encoder of URLs leaves as they are."""
_GO_ESCAPES: Final = dict(zip('\a\b\f\n\r\t\v"\\', (f"\\{char}" for char in 'abfnrtv"\\'), strict=True))
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.-]*")
_BASE64_LINES: Final = (64, 76)
"""Where encoders of base64 break lines: OpenSSL, and `base64` as well as Python's `encodebytes`."""
_BASE64_BITS: Final = 6
_CONTROLS: Final = range(0x20)
_DELETE: Final = 0x7F
_LAST_OF_TWO_BYTES: Final = 0xFFFF


def masked(text: str, secrets: Iterable[str], *, cut: bool = False) -> str:
    """Return `text` with `MASK` in the place of every listed spelling of every secret.

    Spellings that overlap become one mask. The time grows with the length of the text and hardly with the number of
    spellings: 0.1 s for 128 KiB and 100 secrets, and two seconds for secrets and a text that were made to take long.

    Args:
        text: what a script printed, before anything of it is cut off.
        secrets: the values that the script was given.
        cut: whether `text` may end in the middle of a spelling, whose beginning is then masked as well.
    """
    parts: list[str] = []
    copied = 0
    for start, end in _stretches(text, spellings(secrets), cut=cut):
        parts += (text[copied:start], MASK)
        copied = end
    return "".join(parts) + text[copied:]


def spellings(secrets: Iterable[str]) -> set[str]:
    """Return every text that is masked for these secrets."""
    found: set[str] = set()
    for secret in secrets:
        for value in _values(secret):
            found |= {spelling for spelling in _spellings(value) if len(spelling) >= SHORTEST_MASKED_CHARS}
    return found


class _Sought:
    """The spellings to look for, in such an order that the longest one at a place is found without trying all."""

    def __init__(self, hidden: set[str]) -> None:
        self.ordered = sorted(hidden)
        self.shorter: list[int] = []
        """For each: the longest other one that it begins with; -1 where there is none."""
        self.groups: dict[str, tuple[int, int, int]] = {}
        """For each first `_KEY_CHARS` characters: where such spellings begin and end, and the longest one's length."""
        self.short: defaultdict[int, set[str]] = defaultdict(set)
        """Those with fewer characters, by their number."""
        beginnings: list[int] = []
        for index, spelling in enumerate(self.ordered):
            while beginnings and not spelling.startswith(self.ordered[beginnings[-1]]):
                beginnings.pop()
            self.shorter.append(beginnings[-1] if beginnings else -1)
            beginnings.append(index)
            if len(spelling) < _KEY_CHARS:
                self.short[len(spelling)].add(spelling)
            else:
                key = spelling[:_KEY_CHARS]
                first, _, longest = self.groups.get(key, (index, 0, 0))
                self.groups[key] = first, index + 1, max(longest, len(spelling))

    def found_in(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield start and end of the longest spelling at each place that has one, and of some shorter ones."""
        for length, group in self.short.items():
            yield from ((at, at + length) for at in range(len(text)) if text[at : at + length] in group)
        for at in [at for at in range(len(text)) if text[at : at + _KEY_CHARS] in self.groups]:
            first, end, longest = self.groups[text[at : at + _KEY_CHARS]]
            # All that begin the text here begin the last one that is not behind the text in the order, too.
            index = bisect_right(self.ordered, text[at : at + longest], first, end) - 1
            while index >= first and not text.startswith(self.ordered[index], at):
                index = self.shorter[index]
            if index >= first:
                yield at, at + len(self.ordered[index])

    def start_of_cut(self, text: str) -> int:
        """Return where the longest beginning of a spelling starts that ends the text; its length if there is none."""
        longest = max(map(len, self.ordered), default=0)
        for at in range(max(0, len(text) - longest + 1), len(text)):
            if len(text) - at >= _KEY_CHARS and text[at : at + _KEY_CHARS] not in self.groups:
                continue
            left = text[at:]
            index = bisect_right(self.ordered, left)
            if index < len(self.ordered) and self.ordered[index].startswith(left):
                return at
        return len(text)


def _stretches(text: str, hidden: set[str], *, cut: bool) -> Iterator[tuple[int, int]]:
    """Yield start and end of what is to be masked, in order and without overlaps."""
    sought = _Sought(hidden)
    found = list(sought.found_in(text))
    if cut:
        found.append((sought.start_of_cut(text), len(text)))
    start, end = 0, 0
    for each_start, each_end in sorted(found):
        if each_start >= end:
            if end > start:
                yield start, end
            start = each_start
        end = max(end, each_end)
    if end > start:
        yield start, end


def _values(secret: str) -> Iterator[str]:
    """Yield a secret, and what scripts make of it by stripping it and taking it apart into lines."""
    stripped = secret.strip()
    if len(stripped) < SHORTEST_MASKED_CHARS:
        # White space is no secret, and masking it would mask most of every output.
        return
    yield secret
    yield stripped
    lines = stripped.splitlines()
    if len(lines) > 1:
        yield from (line for each in lines if len(line := each.strip()) >= SHORTEST_LINE_CHARS)


def _spellings(value: str) -> Iterator[str]:
    yield value
    yield from _bytes(value.encode())
    if _PLAIN.fullmatch(value):
        # Every other spelling is the value itself.
        return
    for line_end in ("\n", "\r\n"):
        yield re.sub(r"\r\n|\r|\n", line_end, value)
    yield from _json(value)
    yield from _python_and_go(value)
    yield from _url(value)
    yield from _html(value)
    yield from _shell(value)


def _json(value: str) -> Iterator[str]:
    for ascii_only in (True, False):
        plain = json.dumps(value, ensure_ascii=ascii_only)[1:-1]
        # Go writes what HTML could take for markup, and JavaScript for line ends, as numbers.
        for_html = re.sub("[<>&\u2028\u2029]", lambda found: f"\\u{ord(found[0]):04x}", plain)
        for written in (plain, for_html):
            yield written
            yield written.replace("/", "\\/")


def _python_and_go(value: str) -> Iterator[str]:
    # Quotes are handled below: whether repr() escapes one depends on the other quotes in the same literal.
    bare = "".join(char if char in "'\"" else repr(char)[1:-1] for char in value)
    in_ascii = "".join(char if char in "'\"" else ascii(char)[1:-1] for char in value)
    in_bytes = "".join(chr(byte) if byte in b"'\"" else repr(bytes([byte]))[2:-1] for byte in value.encode())
    for written in (bare, in_ascii, in_bytes):
        yield written
        yield written.replace("'", "\\'")
        yield written.replace('"', '\\"')
    for ascii_only in (True, False):
        yield "".join(_go_quoted(char, ascii_only=ascii_only) for char in value)


def _go_quoted(char: str, *, ascii_only: bool) -> str:
    """Return a character as Go's `%q` writes it, or `%+q`."""
    if char in _GO_ESCAPES:
        return _GO_ESCAPES[char]
    number = ord(char)
    if number in _CONTROLS or number == _DELETE:
        return f"\\x{number:02x}"
    if char.isprintable() and (number < _DELETE or not ascii_only):
        return char
    return f"\\u{number:04x}" if number <= _LAST_OF_TWO_BYTES else f"\\U{number:08x}"


def _url(value: str) -> Iterator[str]:
    for safe in _URL_SAFE:
        for written in (urllib.parse.quote(value, safe=safe), urllib.parse.quote_plus(value, safe=safe)):
            yield written
            yield re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), written)


def _html(value: str) -> Iterator[str]:
    plain = html.escape(value, quote=False)
    yield plain
    # Python's html.escape, Go and Jinja, XML.
    for double, single in (("&quot;", "&#x27;"), ("&#34;", "&#39;"), ("&quot;", "&apos;"), ("&quot;", "&#39;")):
        yield plain.replace('"', double).replace("'", single)
        yield plain.replace('"', double)


def _shell(value: str) -> Iterator[str]:
    yield shlex.quote(value)
    yield value.replace("'", "'\"'\"'")
    yield value.replace("'", "'\\''")
    yield re.sub(r"([^\w@%+=:,./\n-])", r"\\\1", value, flags=re.ASCII)
    yield re.sub(r'([$`"\\])', r"\\\1", value)


def _bytes(value: bytes) -> Iterator[str]:
    yield value.hex()
    yield value.hex().upper()
    whole = base64.b64encode(value).decode()
    standard = [whole, whole.rstrip("=")]
    for length in _BASE64_LINES:
        if len(whole) > length:
            lines = [whole[at : at + length] for at in range(0, len(whole), length)]
            standard += [line for line in lines if len(line) >= SHORTEST_LINE_CHARS]
    # Inside of a longer text, such as `user:secret`, its first byte can stand at each of three places. Characters that
    # depend on the neighbours as well are left out.
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + value).decode()
        first = -(-before * 8 // _BASE64_BITS)
        inner = encoded[first : (before + len(value)) * 8 // _BASE64_BITS]
        if len(inner) >= SHORTEST_MASKED_CHARS:
            standard.append(inner)
    for encoded in standard:
        yield encoded
        yield encoded.replace("+", "-").replace("/", "_")
