"""Bodies that announce to be too large, which are refused before anything else; others are counted as they come."""

from __future__ import annotations

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

CLOSE = {"connection": "close"}  # or the client would go on sending


class Announced:
    """Middleware that looks at the header ``content-length``."""

    def __init__(self, app: ASGIApp, *, most: int) -> None:
        self.app, self.most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = scope.get("headers", ())
        length = next((value for name, value in headers if name == b"content-length"), b"")
        if length.isdigit() and int(length) > self.most:
            detail = f"the body must be at most {self.most:,} bytes, got {int(length):,}"
            await JSONResponse({"detail": detail}, 413, CLOSE)(scope, receive, send)
        else:
            await self.app(scope, receive, send)
