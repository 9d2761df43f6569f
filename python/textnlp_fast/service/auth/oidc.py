"""Tokens of an identity provider (OpenID Connect): JWTs, believed if a key of the issuer signed them for us.

What is pinned by the configuration and never taken from a token: issuer, audience, algorithms, where keys are.
"""

from __future__ import annotations

import json
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, Final

import jwt

from textnlp_fast.errors import StorageUnavailableError
from textnlp_fast.service.auth.principals import Principal, Role, role_named, subject_of
from textnlp_fast.service.blocking import Blocking
from textnlp_fast.service.caching import SingleFlight
from textnlp_fast.service.config import OidcConfig, check_keys_url
from textnlp_fast.service.problems import UnauthenticatedError

__all__ = ["OidcVerifier"]

_log = logging.getLogger(__name__)
_LIMIT_BYTES: Final = 1 << 20
_MOST_KEYS: Final = 200
# While the provider does not answer, its keys of before are believed for so long.
_AWAY_S: Final = 3600.0
_ASKING: Final = "textnlp-fast service"


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Keys come from the address that was configured, or not at all."""

    def redirect_request(self, *_arguments: Any, **_named: Any) -> None:
        return None


class OidcVerifier:
    """Verifies tokens by the issuer's keys, which it fetches, keeps, and fetches again when one is unknown.

    For one event loop. An unknown key makes it ask at most once in `keys_pause_s`, whatever anybody sends.
    """

    def __init__(self, config: OidcConfig, blocking: Blocking) -> None:
        self._config = config
        self._blocking = blocking
        self._flight = SingleFlight()
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._fetched_s: float | None = None
        self._asked_s: float | None = None
        self._url = config.jwks_url
        # No proxy of the environment's: who names one there would name the keys.
        self._opener = urllib.request.build_opener(_NoRedirects, urllib.request.ProxyHandler({}))

    async def principal(self, token: str) -> Principal | None:
        """Who the token is of; None if it is no JWT. Raises UnauthenticatedError for one that does not hold."""
        if token.count(".") != 2:
            return None
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError:
            return None
        algorithm, key_id = header.get("alg"), header.get("kid")
        if algorithm not in self._config.algorithms:
            raise UnauthenticatedError("the token is not signed by an algorithm that is accepted")
        key = await self._key(key_id if isinstance(key_id, str) else None, algorithm)
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._config.audience,
                issuer=self._config.issuer,
                leeway=self._config.leeway_s,
                options={"require": ["exp", "iss", "aud", self._config.subject_claim]},
            )
        except jwt.ExpiredSignatureError:
            raise UnauthenticatedError(
                "the token has expired", hint="Get a new one from the identity provider."
            ) from None
        except (jwt.InvalidTokenError, ValueError, TypeError) as error:
            raise UnauthenticatedError(f"the token does not hold: {type(error).__name__}") from None
        return self._principal_of(claims)

    def _principal_of(self, claims: Mapping[str, Any]) -> Principal:
        subject = subject_of(claims.get(self._config.subject_claim))
        if subject is None:
            raise UnauthenticatedError("the token names no subject")
        found: Any = claims
        for part in self._config.role_claim.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        words = [found] if isinstance(found, str) else found if isinstance(found, list) else []
        named = [self._config.roles.get(word) for word in words if isinstance(word, str)]
        roles = [role_named(word) for word in (*named, self._config.default_role) if word is not None]
        best: Role | None = max((role for role in roles if role is not None), default=None)
        if best is None:
            raise UnauthenticatedError(
                "the token gives no role here",
                hint=f"The identity provider's claim {self._config.role_claim!r} must hold a role that is mapped.",
            )
        return Principal(subject, best, "oidc")

    # --- keys -----------------------------------------------------------------------------------------------

    async def _key(self, key_id: str | None, algorithm: str) -> jwt.PyJWK:
        now = time.monotonic()
        if self._fetched_s is None or now - self._fetched_s > self._config.keys_age_s:
            await self._refresh(now)
        found = self._find(key_id, algorithm)
        if found is None:
            await self._refresh(now)
            found = self._find(key_id, algorithm)
        if found is None:
            raise UnauthenticatedError("the token is signed by a key that the issuer does not have")
        return found

    def _find(self, key_id: str | None, algorithm: str) -> jwt.PyJWK | None:
        """The key of this name that is for this algorithm; without a name the only one there is."""
        fitting = {name: key for name, key in self._keys.items() if key.algorithm_name == algorithm}
        if key_id is not None:
            return fitting.get(key_id)
        return next(iter(fitting.values())) if len(fitting) == 1 else None

    async def _refresh(self, now: float) -> None:
        """Fetches the keys, unless that was tried a moment ago. Raises StorageUnavailableError if there are none."""
        if self._asked_s is None or now - self._asked_s >= self._config.keys_pause_s:
            try:
                await self._flight.run("keys", self._fetch)
            except StorageUnavailableError as error:
                _log.warning("the identity provider's keys cannot be fetched: %s", error.args[0])
        away = self._fetched_s is None or time.monotonic() - self._fetched_s > max(
            _AWAY_S, self._config.keys_age_s
        )
        if away:
            raise StorageUnavailableError(
                "the identity provider does not tell its keys", hint="Ask again in a while."
            )

    async def _fetch(self) -> None:
        self._asked_s = time.monotonic()
        keys = await self._blocking.run(self._fetch_keys, timeout_s=4 * self._config.timeout_s)
        self._keys, self._fetched_s = keys, time.monotonic()

    def _fetch_keys(self) -> dict[str, jwt.PyJWK]:
        if self._url is None:
            issuer = self._config.issuer.rstrip("/")
            told = self._get(f"{issuer}/.well-known/openid-configuration")
            url = told.get("jwks_uri")
            if told.get("issuer") != self._config.issuer or not isinstance(url, str):
                raise StorageUnavailableError(
                    "the issuer's configuration is another issuer's, or names no keys"
                )
            check_keys_url("jwks_uri", url)
            self._url = url
        listed = self._get(self._url).get("keys")
        if not isinstance(listed, list):
            raise StorageUnavailableError("what the issuer gives for keys is no list of them")
        keys: dict[str, jwt.PyJWK] = {}
        for number, each in enumerate(listed[:_MOST_KEYS]):
            key = self._read_key(each)
            if key is not None:
                keys[key.key_id or f"#{number}"] = key
        return keys

    def _read_key(self, value: object) -> jwt.PyJWK | None:
        """A key that signs by an algorithm of ours; None for what is for something else, or for a secret."""
        if not isinstance(value, dict) or value.get("kty") not in ("RSA", "EC", "OKP"):
            return None
        if value.get("use", "sig") != "sig":
            return None
        try:
            key = jwt.PyJWK(value)
        except (jwt.PyJWTError, ValueError, KeyError, TypeError):
            return None
        return key if key.algorithm_name in self._config.algorithms else None

    def _get(self, url: str) -> dict[str, Any]:
        request = urllib.request.Request(url, headers={"Accept": "application/json", "User-Agent": _ASKING})
        try:
            with self._opener.open(request, timeout=self._config.timeout_s) as answer:
                data = answer.read(_LIMIT_BYTES + 1)
            document = json.loads(data) if len(data) <= _LIMIT_BYTES else None
        except (OSError, urllib.error.HTTPError, ValueError, RecursionError) as error:
            raise StorageUnavailableError(f"{url}: {type(error).__name__}") from error
        if not isinstance(document, dict):
            raise StorageUnavailableError(f"{url} does not answer with an object")
        return document
