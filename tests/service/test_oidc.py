"""Tokens of an identity provider: what holds, and every way in which one does not."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from textnlp_fast.errors import InvalidInputError
from textnlp_fast.service.config import OidcConfig

Serving = Any


async def me(client: Any, token: str) -> tuple[int, dict[str, Any]]:
    answer = await client.get("/api/v1/me", headers={"Authorization": f"Bearer {token}"})
    return answer.status_code, answer.json()


async def test_the_provider_s_own_roles_become_roles_here(
    filled: Path, serving: Serving, provider: Any, oidc: OidcConfig
) -> None:
    async with serving(filled, oidc=oidc) as client:
        for role in ("scrape", "reader", "publisher", "operator"):
            status, document = await me(client, provider.token(provider.claims(role)))
            assert (status, document["role"], document["subject"]) == (200, role, "carol@example.org")
        both = provider.claims(roles=["models-reader", "models-publisher", "something", 7])
        assert (await me(client, provider.token(both)))[1]["role"] == "publisher"
        as_text = provider.claims(roles="models-operator", aud=["others", "textnlp-fast"])
        assert (await me(client, provider.token(as_text)))[1]["role"] == "operator"
        assert provider.asked == 1  # keys are kept


def test_what_no_token_may_be_signed_by_cannot_be_configured(provider: Any) -> None:
    for odd in ("none", "HS256", "NONE", ""):
        with pytest.raises(InvalidInputError):
            OidcConfig(issuer=provider.issuer, audience="a", algorithms=("RS256", odd))
    for issuer in ("http://example.org", "ftp://example.org", "https://u:p@example.org", ""):
        with pytest.raises(InvalidInputError):
            OidcConfig(issuer=issuer, audience="a")


async def test_tokens_that_do_not_hold(
    filled: Path, serving: Serving, provider: Any, oidc: OidcConfig
) -> None:
    from servers.identity import IdentityProvider  # noqa: PLC0415

    stranger = IdentityProvider()
    now = int(time.time())
    good, claims = provider.token(), provider.claims("operator")
    head, body, signature = good.split(".")
    other_body = provider.token(claims).split(".")[1]
    hs = {"alg": "HS256", "typ": "JWT", "kid": "first"}
    bad = {
        "alg none": provider.forged({"alg": "none", "kid": "first"}, claims, None),
        "alg None": provider.forged({"alg": "None", "kid": "first"}, claims, None),
        "HMAC of the public key": provider.forged(hs, claims, provider.public_pem()),
        "HMAC of the listed secret": provider.forged({**hs, "kid": "shared"}, claims, b"secret" * 8),
        "RS256 by name, HMAC by nature": provider.forged(
            {"alg": "RS256", "kid": "first"}, claims, provider.public_pem()
        ),
        "an algorithm not accepted": provider.token(claims, alg="RS512"),
        "other claims": f"{head}.{other_body}.{signature}",
        "no signature": f"{head}.{body}.",
        "another issuer's key": stranger.token(provider.claims("operator")),
        "another issuer": provider.token(provider.claims("operator", iss=stranger.issuer)),
        "no issuer": provider.token({k: v for k, v in claims.items() if k != "iss"}),
        "another audience": provider.token(provider.claims("operator", aud="others")),
        "no audience": provider.token({k: v for k, v in claims.items() if k != "aud"}),
        "expired": provider.token(provider.claims("operator", exp=now - 3600, iat=now - 7200)),
        "no expiry": provider.token({k: v for k, v in claims.items() if k != "exp"}),
        "an expiry that is none": provider.token(provider.claims("operator", exp="never")),
        "not yet": provider.token(provider.claims("operator", nbf=now + 3600)),
        "no subject": provider.token({k: v for k, v in claims.items() if k != "sub"}),
        "an empty subject": provider.token(provider.claims("operator", sub=" ")),
        "no role": provider.token(provider.claims(None)),
        "a role of others": provider.token(provider.claims("superuser")),
        "a role by our own name": provider.token(provider.claims(roles=["operator"])),
        "an unknown key": provider.token(claims, kid="nobody"),
        "a key for encryption": provider.token(claims, kid="for-encryption"),
        "no JWT": "a.b.c",
        "dots": "..",
        "much": "x" * 9000,
    }
    try:
        async with serving(filled, oidc=oidc, failure_burst=1000) as client:
            assert (await me(client, good))[0] == 200
            for what, token in bad.items():
                status, document = await me(client, token)
                assert (status, document.get("code")) == (401, "Unauthenticated"), what
            for header in ("", "Bearer", "Bearer ", "Basic abc", good, f"bearer{good}"):
                answer = await client.get("/api/v1/me", headers={"Authorization": header})
                assert answer.status_code == 401, header
                assert answer.headers["WWW-Authenticate"] == "Bearer"
    finally:
        stranger.close()


async def test_keys_that_rotate_are_found_without_a_flood(
    filled: Path, serving: Serving, provider: Any, oidc: OidcConfig
) -> None:
    async with serving(filled, oidc=oidc, failure_burst=1000) as client:
        assert (await me(client, provider.token()))[0] == 200
        asked = provider.asked
        for number in range(50):  # whoever makes up keys does not make us ask for each
            assert (await me(client, provider.token(kid=f"made-up-{number}")))[0] == 401
        assert provider.asked - asked <= 1 + 50 * 1.0 / oidc.keys_pause_s
        provider.rotate("second")
        provider.rotate("elliptic", kind="EC")
        await _until_known(client, provider, "second")
        assert (await me(client, provider.token(key="elliptic")))[0] == 200
        assert (await me(client, provider.token(key="first")))[0] == 200
        # A key of one kind does not verify a token that says it is of the other.
        assert (await me(client, provider.token(key="elliptic", kid="second")))[0] == 401


async def _until_known(client: Any, provider: Any, key: str) -> None:
    end = time.monotonic() + 60
    while (await me(client, provider.token(key=key)))[0] != 200:
        assert time.monotonic() < end, "the new key was never fetched"


async def test_a_key_that_is_withdrawn_is_believed_no_longer(
    filled: Path, serving: Serving, provider: Any
) -> None:
    config = OidcConfig(
        issuer=provider.issuer, audience="textnlp-fast", default_role="reader", keys_age_s=0.2, keys_pause_s=0
    )
    async with serving(filled, oidc=config, failure_burst=10_000, failures_per_s=1000) as client:
        assert (await me(client, provider.token()))[0] == 200
        provider.rotate("second")
        provider.hidden.add("first")
        end = time.monotonic() + 60
        while (await me(client, provider.token(key="first")))[0] != 401:
            assert time.monotonic() < end, "the old key is still believed"
        assert (await me(client, provider.token(key="second")))[0] == 200


async def test_while_the_provider_is_away_its_keys_of_before_do(
    filled: Path, serving: Serving, provider: Any
) -> None:
    config = OidcConfig(
        issuer=provider.issuer,
        audience="textnlp-fast",
        default_role="reader",
        keys_age_s=0.05,
        keys_pause_s=0.05,
    )
    async with serving(filled, oidc=config) as client:
        provider.down = True
        status, document = await me(client, provider.token())
        assert (status, document["code"]) == (503, "StorageUnavailable")  # nobody's keys are known yet
        provider.down = False
        end = time.monotonic() + 60
        while (await me(client, provider.token()))[0] != 200:
            assert time.monotonic() < end
        provider.down = True
        for _ in range(5):
            assert (await me(client, provider.token()))[0] == 200


async def test_keys_come_from_where_they_were_said_to_be(
    filled: Path, serving: Serving, provider: Any
) -> None:
    from servers.identity import IdentityProvider  # noqa: PLC0415

    stranger = IdentityProvider()
    try:
        provider.redirect_to = f"{stranger.issuer}/keys"
        config = OidcConfig(issuer=provider.issuer, audience="textnlp-fast", default_role="reader")
        async with serving(filled, oidc=config) as client:
            assert (await me(client, stranger.token(provider.claims())))[0] == 503
        # Nor from one whose discovery document is another issuer's.
        wrong = OidcConfig(issuer=f"{stranger.issuer}/", audience="textnlp-fast", default_role="reader")
        async with serving(filled, oidc=wrong) as client:
            claims = stranger.claims(iss=f"{stranger.issuer}/")
            assert (await me(client, stranger.token(claims)))[0] == 503
    finally:
        stranger.close()


async def test_a_token_of_the_file_does_beside_the_provider_s(
    filled: Path, serving: Serving, provider: Any, oidc: OidcConfig, tokens: dict[str, Any]
) -> None:
    async with serving(filled, oidc=oidc, tokens=tokens["file"]) as client:
        assert (await me(client, tokens["publisher"]))[1]["subject"] == "publisher-1"
        assert (await me(client, provider.token()))[1]["subject"] == "carol@example.org"


async def test_a_claim_may_lie_in_objects(filled: Path, serving: Serving, provider: Any) -> None:
    config = OidcConfig(
        issuer=provider.issuer,
        audience="textnlp-fast",
        role_claim="realm_access.roles",
        roles={"ops": "operator"},
        subject_claim="email",
    )
    async with serving(filled, oidc=config) as client:
        claims = provider.claims(None, realm_access={"roles": ["ops"]}, email="d@example.org\n\x00")
        assert (await me(client, provider.token(claims)))[1] == {
            "subject": "d@example.org",
            "role": "operator",
            "permissions": (await me(client, provider.token(claims)))[1]["permissions"],
        }
        for odd in ({"realm_access": "ops"}, {"realm_access": {"roles": {"ops": 1}}}, {"realm_access": []}):
            assert (await me(client, provider.token(provider.claims(None, email="e@x.org", **odd))))[0] == 401
