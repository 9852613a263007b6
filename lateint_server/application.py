"""The application: routes, limits and answers to errors around indexes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.middleware import Middleware
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from lateint import FormatError, Index, LockedError, UnknownIdError, __version__
from lateint_server import messages, routes
from lateint_server.bodies import CLOSE, Announced
from lateint_server.jobs import Overloaded, TooLate
from lateint_server.pictures import TooLarge
from lateint_server.serving import Refused, Served
from lateint_server.settings import Settings
from lateint_server.watching import Figures, Watch
from lateint_server.wire import Direct, Route, bearer, in_both_forms

PAGE = Path(__file__).parent / "page"
OURS = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
CLOSED = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
PAGE_HEADERS = {"content-security-policy": OURS + CLOSED}
# Swagger UI sets styles of its own.
DOCS_HEADERS = {"content-security-policy": OURS + "style-src-attr 'unsafe-inline'; " + CLOSED}
LOCAL = ["127.0.0.1", "localhost", "[::1]", "::1"]
DESCRIPTION = (
    "Late-interaction search over HTTP. Embeddings go in JSON, as lists or base64, or in MessagePack "
    "(`Content-Type: application/msgpack`)."
)


def application(indexes: Mapping[str, Index], settings: Settings) -> FastAPI:
    """An ASGI application that serves indexes by their names.

    Indexes are searched and changed from its start to its shutdown. What they do not allow is answered with a
    sentence, see `messages.Problem`.
    """
    served: dict[str, Served] = {}
    figures = Figures(served)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        for name, index in indexes.items():
            served[name] = Served(name, index, settings, figures.together)
        try:
            yield
        finally:
            for one in served.values():
                one.close()
            served.clear()

    middleware = [
        Middleware(Watch, figures=figures, slow=settings.slow, log_requests=settings.log_requests),
        Middleware(Announced, most=settings.max_body),
        Middleware(RequestBodyLimitMiddleware, max_body_size=settings.max_body),
    ]
    if settings.loopback and not settings.keys:  # a page of another origin may have its name lead here
        middleware.append(Middleware(TrustedHostMiddleware, allowed_hosts=LOCAL, www_redirect=False))
    app = FastAPI(
        title="lateint",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        middleware=middleware,
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # `Watch` is ours
    )
    app.state.indexes, app.state.settings, app.state.figures = served, settings, figures
    app.include_router(routes.reading)
    app.include_router(routes.writing)
    app.include_router(_about())
    _show_page(app, settings)
    _answer_errors(app)
    of_indexes = [*routes.reading.routes, *routes.writing.routes]
    app.user_middleware.append(Middleware(Direct, routes=of_indexes, handlers=app.exception_handlers))
    app.openapi = lambda: _document(app)
    return app


def _about() -> APIRouter:
    """What tells about the server."""
    router = APIRouter(tags=["server"])
    guarded = APIRouter(tags=["server"], route_class=Route, dependencies=[Depends(bearer)])
    unready: dict[int | str, dict[str, Any]] = {503: {"model": messages.State, "description": "not yet, or no more"}}

    @router.get("/healthz", summary="Whether the server runs", response_model=messages.State)
    async def healthz() -> Response:
        return JSONResponse({"status": "alive"})

    @router.get("/readyz", summary="Whether it answers searches", response_model=messages.State, responses=unready)
    async def readyz(request: Request) -> Response:
        ready = bool(request.app.state.indexes)
        return JSONResponse({"status": "ready" if ready else "not ready"}, 200 if ready else 503)

    @guarded.get(
        "/metrics",
        summary="Figures for Prometheus",
        response_class=PlainTextResponse,
        responses={401: routes.PROBLEMS[401]},
    )
    async def metrics(request: Request) -> Response:
        return Response(generate_latest(request.app.state.figures.registry), media_type=CONTENT_TYPE_LATEST)

    router.include_router(guarded)
    return router


def _show_page(app: FastAPI, settings: Settings) -> None:
    """The page at the root, and that of the routes; neither takes anything from elsewhere."""

    def file(name: str, headers: dict[str, str]) -> Any:
        async def send() -> Response:
            return FileResponse(PAGE / name, headers={**headers, "cache-control": "no-cache"})

        return send

    shown = [("", "index.html", PAGE_HEADERS), ("page.css",) * 2 + (PAGE_HEADERS,), ("page.js",) * 2 + (PAGE_HEADERS,)]
    if settings.docs:
        shown += [("docs", "docs.html", DOCS_HEADERS), ("docs.js",) * 2 + (DOCS_HEADERS,)]
        assets = str(resources.files("fastapi_offline") / "static")
        app.mount("/swagger", StaticFiles(directory=assets))
    else:  # where the page links to
        app.add_api_route("/docs", _to_document, include_in_schema=False)
    for path, name, headers in shown:
        app.add_api_route(f"/{path}", file(name, headers), include_in_schema=False)
    if settings.images is not None:
        app.mount("/images", StaticFiles(directory=settings.images))


async def _to_document() -> Response:
    return RedirectResponse("openapi.json")


def _answer_errors(app: FastAPI) -> None:
    """Every error in one form."""

    def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
        return JSONResponse({"detail": detail}, status, headers)

    again = {"retry-after": "1"}

    @app.exception_handler(AnyHTTPException)
    async def http(_: Request, error: AnyHTTPException) -> Response:
        if error.status_code == 413:
            return problem(413, f"the body must be at most {app.state.settings.max_body:,} bytes", CLOSE)
        return problem(error.status_code, error.detail, error.headers)

    @app.exception_handler(TooLarge)
    async def too_large(_: Request, error: TooLarge) -> Response:
        return problem(413, str(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return problem(422, "; ".join(_sentence(one) for one in error.errors()))

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return problem(422, str(error))

    @app.exception_handler(UnknownIdError)
    async def unknown(_: Request, error: UnknownIdError) -> Response:
        return problem(404, str(error))

    @app.exception_handler(Overloaded)
    async def overloaded(_: Request, error: Overloaded) -> Response:
        return problem(429, "too much waits already; come back a little later", again)

    @app.exception_handler(TooLate)
    async def late(_: Request, error: TooLate) -> Response:
        return problem(504, "there was no answer in time; a write may still happen")

    @app.exception_handler(LockedError)
    async def locked(_: Request, error: LockedError) -> Response:
        return problem(503, str(error), again)

    @app.exception_handler(OSError)
    async def failed(_: Request, error: OSError) -> Response:
        return problem(503, f"the disk fails: {error.strerror or error}")

    @app.exception_handler(FormatError)
    async def damaged(_: Request, error: FormatError) -> Response:
        return problem(500, str(error))


def _sentence(error: Mapping[str, Any]) -> str:
    """What pydantic found, as our own messages say it."""
    place = ".".join(str(part) for part in error["loc"] if part != "body") or "the body"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{place}: {message[:1].lower()}{message[1:]}" if message else place


def _document(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        app.openapi_schema = in_both_forms(
            get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        )
    document: dict[str, Any] = app.openapi_schema
    return document
