"""Requests and answers in JSON and in MessagePack, and who may send them, which is looked at before a body is read."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from inspect import signature
from typing import Any, TypeVar

import msgspec
from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ValidationError
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from lateint_server.arrays import BINARY
from lateint_server.jobs import Overloaded
from lateint_server.keys import READ, WRITE, Keys
from lateint_server.serving import Served

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
Model = TypeVar("Model", bound=BaseModel)
JSON = "application/json"
bearer = HTTPBearer(auto_error=False, description="a key, where the server has keys")


class Route(APIRoute):
    """A route for those who hold a key with its role.

    FastAPI documents it by the signature of its endpoint. What the endpoint takes is found here, for FastAPI's way to
    find anything takes longer than all the rest of a request: ``request``, an index (``at``), the settings (``by``), a
    message (``data``) and parts of the path.
    """

    role = READ
    queue = "searches"

    def get_route_handler(self) -> Handler:
        endpoint, role, queue = self.endpoint, self.role, self.queue
        taken = signature(endpoint, eval_str=True).parameters
        model = taken["data"].annotation if "data" in taken else None
        parts = [name for name in taken if name not in ("request", "at", "by", "data")]

        async def handle(request: Request) -> Response:
            authorize(request, role)
            path, state = request.path_params, request.app.state
            given = {name: path[name] for name in parts}
            if "at" in taken:
                given["at"] = at = served_of(state.indexes, path["name"])
                if request.method != "GET" and getattr(at, queue).full:  # what is refused is not read first
                    raise Overloaded
            if "by" in taken:
                given["by"] = state.settings
            if model is not None:
                given["data"] = await message(request, model)
            response: Response = await endpoint(request, **given)
            return response

        return handle


class WriteRoute(Route):
    """A route for those who may write."""

    role, queue = WRITE, "writes"


class Direct:
    """Middleware that answers the requests of some routes itself; those of all others go on to the application.

    Each layer of an application costs some microseconds a request: this comes after the limits and before the rest.

    Args:
        routes: of which the first one that fits counts, as in the application.
        handlers: of errors, those of the application.
    """

    def __init__(self, app: ASGIApp, *, routes: Iterable[APIRoute], handlers: Mapping[Any, Any]) -> None:
        self.app = app
        self._routes = [(one.methods, one.path_regex.match, one, one.get_route_handler()) for one in routes]
        self._answering = ExceptionMiddleware(self._answer, handlers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope.get("root_path"):
            for methods, match, route, handle in self._routes:
                if scope["method"] in methods and (found := match(scope["path"])):
                    scope["route"], scope["path_params"], scope["lateint.handle"] = route, found.groupdict(), handle
                    await self._answering(scope, receive, send)
                    return
        await self.app(scope, receive, send)

    @staticmethod
    async def _answer(scope: Scope, receive: Receive, send: Send) -> None:
        response = await scope["lateint.handle"](Request(scope, receive))
        await response(scope, receive, send)


def served_of(indexes: dict[str, Served], name: str) -> Served:
    """The index of a name.

    Raises:
        HTTPException: 404; there is none.
    """
    if name not in indexes:
        raise HTTPException(404, f"there is no index {name!r}")
    return indexes[name]


async def message(request: Request, model: type[Model]) -> Model:
    """The message that a request brings.

    Raises:
        HTTPException, RequestValidationError: 422; what is wrong with it.
    """
    kind = content_type(request)
    binary = kind == BINARY
    # A page of the web may send a text to any address without asking first, but not these.
    if not binary and kind != JSON and not (kind.startswith("application/") and kind.endswith("+json")):
        raise HTTPException(422, f"content-type must be {JSON} or {BINARY}, got {kind!r}")
    try:
        value = (msgspec.msgpack if binary else msgspec.json).decode(await request.body())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HTTPException(422, f"the body must be {'MessagePack' if binary else 'JSON'}: {error}") from None
    try:
        checked: Model = model.model_validate(value)
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_url=False, include_context=False)) from None
    return checked


def authorize(request: Request, role: str) -> None:
    """Raises HTTPException: 401 without a key that is known, 403 if it is for reading only."""
    keys: Keys = request.app.state.settings.keys
    if not keys:
        return
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    found = keys.role(key.strip()) if scheme.lower() == "bearer" else None
    if found is None:
        raise HTTPException(401, "a key must be given: Authorization: Bearer KEY", {"WWW-Authenticate": "Bearer"})
    if role == WRITE and found != WRITE:
        raise HTTPException(403, "this key is for reading only")


def content_type(request: Request) -> str:
    """That of a request, without its parameters."""
    kind: str = request.headers.get("content-type", "")
    return kind.partition(";")[0].strip().lower()


def wants_binary(request: Request) -> bool:
    """Whether a request asks for MessagePack, or brings it and does not say."""
    accept = request.headers.get("accept", "*/*")
    return BINARY in accept or (accept == "*/*" and content_type(request) == BINARY)


def answer(request: Request, content: Any, status: int = 200) -> Response:
    """An answer in the form that was asked for."""
    if wants_binary(request):
        return Response(msgspec.msgpack.encode(content), status, media_type=BINARY)
    return Response(msgspec.json.encode(content), status, media_type=JSON)


def in_both_forms(document: dict[str, Any]) -> dict[str, Any]:
    """An OpenAPI document that says of all messages but those of errors that they come in MessagePack, too."""
    for operations in document["paths"].values():
        for operation in operations.values():
            places = [operation.get("requestBody", {}), operation["responses"].get("200", {})]
            for content in (place.get("content", {}) for place in places):
                if JSON in content:
                    content[BINARY] = content[JSON]
    return document
