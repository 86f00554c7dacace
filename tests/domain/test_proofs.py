"""Proofs hold for one request, one action, one actor, five minutes, and for nothing else (design, section 3)."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws, jwt
from joserfc.jwk import OctKey

from domain.proofs import LIFETIME, InvalidProof, ProofKey
from domain.states import Action
from tests.domain.anything import JSON

SECRET = "a secret that is long enough for a test"
KEY = ProofKey(SECRET)
REQUEST, ACTOR = uuid4(), uuid4()
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def mint() -> str:
    return KEY.mint(REQUEST, Action.APPROVE, ACTOR, jti="one", now=NOW)


def self_made(header: dict[str, Any] | None = None, **claims: Any) -> str:
    """A proof by somebody who has the key but not our manners."""
    own = OctKey.import_key(sha256(b"justiam access request proof\x00" + SECRET.encode()).digest())
    said = {
        "sub": str(ACTOR),
        "req": str(REQUEST),
        "act": "approve",
        "jti": "one",
        "iat": int(NOW.timestamp()),
        "exp": int((NOW + LIFETIME).timestamp()),
    }
    # Not `jwt.encode`, which writes no lone surrogates; JSON escapes them.
    payload = json.dumps(said | claims).encode()
    return jws.serialize_compact({"alg": "HS256", "typ": "justiam-proof+jwt"} | (header or {}), payload, own)


def check(proof: str, *, request_id: UUID = REQUEST, action: Action = Action.APPROVE, at: datetime = NOW) -> UUID:
    return KEY.check(proof, request_id, action, at=at).actor_id


def test_a_proof_names_its_actor_and_what_it_is_used_up_by() -> None:
    proven = KEY.check(mint(), REQUEST, Action.APPROVE, at=NOW + timedelta(minutes=4))
    assert (proven.actor_id, proven.jti) == (ACTOR, "one")


def test_a_self_made_one_is_made_right_so_that_the_others_fail_for_their_own_reason() -> None:
    assert check(self_made()) == ACTOR


@pytest.mark.parametrize("action", sorted(set(Action) - {Action.APPROVE}))
def test_a_proof_is_for_one_action(action: Action) -> None:
    with pytest.raises(InvalidProof, match="another request or another action"):
        check(mint(), action=action)


def test_a_proof_is_for_one_request() -> None:
    with pytest.raises(InvalidProof, match="another request or another action"):
        check(mint(), request_id=uuid4())


@pytest.mark.parametrize("late", [LIFETIME + timedelta(seconds=1), timedelta(days=30), -timedelta(minutes=2)])
def test_a_proof_holds_for_five_minutes(late: timedelta) -> None:
    with pytest.raises(InvalidProof, match="expired"):
        check(mint(), at=NOW + late)


def test_no_proof_holds_for_longer_whatever_it_says() -> None:
    long = self_made(exp=int((NOW + timedelta(days=365)).timestamp()))
    with pytest.raises(InvalidProof, match="expired"):
        check(long, at=NOW + LIFETIME + timedelta(seconds=1))


def test_another_secret_proves_nothing() -> None:
    other = ProofKey("another secret that is long enough too").mint(REQUEST, Action.APPROVE, ACTOR, jti="one", now=NOW)
    with pytest.raises(InvalidProof):
        check(other)


def test_a_changed_claim_breaks_the_signature() -> None:
    head, _, signature = mint().split(".")
    claims = json.dumps({"sub": str(uuid4()), "req": str(REQUEST), "act": "approve", "jti": "x", "iat": 0, "exp": 9e9})
    payload = base64.urlsafe_b64encode(claims.encode()).decode().rstrip("=")
    with pytest.raises(InvalidProof):
        check(f"{head}.{payload}.{signature}")


def test_an_unsigned_proof_proves_nothing() -> None:
    head = base64.urlsafe_b64encode(b'{"alg":"none","typ":"justiam-proof+jwt"}').decode().rstrip("=")
    with pytest.raises(InvalidProof):
        check(f"{head}.{mint().split('.')[1]}.")


@pytest.mark.parametrize(
    "wrong",
    [{"sub": "bob"}, {"sub": None}, {"jti": None}, {"sub": 5}, {"iat": "soon"}, {"exp": None}, {"exp": 10**30}],
)
def test_claims_that_make_no_sense_prove_nothing(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidProof):
        check(self_made(**wrong))


def test_a_token_of_another_kind_signed_with_the_same_key_proves_nothing() -> None:
    with pytest.raises(InvalidProof):
        check(self_made(header={"typ": "at+jwt"}))


@given(st.one_of(st.text(), st.binary().map(lambda raw: base64.urlsafe_b64encode(raw).decode()), st.just("a.b.c")))
def test_garbage_proves_nothing_and_breaks_nothing(garbage: str) -> None:
    with pytest.raises(InvalidProof):
        check(garbage)


@given(st.integers(0, 10_000), st.characters(codec="ascii"))
def test_a_proof_with_any_character_changed_says_the_same_or_nothing(place: int, other: str) -> None:
    proof = mint()
    place %= len(proof)
    try:
        proven = KEY.check(proof[:place] + other + proof[place + 1 :], REQUEST, Action.APPROVE, at=NOW)
    except InvalidProof:
        return
    # The last character of a part has bits that stand for nothing.
    assert (proven.actor_id, proven.jti) == (ACTOR, "one")


def _part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@given(
    st.one_of(
        JSON,
        st.fixed_dictionaries(
            {"alg": st.sampled_from(["none", "None", "HS256", "HS512", "RS256", "", None, 5, ["HS256"]])},
            optional=dict.fromkeys(("typ", "crit", "b64", "kid", "jwk", "jku", "x5c", "zip"), JSON),
        ),
    ),
    JSON,
    st.sampled_from(["", "AAAA", "%%%", mint().rpartition(".")[2]]),
)
def test_what_looks_like_a_proof_proves_nothing_and_breaks_nothing(header: Any, payload: Any, signature: str) -> None:
    with pytest.raises(InvalidProof):
        check(f"{_part(header)}.{_part(payload)}.{signature}")


@given(st.dictionaries(st.sampled_from(["sub", "req", "act", "jti", "iat", "exp", "aud"]), JSON, min_size=1))
def test_even_with_the_key_only_a_whole_proof_proves_anything(claims: dict[str, Any]) -> None:
    try:
        proven = KEY.check(self_made(**claims), REQUEST, Action.APPROVE, at=NOW)
    except InvalidProof:
        return
    assert set(claims) <= {"aud", "iat", "exp", "jti", "sub"}, "it is still for this request and this action"
    assert isinstance(proven.jti, str)


@pytest.mark.parametrize("secret", [SECRET + " ", SECRET.upper(), SECRET[:-1], ""])
def test_a_key_is_one_secrets_own(secret: str) -> None:
    with pytest.raises(InvalidProof):
        ProofKey(secret).check(mint(), REQUEST, Action.APPROVE, at=NOW)


def test_a_proof_is_not_signed_with_the_secret_itself() -> None:
    """So that what else the secret signs is no proof, and the other way round."""
    claims = {"sub": str(ACTOR), "req": str(REQUEST), "act": "approve", "jti": "one", "iat": 0, "exp": 2**31}
    signed = jwt.encode({"alg": "HS256", "typ": "justiam-proof+jwt"}, claims, OctKey.import_key(SECRET))
    with pytest.raises(InvalidProof, match="not one of this service"):
        check(signed)
