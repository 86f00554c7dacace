"""Which spellings of secrets are masked in the output of scripts, whatever stands around them."""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
import urllib.parse
from collections.abc import Callable
from typing import Any, Final
from xml.sax import saxutils

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from script_tasks import masking
from script_tasks.masking import MASK, masked

_PEM: Final = "-----BEGIN KEY-----\nMIIEowIBAAKCAQEA75dZ\n}\nshort\n  u8Yl0wXqzJ+/rT6n0w==  \n-----END KEY-----\n"


def _lower(url: str) -> str:
    return re.sub("%..", lambda found: found[0].lower(), url)


SPELLINGS: Final[dict[str, Callable[[str], str]]] = {
    "as it is": str,
    "JSON": json.dumps,
    "JSON with letters of all alphabets": lambda value: json.dumps(value, ensure_ascii=False),
    "JSON with slashes escaped": lambda value: json.dumps(value).replace("/", "\\/"),
    "JSON of Go": lambda value: json.dumps(value, ensure_ascii=False).replace("<", "\\u003c").replace("&", "\\u0026"),
    "repr": repr,
    "repr beside a single quote": lambda value: repr(f"'{value}"),
    "repr beside both quotes": lambda value: repr(f"'\"{value}"),
    "ascii": ascii,
    "repr of bytes": lambda value: repr(value.encode()),
    "repr of bytes beside both quotes": lambda value: repr(f"'\"{value}".encode()),
    "repr in a list": lambda value: repr([value]),
    "quote": urllib.parse.quote,
    "quote, nothing safe": lambda value: urllib.parse.quote(value, safe=""),
    "quote_plus": urllib.parse.quote_plus,
    "urlencode": lambda value: urllib.parse.urlencode({"q": value, "r": value}),
    "quote in lower case": lambda value: _lower(urllib.parse.quote(value)),
    "encodeURIComponent": lambda value: urllib.parse.quote(value, safe="!'()*"),
    "base64": lambda value: base64.b64encode(value.encode()).decode(),
    "base64 for URLs": lambda value: base64.urlsafe_b64encode(value.encode()).decode().rstrip("="),
    "base64 in lines": lambda value: base64.encodebytes(value.encode()).decode(),
    "HTTP Basic": lambda value: base64.b64encode(f"user:{value}".encode()).decode(),
    "HTTP Basic, a longer name": lambda value: base64.b64encode(f"user1:{value}".encode()).decode(),
    "HTTP Basic, a longer name still": lambda value: base64.b64encode(f"user12:{value}".encode()).decode(),
    "hex": lambda value: value.encode().hex(),
    "HEX": lambda value: value.encode().hex().upper(),
    "HTML": html.escape,
    "HTML of Go": lambda value: html.escape(value, quote=False).replace('"', "&#34;").replace("'", "&#39;"),
    "XML": saxutils.escape,
    "shell": shlex.quote,
    "shell, as set -x shows it": lambda value: "'" + value.replace("'", "'\\''") + "'",
}
_SECRETS: Final = st.text(
    # A mask shows asterisks.
    st.sampled_from("abcxyzABC012 \"'\\/+&<>%=?#:@~\n\t\r\x07\x7fäß€\u2028\u200b😀") | st.characters(codec="utf-8"),
    min_size=4,
    max_size=40,
).filter(lambda value: len(value.strip()) >= 4 and "*" not in value and "\x00" not in value)
_AROUND: Final = st.text(st.sampled_from("abx01 \"'\\%&=+;\nä"), max_size=12)
_NAMES: Final = st.sampled_from(sorted(SPELLINGS))


@given(_SECRETS, _NAMES, _AROUND, _AROUND)
@settings(max_examples=200, deadline=None)
def test_no_listed_spelling_of_any_secret_remains_in_any_text(secret: str, name: str, before: str, after: str) -> None:
    spelt = SPELLINGS[name]
    for value in (secret, secret.strip(), secret.rstrip("\r\n")):
        kept = masked(before + spelt(value) + after, [secret])
        assert MASK in kept
        # With the rest of what an encoder puts around it.
        assert spelt(secret.strip()) not in kept
        assert secret.strip() not in kept


@given(_SECRETS, _NAMES, st.integers(min_value=1, max_value=100))
@settings(max_examples=100, deadline=None)
def test_the_beginning_of_a_spelling_does_not_remain_where_the_text_was_cut(
    secret: str, name: str, length: int
) -> None:
    spelling = SPELLINGS[name](secret)
    assume(spelling in masking.spellings([secret]))
    assert masked("\x00\x00" + spelling[:length], [secret], cut=True) == "\x00\x00" + MASK


@given(_SECRETS, st.integers(min_value=0, max_value=8), st.integers(min_value=0, max_value=8))
@settings(max_examples=100, deadline=None)
def test_secrets_that_overlap_are_masked_as_a_whole(text: str, first: int, second: int) -> None:
    beginning, end = text[: 4 + first], text[max(0, len(text) - 4 - second) :]
    assume(len(beginning) + len(end) > len(text))
    assume(min(len(beginning.strip()), len(end.strip())) >= 4)
    assume(beginning.strip() == beginning and end.strip() == end)
    assert masked(f"\x00{text}\x00", [beginning, end]) == f"\x00{MASK}\x00"


def test_each_line_of_a_secret_of_several_lines_is_masked() -> None:
    printed = _PEM.replace("\n", "\n> ")
    assert masked(printed, [_PEM]) == "\n> ".join([MASK, MASK, "}", "short", f"  {MASK}  ", MASK, ""])
    assert masked(json.dumps(_PEM), [_PEM]) == f'"{MASK}"'
    assert masked(_PEM.replace("\n", "\r\n"), [_PEM]) == MASK


@pytest.mark.parametrize("value", ["abc", " \n \t ", "ab\n"])
def test_what_is_too_short_is_not_masked(value: str) -> None:
    assert masked(f"abc {value} \n \t ", [value]) == f"abc {value} \n \t "


def test_a_text_without_secrets_stays_as_it_is() -> None:
    assert masked("text", [], cut=True) == "text"
    assert masked("", ["a secret"], cut=True) == ""


def test_several_secrets_are_masked_each_by_itself() -> None:
    assert masked("user=alpha-beta&key=gamma-delta;", ["alpha-beta", "gamma-delta"]) == f"user={MASK}&key={MASK};"


@given(
    st.sets(st.text("ab", min_size=4, max_size=12), max_size=8),
    st.text("ab", max_size=40),
    st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_the_ordered_search_finds_what_trying_all_spellings_at_all_places_finds(
    hidden: set[str], text: str, cut: bool
) -> None:
    places = set[int]()
    for at in range(len(text)):
        for spelling in hidden:
            if text.startswith(spelling, at) or (cut and spelling.startswith(text[at:])):
                places |= set(range(at, min(at + len(spelling), len(text))))
    assert {at for start, end in masking._stretches(text, hidden, cut=cut) for at in range(start, end)} == places


def test_spellings_that_begin_alike_are_not_tried_one_by_one() -> None:
    class Text(str):
        """Counts how often something is compared with it."""

        __slots__ = ()
        tried = 0

        def startswith(self, *given: Any) -> bool:
            Text.tried += 1
            return super().startswith(*given)

    text = Text("a" * 2_000)
    sought = masking._Sought({"a" * length + "b" for length in range(8, 500)} | {"a" * 8})
    assert len(list(sought.found_in(text))) == len(text) - 7
    assert Text.tried <= 2 * len(text)
