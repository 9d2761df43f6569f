"""A small identity provider on loopback: discovery, keys that rotate, tokens as good or as bad as a test wants them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

AUDIENCE = "textnlp-fast"


class IdentityProvider:
    """Serves until `close`. `asked` counts requests for keys; while `down`, every request gets 503."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {}
        self.hidden: set[str] = set()
        self.asked = 0
        self.down = False
        self.redirect_to: str | None = None
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if provider.down:
                    self.send_error(503)
                    return
                if self.path == "/.well-known/openid-configuration":
                    document: Any = {"issuer": provider.issuer, "jwks_uri": f"{provider.issuer}/keys"}
                elif self.path == "/keys":
                    provider.asked += 1
                    if provider.redirect_to is not None:
                        self.send_response(302)
                        self.send_header("Location", provider.redirect_to)
                        self.end_headers()
                        return
                    document = provider.document()
                else:
                    self.send_error(404)
                    return
                body = json.dumps(document).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing: tests say what went wrong."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.rotate("first")

    def rotate(self, name: str, *, kind: str = "RSA") -> None:
        """A new key, beside those that are there."""
        self.keys[name] = (
            rsa.generate_private_key(public_exponent=65537, key_size=2048)
            if kind == "RSA"
            else ec.generate_private_key(ec.SECP256R1())
        )

    def document(self) -> dict[str, Any]:
        found = []
        for name, key in self.keys.items():
            if name in self.hidden:
                continue
            is_rsa = isinstance(key, rsa.RSAPrivateKey)
            algorithm = jwt.algorithms.RSAAlgorithm if is_rsa else jwt.algorithms.ECAlgorithm
            text = algorithm.to_jwk(key.public_key())
            found.append(
                {**json.loads(text), "kid": name, "use": "sig", "alg": "RS256" if is_rsa else "ES256"}
            )
        # What a provider may list beside them, and what nobody may be believed by.
        secret = base64.urlsafe_b64encode(b"secret" * 8).decode().rstrip("=")
        found += [
            {"kty": "oct", "kid": "shared", "k": secret, "alg": "HS256"},
            {"kty": "RSA", "kid": "broken"},
            {"kty": "RSA", "kid": "for-encryption", "use": "enc", "n": "AQAB", "e": "AQAB"},
        ]
        return {"keys": found}

    def claims(self, role: str | None = "reader", **more: Any) -> dict[str, Any]:
        now = int(time.time())
        return {
            "iss": self.issuer,
            "aud": AUDIENCE,
            "sub": "carol@example.org",
            "iat": now,
            "exp": now + 600,
            **({"roles": [f"models-{role}"]} if role else {}),
            **more,
        }

    def token(self, claims: dict[str, Any] | None = None, *, key: str = "first", **header: Any) -> str:
        private = self.keys[key]
        algorithm = "RS256" if isinstance(private, rsa.RSAPrivateKey) else "ES256"
        return jwt.encode(
            self.claims() if claims is None else claims, private, algorithm, headers={"kid": key, **header}
        )

    def forged(self, header: dict[str, Any], claims: dict[str, Any], secret: bytes | None) -> str:
        """A token put together by hand, with an HMAC of `secret`, or no signature at all."""

        def part(value: Any) -> bytes:
            return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

        signed = part(header) + b"." + part(claims)
        code = b"" if secret is None else hmac.new(secret, signed, hashlib.sha256).digest()
        return (signed + b"." + base64.urlsafe_b64encode(code).rstrip(b"=")).decode()

    def public_pem(self, key: str = "first") -> bytes:
        found: bytes = (
            self.keys[key].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        )
        return found

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=10)
