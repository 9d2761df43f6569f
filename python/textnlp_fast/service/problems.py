"""Errors as `application/problem+json` (RFC 9457): one place that knows which status an error is answered with."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from textnlp_fast import errors
from textnlp_fast.errors import TextnlpFastError
from textnlp_fast.service.redaction import places_of, without_places
from textnlp_fast.service.schemas import Problem

__all__ = [
    "MEDIA_TYPE",
    "ForbiddenError",
    "MalformedRequestError",
    "OverloadedError",
    "RequestTooLargeError",
    "ServiceTimeoutError",
    "TargetTooLongError",
    "TooManyRequestsError",
    "UnauthenticatedError",
    "UnsupportedMediaTypeError",
    "UntrustedOriginError",
    "install_problem_handlers",
    "internal_problem",
    "problem_of",
    "problem_response",
    "status_of",
]

MEDIA_TYPE: Final = "application/problem+json"
_log = logging.getLogger(__name__)


class UnauthenticatedError(TextnlpFastError):
    """The request does not say who sends it, or not so that it can be believed."""

    default_hint = "Send Authorization: Bearer TOKEN; an operator of the service has one for you."


class ForbiddenError(TextnlpFastError):
    """Who asks is known, and may not."""


class UntrustedOriginError(TextnlpFastError):
    """The request came under a name, or from a page, that is not the service's own."""

    default_hint = (
        "Ask from the service's own pages, or without a browser: with a token, and no Origin header."
    )


class TooManyRequestsError(TextnlpFastError):
    """More was asked for than one caller may; ``retry_after_s`` is when to ask again."""

    default_hint = "Ask again later, and less often."
    retry_after_s: float = 1.0


class MalformedRequestError(TextnlpFastError):
    """The request cannot be read as what it says that it is."""


class UnsupportedMediaTypeError(TextnlpFastError):
    """The body is of a kind that is not read here."""

    default_hint = "Send JSON, with Content-Type: application/json."


class TargetTooLongError(TextnlpFastError):
    """Path and query of the request have more bytes than are read."""

    default_hint = "Ask for less at a time."


class RequestTooLargeError(TextnlpFastError):
    """The request has more bytes than are read."""

    default_hint = (
        "Send less at a time: models are pushed from paths that the service reads, not in requests."
    )


class OverloadedError(TextnlpFastError):
    """Too much is being worked at already."""

    default_hint = "Ask again in a few seconds."


class ServiceTimeoutError(TextnlpFastError, TimeoutError):
    """The answer was not there in time."""

    default_hint = "What was begun goes on: ask again in a while."


# The first class of an error's kinds that stands here counts.
_STATUS: Final[Mapping[type[BaseException], int]] = {
    UnauthenticatedError: 401,
    ForbiddenError: 403,
    UntrustedOriginError: 403,
    TooManyRequestsError: 429,
    MalformedRequestError: 400,
    RequestTooLargeError: 413,
    TargetTooLongError: 414,
    UnsupportedMediaTypeError: 415,
    OverloadedError: 503,
    ServiceTimeoutError: 504,
    errors.RepositoryNotFoundError: 503,
    errors.ModelNotFoundError: 404,
    errors.VersionNotFoundError: 404,
    errors.DeploymentNotFoundError: 404,
    errors.InstanceNotFoundError: 404,
    errors.ObjectNotFoundError: 404,
    errors.VersionExistsError: 409,
    errors.WrongBaseError: 409,
    errors.InvalidInputError: 422,
    errors.ConflictError: 409,
    errors.NotAllowedError: 403,
    errors.SignatureRequiredError: 409,
    errors.PriceTooHighError: 409,
    errors.BudgetExceededError: 409,
    errors.TransferCancelledError: 409,
    errors.CapacityError: 503,
    errors.QuotaError: 503,
    # Of the service itself with the store: nothing that the caller could log in to.
    errors.AuthenticationError: 502,
    errors.StorageUnavailableError: 503,
    errors.ProviderUnavailableError: 503,
    errors.TransferTimeoutError: 504,
    errors.OutOfSpaceError: 507,
    errors.UnsupportedFormatError: 501,
    errors.MissingPackageError: 501,
    errors.DeviceError: 501,
}
_RETRY_AFTER_S: Final = {429: 1, 503: 5, 504: 10}
_TITLES: Final = {
    400: "Bad request",
    404: "Not found",
    405: "Method not allowed",
    415: "Unsupported media type",
}


def status_of(error: BaseException) -> int:
    """The HTTP status that an error is answered with."""
    return next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 500)


