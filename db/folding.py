"""How names and addresses are compared: by two functions of the database (migration 0013), on both sides.

`folded_name` folds in full and composes: a name finds itself in any case, `STRASSE` finds `straße`. `folded_address`
folds letter by letter, because `straße.example` and `strasse.example` are two domains. What is typed as an address goes
through `domain.addresses.sought_address` first. Unique indexes are on the same functions.
"""

from __future__ import annotations


def within(text: str) -> str:
    """Return the pattern of LIKE for what contains `text`, with its wildcards taken as themselves."""
    literal = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{literal}%"
