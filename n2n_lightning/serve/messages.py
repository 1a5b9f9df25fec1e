"""Messages to the page and from it: JSON of bounded size, and pixels behind a line of JSON."""

import json
import struct
from typing import Any

import numpy as np
from starlette.requests import Request

BODY_BYTES = 2**16  # of what the page sends, but for dropped files
# Types of pixels that JavaScript has arrays of; others become float32, for display alone.
_PIXEL_TYPES = {"uint8": "<u1", "uint16": "<u2"}


class BadRequestError(ValueError):
    """What the page sent is not what it should send."""


async def body_of(request: Request) -> dict[str, Any]:
    """Return the JSON that the page sent.

    Args:
        request: with a body of BODY_BYTES at most.

    Returns:
        An object.

    Raises:
        BadRequestError: it is larger, or none.
    """
    content = b""
    async for piece in request.stream():
        content += piece
        if len(content) > BODY_BYTES:
            raise BadRequestError("too large")
    try:
        body = json.loads(content)
    except ValueError:
        raise BadRequestError("no JSON") from None
    if not isinstance(body, dict):
        raise BadRequestError("no object")
    return body


def whole(value: Any, name: str) -> int:
    """Return a whole number from the page.

    Args:
        value: what it sent.
        name: of the field.

    Raises:
        BadRequestError: it is none, or larger than any picture.
    """
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > 2**31:
        raise BadRequestError(f"{name}: must be a whole number")
    return value


def text_of(value: Any, name: str, most: int = 4096) -> str:
    """Return a text from the page.

    Args:
        value: what it sent.
        name: of the field.
        most: letters.

    Raises:
        BadRequestError: it is none, or longer.
    """
    if not isinstance(value, str) or len(value) > most:
        raise BadRequestError(f"{name}: must be a text of {most} letters at most")
    return value


def packed(message: dict[str, Any], pixels: np.ndarray | None = None) -> bytes:
    """Return a message as the page reads it.

    Args:
        message: plain data.
        pixels: (h, w, C); None: none.

    Returns:
        Two lengths as 4 bytes each, little-endian; the message as JSON; the pixels, row by row.
    """
    content = b""
    if pixels is not None:
        kind = _PIXEL_TYPES.get(pixels.dtype.name, "<f4")
        with np.errstate(over="ignore"):
            content = np.ascontiguousarray(pixels, kind).tobytes()
        message = {**message, "dtype": kind[1:], "shape": list(pixels.shape)}
    head = json.dumps(message).encode()
    return struct.pack("<II", len(head), len(content)) + head + content