def problem_of(
    error: TextnlpFastError, *, hide: tuple[str, ...] = (), typed: tuple[str, ...] = ()
) -> Problem:
    """The document of an error; `hide` are texts (where things lie) that nobody outside needs to know.

    `typed` are those that the caller himself wrote: they are said as he wrote them.
    """
    name = type(error).__name__.removesuffix("Error")
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return Problem(
        type=f"urn:textnlp-fast:problem:{words.lower().replace(' ', '-')}",
        title=words[:1] + words[1:].lower(),
        status=status_of(error),
        detail=without_places(str(error.args[0]) if error.args else words, hide, typed=typed),
        hint=without_places(error.hint, hide, typed=typed),
        code=name,
    )


def problem_response(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """The answer that carries a problem."""
    more = dict(headers or {})
    if problem.status in _RETRY_AFTER_S:
        more.setdefault("Retry-After", str(_RETRY_AFTER_S[problem.status]))
    if problem.status == 401:
        more.setdefault("WWW-Authenticate", "Bearer")
    more.setdefault("Cache-Control", "no-store")
    return Response(
        problem.model_dump_json(exclude_none=True),
        status_code=problem.status,
        media_type=MEDIA_TYPE,
        headers=more,
    )


def internal_problem(incident: str) -> Problem:
    """What is said of a mistake of the service's own; the log says the rest under the incident's number."""
    return Problem(
        type="urn:textnlp-fast:problem:internal",
        title="Internal",
        status=500,
        detail=f"something went wrong that should not; the service's log has it as incident {incident}",
        hint="Report it, with what the log says.",
        code="Internal",
    )


def install_problem_handlers(app: FastAPI, repo: str) -> None:
    """Answers every error of an application with a problem; `repo` is where the repository is, which none says.

    Paths that a request is about, and its route lists in `request.state.typed`, are said as the caller wrote them.
    """
    hide = places_of(repo)

    async def expected(request: Request, error: Exception) -> Response:
        assert isinstance(error, TextnlpFastError)
        problem = problem_of(error, hide=hide, typed=getattr(request.state, "typed", ()))
        if problem.status >= 500:
            _log.warning("%s: %s", type(error).__name__, error.args[0] if error.args else "")
        headers = {}
        if isinstance(error, TooManyRequestsError):
            headers["Retry-After"] = str(max(1, round(error.retry_after_s + 0.5)))
        return problem_response(problem, headers)

    async def malformed(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        unread = _unread_body(error.__cause__) or _other_kind(request, error.errors())
        if unread is not None:
            return await expected(request, unread)
        found = [
            {"where": ".".join(map(str, one["loc"])), "message": str(one["msg"])}
            for one in error.errors()[:20]
        ]
        first = found[0] if found else {"where": "the request", "message": "it cannot be read"}
        return problem_response(
            Problem(
                type="urn:textnlp-fast:problem:invalid-input",
                title="Invalid input",
                status=422,
                detail=f"{first['where']}: {first['message']}",
                hint="/openapi.json says what each request takes.",
                code="InvalidInput",
                errors=found,
            )
        )

    async def refused(_request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if isinstance(error.__cause__, TextnlpFastError):  # raised while the body was read
            return await expected(_request, error.__cause__)
        unread = _unread_body(error.__cause__) if error.status_code == 400 else None
        if unread is not None:
            return await expected(_request, unread)
        title = _TITLES.get(error.status_code, "Refused")
        return problem_response(
            Problem(
                type=f"urn:textnlp-fast:problem:{title.lower().replace(' ', '-')}",
                title=title,
                status=error.status_code,
                detail=without_places(str(error.detail), hide),
                hint="/openapi.json says what there is.",
                code=title.title().replace(" ", ""),
            ),
            error.headers,
        )

    app.add_exception_handler(TextnlpFastError, expected)
    app.add_exception_handler(RequestValidationError, malformed)
    app.add_exception_handler(HTTPException, refused)


def _unread_body(error: BaseException | None) -> MalformedRequestError | None:
    """What is said of a body that JSON's reader raised this for; None: it raised something else."""
    if isinstance(error, json.JSONDecodeError):
        why = f"{error.msg.removesuffix(' at')} at character {error.pos + 1}"
    elif isinstance(error, UnicodeDecodeError):
        why = f"what is at byte {error.start + 1} is not {error.encoding.upper()}"
    elif isinstance(error, RecursionError):
        why = "it is nested too deeply"
    elif isinstance(error, ValueError):  # Python makes no number of thousands of digits
        why = "a number in it has too many digits"
    else:
        return None
    return MalformedRequestError(
        f"the body is no JSON: {why}", hint="/openapi.json says what each request takes."
    )


def _other_kind(request: Request, found: Sequence[Mapping[str, Any]]) -> UnsupportedMediaTypeError | None:
    """What is said where the body as a whole is wrong because it does not say that it is JSON."""
    if not any(one["loc"] == ("body",) and one["type"] != "missing" for one in found):
        return None
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json" or re.fullmatch(r"application/[^/]+\+json", kind):
        return None
    said = f"the body is {kind:.100}" if kind else "the body does not say what it is"
    return UnsupportedMediaTypeError(f"{said}; JSON is read here")
