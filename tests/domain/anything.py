"""Whatever JSON can carry, also what no database can store."""

from __future__ import annotations

from typing import Final

from hypothesis import strategies as st

TEXT: Final = st.text(st.characters(exclude_categories=()), max_size=20)
"""Lone surrogates and NUL included."""
JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
