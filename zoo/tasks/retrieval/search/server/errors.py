"""Errors as the server tells them: JSON of the argument, what came, and what is valid."""

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from zoo.errors import UserError

ENGINE = "engine"  # the argument of engines' errors, which no client can help
LIKE = "like"  # the argument that names a product, which may not be there
SHOWN = 200  # characters of a value that came
LOG = logging.getLogger("uvicorn.error")


class ErrorDetail(BaseModel):
    """What is wrong with a request.

    Attributes:
        argument: The argument's name; null where it is none of them.
        value: What came, shortened.
        valid: What is valid.
        message: All of it in words.
    """

    argument: str | None = None
    value: str | None = None
    valid: str | None = None
    message: str


class ErrorBody(BaseModel):
    """The body of each answer that is an error.

    Attributes:
        error: What is wrong.
    """

    error: ErrorDetail


class RequestError(Exception):
    """An answer that is an error.

    Args:
        status: Its HTTP status.
        message: What is wrong, and the fix.
        argument: The argument that is wrong.
        value: What came.
        valid: What is valid.
        headers: Headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        argument: str | None = None,
        value: Any = None,
        valid: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        shown = None if value is None else str(value)[:SHOWN]
        detail = ErrorDetail(argument=argument, value=shown, valid=valid, message=message[: 5 * SHOWN])
        self.response = JSONResponse(ErrorBody(error=detail).model_dump(), status, headers)


def not_found(argument: str, value: str) -> RequestError:
    """Give the error of an id that no product has."""
    return RequestError(
        404,
        f"{argument} is {value[:SHOWN]!r}: the index has no such product",
        argument=argument,
        value=value,
        valid="the id of a product in the index",
    )


def of_user_error(error: UserError) -> RequestError:
    """Give what is wrong with an argument as an answer."""
    valid = None if error.valid is None else str(error.valid)
    status = 404 if error.argument == LIKE else 400
    return RequestError(status, str(error), argument=error.argument, value=error.value, valid=valid)


def of_validation(error: ValidationError | RequestValidationError) -> RequestError:
    """Give the first thing that pydantic finds wrong as an answer."""
    first = error.errors()[0]
    name = str(first["loc"][-1])
    if first["type"] == "extra_forbidden":
        return RequestError(400, f"There is no argument {name[:SHOWN]!r}; see /openapi.json", argument=name[:SHOWN])
    valid = first["msg"].removeprefix("Input ")
    came = str(first["input"])[:SHOWN]
    return RequestError(400, f"{name} is {came!r}: it {valid}", argument=name, value=came, valid=valid)


def add_handlers(app: FastAPI) -> None:
    """Let an application tell all errors in this way; what is nobody's mistake is logged, and told without details."""

    @app.exception_handler(RequestError)
    async def refuse(request: Request, error: RequestError) -> JSONResponse:
        return error.response

    @app.exception_handler(UserError)
    async def refuse_value(request: Request, error: UserError) -> JSONResponse:
        if error.argument != ENGINE:
            return of_user_error(error).response
        LOG.error("%s", error)
        return RequestError(503, "The index cannot be read now; the server's log says why").response

    @app.exception_handler(RequestValidationError)
    async def refuse_arguments(request: Request, error: RequestValidationError) -> JSONResponse:
        return of_validation(error).response

    @app.exception_handler(HTTPException)
    async def refuse_route(request: Request, error: HTTPException) -> JSONResponse:
        what = f"{request.method} {request.url.path[:SHOWN]}: {str(error.detail).lower()}"
        return RequestError(error.status_code, what, headers=error.headers).response

    @app.exception_handler(Exception)
    async def fail(request: Request, error: Exception) -> JSONResponse:
        # Starlette raises it again for the log.
        return RequestError(500, "The server failed; its log says why").response
