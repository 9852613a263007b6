"""Requests and answers in JSON and in MessagePack, and who may send them, which is looked at before a body is read."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer

from lateint_server.arrays import BINARY
from lateint_server.jobs import Overloaded
from lateint_server.keys import READ, WRITE, Keys

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
JSON = "application/json"
bearer = HTTPBearer(auto_error=False, description="a key, where the server has keys")


class Packed(Request):
    """A request whose body may be MessagePack."""

    async def json(self) -> Any:
        binary = is_binary(self.scope)
        try:
            return (msgspec.msgpack if binary else msgspec.json).decode(await self.body())
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise HTTPException(422, f"the body must be {'MessagePack' if binary else 'JSON'}: {error}") from None


class Route(APIRoute):
    """A route for those who hold a key with its role."""

    role = READ
    queue = "searches"

    def busy(self, request: Request) -> bool:
        """Whether the queue of this index is full; what is refused for that is not read first."""
        served = request.app.state.indexes.get(request.path_params.get("name"))
        return served is not None and getattr(served, self.queue).full

    def get_route_handler(self) -> Handler:
        answer = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            authorize(request, self.role)
            if request.method != "GET" and self.busy(request):
                raise Overloaded
            scope = request.scope
            if is_binary(scope):  # what comes next looks for a body in JSON by its name
                plain = [pair for pair in scope["headers"] if pair[0] != b"content-type"]
                scope = {**scope, "headers": [*plain, (b"content-type", JSON.encode())], "lateint.binary": True}
            return await answer(Packed(scope, request.receive))

        return guarded


class WriteRoute(Route):
    """A route for those who may write."""

    role, queue = WRITE, "writes"


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


def is_binary(scope: Any) -> bool:
    """Whether a request brings MessagePack."""
    if "lateint.binary" in scope:
        return True
    return any(
        name == b"content-type" and value.split(b";")[0].strip().lower() == BINARY.encode()
        for name, value in scope["headers"]
    )


def wants_binary(request: Request) -> bool:
    """Whether it asks for MessagePack, or brings it and does not say."""
    accept = request.headers.get("accept", "*/*")
    return BINARY in accept or (accept == "*/*" and is_binary(request.scope))


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
