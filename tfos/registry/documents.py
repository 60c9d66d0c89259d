"""Turn registry documents into bytes and back, within the registry's size limit. Pure."""

from __future__ import annotations

from typing import Any, TypeVar

from tfos import wire
from tfos.errors import RendezvousError
from tfos.registry.contract import MAX_DOCUMENT_BYTES

__all__ = ["decode", "encode"]

T = TypeVar("T")


def encode(document: Any, what: str) -> bytes:
    """Write a document as compact UTF-8 JSON.

    Parameters
    ----------
    document
        A dataclass, or a dictionary of JSON values.
    what
        What it is, for the error: ``the outcome of worker-3 in generation 1``.

    Raises
    ------
    RendezvousError
        If it is not JSON, or larger than `MAX_DOCUMENT_BYTES`.
    """
    try:
        data = wire.to_text(document).encode()
    except (TypeError, ValueError) as error:
        raise RendezvousError(f"{what} is not JSON: {error}") from error
    if len(data) > MAX_DOCUMENT_BYTES:
        raise RendezvousError(
            f"{what} takes {len(data)} bytes as JSON, the registry keeps {MAX_DOCUMENT_BYTES} "
            "at most: write large results to a file and report its path"
        )
    return data


def decode(kind: type[T], data: bytes, what: str) -> T:
    """Read back what `encode` wrote for a document of this type.

    Raises
    ------
    RendezvousError
        If `data` is anything else.
    """
    try:
        return wire.from_text(kind, data)
    except ValueError as error:
        raise RendezvousError(f"{what} cannot be read: {error}") from error
