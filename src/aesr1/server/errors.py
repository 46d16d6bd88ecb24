"""Errors of a request: their HTTP statuses, and what a client is told."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from aesr1.errors import AesError

GONE = 499
"""The status for a client that has left, as nginx has it. No client sees it."""
ERRORS = {
    400: "The request is wrong; the message says how to mend it.",
    401: "The key is missing or wrong.",
    403: "The request comes from a page of another server.",
    404: "The model is not served here.",
    408: "The body was not complete in time.",
    413: "The body is too large.",
    415: "The body is of a type that is not read here.",
    500: "The model failed.",
    503: "Too many requests are waiting; Retry-After says for how many seconds to wait.",
}


@dataclass(frozen=True)
class ErrorBody:
    """What is wrong, and what to do, in the form of OpenAI's errors."""

    message: str
    type: str
    code: str
    param: None = None


@dataclass(frozen=True)
class ErrorAnswer:
    """The answer of a request that failed."""

    error: ErrorBody


class HttpRefusal(AesError):
    """An AesError with its own HTTP status."""

    def __init__(self, problem: str, *, fix: str, status: int, code: str, retry_after: int | None = None) -> None:
        """`retry_after`: seconds after which the client may try again."""
        super().__init__(problem, fix=fix)
        self.status, self.code, self.retry_after = status, code, retry_after


def stopping_refusal() -> HttpRefusal:
    """What requests get while the server ends."""
    return HttpRefusal("the server is stopping", fix="try again later", status=503, code="stopping", retry_after=10)


def documented_errors(*codes: int) -> dict[int | str, dict[str, Any]]:
    """The answers of a request that fails, for the OpenAPI description."""
    return {code: {"description": ERRORS[code], "model": ErrorAnswer} for code in codes}


def describe_error(error: Exception) -> tuple[ErrorAnswer, int]:
    """What a client is told of an error, and the HTTP status."""
    if isinstance(error, AesError):
        status, code = (error.status, error.code) if isinstance(error, HttpRefusal) else (400, "invalid_request")
        message = f"{error.problem}; {error.fix}"
    elif isinstance(error, HTTPException):
        status, code = error.status_code, "unknown_url" if error.status_code in (404, 405) else "invalid_request"
        message = f"{error.detail}; GET /openapi.json describes what there is"
    else:
        status, code = 500, "internal_error"
        message = f"the model failed: {type(error).__name__}; see what the server printed"
    kind = "invalid_request_error" if status < 500 else "server_error"
    return ErrorAnswer(ErrorBody(message, kind, code)), status


async def respond_to_error(request: Request, error: Exception) -> Response:
    """The response to a request that failed."""
    if isinstance(error, ClientDisconnect):
        return Response(status_code=GONE)
    answer, status = describe_error(error)
    wait = getattr(error, "retry_after", None)
    headers = {**(getattr(error, "headers", None) or {}), **({"Retry-After": str(wait)} if wait else {})}
    return JSONResponse(asdict(answer), status, headers)
