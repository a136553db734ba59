"""What keeps one visitor's request from taking the server of all: a cap on request bodies."""

from __future__ import annotations

from typing import Any

from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

UPLOAD_BYTES = 256 * 2**20  #: of a file, in the body of an upload
SLACK = 2**16  #: what the form around an uploaded file may take
JSON_BYTES = 4 * 2**20  #: of any other request: some 400,000 numbers


class BodyLimit:
    """ASGI middleware: a body that is too large is answered with 413 and never held.

    The server would read and parse the whole body first: one JSON post of 60 MB stops every
    visitor for half a minute. A declared length is refused at once, an undeclared one as soon
    as it goes past the limit.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = limit_of(scope)
        declared = dict(scope["headers"]).get(b"content-length", b"")
        if declared.isdigit() and int(declared) > limit:
            await _refusal(limit)(scope, receive, send)
            return
        await self.app(scope, _counted(receive, limit), send)


def limit_of(scope: Scope) -> int:
    """The bytes that the body of this request may have.

    >>> limit_of({"path": "/gradio_api/upload"}) > limit_of({"path": "/gradio_api/queue/join"})
    True
    """
    is_upload = scope["path"].rstrip("/").endswith("/upload")
    return UPLOAD_BYTES + SLACK if is_upload else JSON_BYTES


def _words(limit: int) -> str:
    return f"The request is larger than {limit // 2**20} MB. Send less at a time."


def _refusal(limit: int) -> JSONResponse:
    return JSONResponse({"detail": _words(limit)}, status_code=413)


def _counted(receive: Receive, limit: int) -> Receive:
    """`receive`, which raises once more than `limit` bytes have come."""
    seen = 0

    async def counting() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise HTTPException(413, _words(limit))
        return message

    return counting


def app_options() -> dict[str, Any]:
    """What `launch(app_kwargs=…)` takes: the middleware of the server."""
    return {"middleware": [Middleware(BodyLimit)]}
