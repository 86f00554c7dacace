"""Slack: a Block Kit message to an incoming webhook.

What people wrote is shown as it is and means nothing: no mention, no link, no formatting of ours can be made with it.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from deliveries import posting, words
from domain.deliveries import Attempt, Envelope, Outbound

# Limits of Block Kit; of what is quoted less, since nobody reads a screenful in a channel.
_LONGEST_HEADER: Final = 150
_LONGEST_SECTION: Final = 3000
_LONGEST_FIELD: Final = 2000
_MOST_FIELDS: Final = 10
_LONGEST_QUOTE: Final = 1500
_LONGEST_FALLBACK: Final = 1000
_LONGEST_LINK: Final = 2500

_ESCAPED: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
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
                _markdown(f"*{name}*\n{clipped(value, _LONGEST_FIELD - len(name) - 3)}")
                for name, value in told.facts[:_MOST_FIELDS]
            ],
        },
    ]
    blocks += [
        {"type": "section", "text": _markdown(f"*{name}*\n" + _quoted(clipped(text, _LONGEST_QUOTE)))}
        for name, text in told.quotes
    ]
    link = envelope.request.link
    if link is not None and len(link) <= _LONGEST_LINK:
        blocks.append({"type": "section", "text": _markdown(f"<{_address(link)}|{told.call}>")})
    text = clipped(f"{told.title}: {told.opening}", _LONGEST_FALLBACK)
    # Without `parse` and `link_names`, Slack finds names in plain text and notifies them.
    return {"text": text, "blocks": blocks, "parse": "none", "link_names": False, "unfurl_links": False}


def clipped(text: str, limit: int) -> str:
    """`text` without meaning to Slack, in at most `limit` of its characters; an escape is never cut in two."""
    plain = _MARKS.sub(lambda mark: _WORD_JOINER + mark[0] + _WORD_JOINER, _MENTION.sub(f"@{_WORD_JOINER}", text))
    kept: list[str] = []
    length = 0
    for char in plain:
        shown = _ESCAPED.get(char, char)
        # Slack counts as JavaScript does: what is beyond the basic plane is two.
        length += len(shown) + (ord(char) > _BASIC_PLANE_END)
        if length > limit - 1:
            return "".join(kept) + "…"
        kept.append(shown)
    return "".join(kept)


def _markdown(text: str) -> dict[str, Any]:
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _quoted(text: str) -> str:
    # Each line costs two more; at most as many lines as fit.
    lines = "\n".join(f"> {line}" for line in text.splitlines())
    return lines if len(lines) < _LONGEST_SECTION - 100 else "> " + " ".join(text.split())


def _address(link: str) -> str:
    return "".join(_ESCAPED.get(char, char) for char in link).replace("|", "%7C")
