"""The door: `require(role)` is what each route depends on, and all that stands between a request and its work."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Final

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from textnlp_fast.service.auth.principals import Principal, Role
from textnlp_fast.service.problems import ForbiddenError, UnauthenticatedError

__all__ = ["MOST_TOKEN_CHARS", "Authenticator", "Permission", "require"]

MOST_TOKEN_CHARS: Final = 8192
Permission = Callable[..., Awaitable[Principal]]

_bearer = HTTPBearer(
    auto_error=False, description="A token of the tokens file, or one (JWT) of the identity provider"
)


class Authenticator:
    """Asks each of the `verifiers` who a token's bearer is, in turn; without any, everybody has `open_role`.

    A verifier returns None for a token that is not of its kind, and raises UnauthenticatedError for one that is and
    does not hold.
    """

    def __init__(
        self, verifiers: Sequence[Callable[[str], Awaitable[Principal | None]]], open_role: Role
    ) -> None:
        self._verifiers = verifiers
        self._open = Principal("local", open_role, "open")

    async def principal(self, authorization: str | None) -> Principal:
        """Who sends a request with this header. Raises UnauthenticatedError."""
        if not self._verifiers:
            return self._open
        if authorization is None:
            raise UnauthenticatedError("the request carries no token")
        scheme, _, token = authorization.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise UnauthenticatedError("the Authorization header is not Bearer TOKEN")
        if len(token) > MOST_TOKEN_CHARS or not token.isascii():
            raise UnauthenticatedError("the token is not one of ours")
        for verify in self._verifiers:
            found = await verify(token)
            if found is not None:
                return found
        raise UnauthenticatedError("the token is not one of ours")


_cache: dict[Role, Permission] = {}


def require(role: Role) -> Permission:
    """A dependency that gives the caller if they have the role, and else refuses: 401, 403, or 429.

    >>> @router.get("/models")
    ... async def models(caller: Annotated[Principal, Depends(require(Role.READER))]) -> ...
    """
    if role not in _cache:
        _cache[role] = _permission(role)
    return _cache[role]


def _permission(role: Role) -> Permission:
    async def permitted(
        request: Request,
        # Only so that the OpenAPI document says it: the header is read below, where what is wrong can be told.
        _credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
    ) -> Principal:
        service: Any = request.app.state.service
        header = request.headers.get("authorization")
        try:
            caller: Principal = await service.authenticator.principal(header)
        except UnauthenticatedError:
            service.limits.failed(request.client.host if request.client else "")
            raise
        service.limits.asked(caller.subject)
        if caller.role < role:
            raise ForbiddenError(
                f"this needs the role {role.word}, and {caller.subject} has {caller.role.word}",
                hint="Ask an operator of the service.",
            )
        return caller

    permitted.__name__ = f"require_{role.word}"
    permitted.required_role = role  # type: ignore[attr-defined]
    return permitted
