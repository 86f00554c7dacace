"""Slack: a Block Kit message to an incoming webhook.

What people wrote is shown as it is and means nothing: no mention, no link, no formatting of ours can be made with it.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from deliveries import posting, words
from domain.deliveries import Attempt, Envelope, Outbound

# Limits of Block Kit, in what `length` counts; a quotation is shorter, to fit a screen.
_LONGEST_HEADER: Final = 150
_LONGEST_SECTION: Final = 3000
_LONGEST_FIELD: Final = 2000
_MOST_FIELDS: Final = 10
_LONGEST_QUOTE: Final = 1500
_LONGEST_FALLBACK: Final = 1000

_ESCAPED: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_CUT: Final = "…"
_BASIC_PLANE_END: Final = 0xFFFF
_MENTION: Final = re.compile(r"@(?=channel|here|everyone|group)", re.IGNORECASE)
_MARKS: Final = re.compile(r"(?<![^\W_])[*_~`]|[*_~`](?![^\W_])")
"""What would begin or end bold, italics, strike-through or code; a mark within a word stays."""
_WORD_JOINER: Final = "\N{WORD JOINER}"


async def send(url: str, envelope: Envelope, policy: Outbound) -> Attempt:
    """Make one attempt."""
    body = json.dumps(message(envelope), ensure_ascii=False).encode()
    return await posting.post(url, body, {"Content-Type": "application/json; charset=utf-8"}, policy)


def message(envelope: Envelope) -> dict[str, Any]:
    """The message, with a `text` for notifications and for whoever cannot see blocks."""
    told = words.for_channel(envelope)
    blocks: list[dict[str, Any]] = [
        {
            "type": "header",
            "text": {"type": "plain_text", "text": clipped(told.title, _LONGEST_HEADER), "emoji": False},
        },
        {"type": "section", "text": _markdown(clipped(told.opening, _LONGEST_SECTION))},
        {
            "type": "section",
            "fields": [
                _markdown(heading + clipped(value, _LONGEST_FIELD - length(heading)))
                for heading, value in ((f"*{name}*\n", value) for name, value in told.facts[:_MOST_FIELDS])
            ],
        },
    ]
    blocks += [
        {"type": "section", "text": _markdown(heading + _quoted(text, _LONGEST_SECTION - length(heading)))}
        for heading, text in ((f"*{name}*\n", text) for name, text in told.quotes)
    ]
    link = None if envelope.request.link is None else f"<{_address(envelope.request.link)}|{told.call}>"
    if link is not None and length(link) <= _LONGEST_SECTION:
        blocks.append({"type": "section", "text": _markdown(link)})
    text = clipped(f"{told.title}: {told.opening}", _LONGEST_FALLBACK)
    # Without `parse` and `link_names`, Slack finds names in plain text and notifies them.
    return {"text": text, "blocks": blocks, "parse": "none", "link_names": False, "unfurl_links": False}


def length(text: str) -> int:
    """Return how long Slack may find `text`, which is escaped already.

    The documentation says "characters" of what is sent. Counted are UTF-16 code units, as JavaScript does: never fewer
    than code points, so that a text that fits fits by either count.
    """
    return len(text) + sum(ord(char) > _BASIC_PLANE_END for char in text)


def clipped(text: str, limit: int) -> str:
    """Return `text` without meaning to Slack, with a `length` of at most `limit`; an escape is never cut in two."""
    plain = _MARKS.sub(lambda mark: _WORD_JOINER + mark[0] + _WORD_JOINER, _MENTION.sub(f"@{_WORD_JOINER}", text))
    parts = [_ESCAPED.get(char, char) for char in plain]
    room = limit - sum(map(length, parts))
    if room >= 0:
        return "".join(parts)
    while room < length(_CUT):
        room += length(parts.pop())
    return "".join(parts) + _CUT


def _markdown(text: str) -> dict[str, Any]:
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _quoted(text: str, limit: int) -> str:
    told = clipped(text, _LONGEST_QUOTE)
    lines = "\n".join(f"> {line}" for line in told.splitlines())
    # Each line costs three characters. Where they do not fit, the quotation becomes one line.
    return lines if length(lines) <= limit else "> " + " ".join(told.split())


def _address(link: str) -> str:
    return "".join(_ESCAPED.get(char, char) for char in link).replace("|", "%7C")
