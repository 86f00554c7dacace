"""Tokens: exchange, introspection, revocation, keys, and the issuers whose tokens are accepted."""
