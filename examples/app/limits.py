# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Refuses what visitors must not make the page read: more bytes than an image has, and addresses."""

from typing import Any

import gradio as gr
from gradio_client.utils import is_http_url_like
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


MAX_FILE = 32 * 2**20  # bytes of an upload
MAX_MESSAGE = 2**20  # bytes of any other request; they hold names and numbers


class RequestTooLargeError(Exception):
    """Raised while a request is read that is longer than it may be. It never leaves this module."""


class BodyLimit:
    """Refuses requests with more than `MAX_FILE` bytes, or `MAX_MESSAGE` if they are no uploads, as they arrive."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = MAX_FILE + MAX_MESSAGE if scope["path"].rstrip("/").endswith("/upload") else MAX_MESSAGE
        seen, started = 0, False

        async def receive_some() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                raise RequestTooLargeError
            return message

        async def send_on(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive_some, send_on)
        except RequestTooLargeError:
            if not started:
                await PlainTextResponse(f"more than {limit:,} bytes", 413)(scope, receive, send)


def take_uploads(image: gr.Image) -> gr.Image:
    """Lets a component take uploads alone, and as they are: gradio would also download an address that a visitor names,
    of any length, and would open the file, with a traceback in the log where it is no image. `decode` opens it.

    A class of its own would do, but gradio writes a file beside each module that has one.
    """
    move = image.async_move_resource_to_block_cache

    async def move_upload(place: Any) -> str | None:
        if isinstance(place, str) and is_http_url_like(place):
            raise gr.Error("This page opens no addresses: upload the file.", print_exception=False)
        return await move(place)

    def name_file(payload: Any) -> str | None:
        if payload is not None and payload.path is None:
            raise gr.Error("This page takes files alone: upload the image.", print_exception=False)
        return None if payload is None else payload.path

    image.async_move_resource_to_block_cache = move_upload  # type: ignore[assignment, method-assign]
    image.preprocess = name_file  # type: ignore[assignment, method-assign]
    return image
