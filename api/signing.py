"""The signing keys as one API process holds them: decrypted, and looked up again when one is met that is not known."""

from __future__ import annotations

import time
from typing import Any, Final

from db import signing_keys
from db.database import Database
from db.signing_keys import KeyUnreadable, StoredKey, Vault
from domain.access_tokens import SigningKey

_FRESH_SECS: Final = 5.0
"""How old the published set may be. Far less than a key is published before it signs."""
_UNKNOWN_EVERY_SECS: Final = 1.0
"""An unknown `kid` has the keys read again at most this often, whoever sends how many."""


class KeyRing:
    """The keys of the record, for one process. Which key signs is decided by the record each time, not here."""

    def __init__(self, db: Database, vault: Vault) -> None:
        self._db = db
        self._vault = vault
        self._stored: list[StoredKey] = []
        self._opened: dict[str, SigningKey] = {}
        self._read_at: float | None = None

    async def signing(self, kid: str | None) -> SigningKey:
        """The key of this name, for signing; another process may have made it just now.

        Args:
            kid: what the record says signs at this moment; None: there is no key yet, and the first one is made.

        Raises:
            KeyUnreadable: it was encrypted under another secret.
        """
        if kid is None:
            await signing_keys.ensure(self._db, self._vault)
            await self._read()
            kid = self._stored[0].kid
        elif kid not in self._opened:
            await self._read()
        if kid not in self._opened:
            stored = next((key for key in self._stored if key.kid == kid), None)
            if stored is None:
                raise KeyUnreadable(f"The signing key {kid} was deleted at this moment.")
            self._opened[kid] = self._vault.open(stored.kid, stored.algorithm, stored.sealed)
        return self._opened[kid]

    async def verifying(self, kid: str | None) -> dict[str, SigningKey]:
        """The published keys by name, read again where `kid` is not among them."""
        await self._ensure_read(_FRESH_SECS)
        if kid not in {key.kid for key in self._stored}:
            await self._ensure_read(_UNKNOWN_EVERY_SECS)
        return {key.kid: SigningKey.public(key.kid, key.algorithm, key.public_jwk) for key in self._stored}

    async def published(self) -> list[dict[str, Any]]:
        """The public keys as JSON Web Keys."""
        await self._ensure_read(_FRESH_SECS)
        if not self._stored:
            await signing_keys.ensure(self._db, self._vault)
            await self._read()
        return [key.public_jwk for key in self._stored]

    async def _ensure_read(self, newest_secs: float) -> None:
        if self._read_at is None or time.monotonic() - self._read_at > newest_secs:
            await self._read()

    async def _read(self) -> None:
        self._stored = await signing_keys.published(self._db)
        self._read_at = time.monotonic()
        kept = {key.kid for key in self._stored}
        self._opened = {kid: key for kid, key in self._opened.items() if kid in kept}
