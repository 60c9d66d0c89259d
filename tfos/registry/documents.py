"""Turn registry documents into bytes and back, within the registry's size limit. Pure."""

from __future__ import annotations

import json
from typing import Any

from tfos.errors import RendezvousError
from tfos.registry.contract import MAX_DOCUMENT_BYTES, Document

__all__ = ["decode", "encode"]


def encode(document: Document, what: str) -> bytes:
    """Write a document as compact UTF-8 JSON.

    Parameters
    ----------
    document
        A JSON object.
    what
        What it is, for the error: ``the outcome of worker-3 in generation 1``.

    Raises
    ------
    RendezvousError
        If it is not JSON, or larger than `MAX_DOCUMENT_BYTES`.
    """
    try:
        data = json.dumps(document, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise RendezvousError(f"{what} is not JSON: {error}") from error
    if len(data) > MAX_DOCUMENT_BYTES:
        raise RendezvousError(
            f"{what} takes {len(data)} bytes as JSON, the registry keeps {MAX_DOCUMENT_BYTES} "
            "at most: write large results to a file and report its path"
        )
    return data


def decode(data: bytes, what: str) -> dict[str, Any]:
    """Read back what `encode` wrote.

    Raises
    ------
    RendezvousError
        If `data` is not a JSON object.
    """
    try:
        document = json.loads(data)
    except ValueError as error:
        raise RendezvousError(f"{what} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise RendezvousError(f"{what} is not a JSON object but {type(document).__name__}")
    return document
