"""Be the store in which the ranks of one generation leave their addresses for each other.

Speaks what Gloo's HTTP store asks for: PUT, GET and DELETE of ``/scope/key``. Values are bytes that
are kept and handed out, never looked into. Runs on the driver; nothing of Horovod is needed there.
"""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Final

from tfos.errors import LaunchError
from tfos.topology import Endpoint

__all__ = ["RingStore"]

# An address is some 200 bytes, and each rank leaves one for every other and for each scope.
_MAX_VALUE_BYTES: Final = 1 << 16
_MAX_VALUES: Final = 1 << 22
_IDLE_S: Final = 10.0


class RingStore:
    """A store on a free port of `host`, and on no other address; closed with its generation.

    It is open to anyone who reaches that port, for Gloo knows no credentials: the ranks it brings
    together trust each other's network all the same.

    Raises
    ------
    LaunchError
        If `host` is not an address of this host.
    """

    def __init__(self, host: str) -> None:
        try:
            self._server = _Server((host, 0), _Handler)
        except OSError as error:
            raise LaunchError(
                f"the ring's store cannot listen on {host} ({error.strerror or error}): "
                "spark.driver.host must be an address of the driver's own host"
            ) from error
        self.endpoint = Endpoint(host, self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="tfos-ring-store", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop listening and forget everything; idempotent. Blocks for a moment."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    # Every rank asks for every other's address at once.
    request_queue_size = 1024

    def __init__(self, address: tuple[str, int], handler: type[_Handler]) -> None:
        super().__init__(address, handler)
        self.values: dict[str, bytes] = {}

    def server_bind(self) -> None:
        # Not HTTPServer's, which asks for this host's full name: seconds where DNS is broken.
        TCPServer.server_bind(self)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a rank that dies in the middle of a request is reported elsewhere."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _IDLE_S

    def do_GET(self) -> None:
        value = self.server.values.get(self.path)
        if value is None:
            self._answer(404)
        else:
            self._answer(200, value)

    def do_PUT(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > _MAX_VALUE_BYTES or len(self.server.values) >= _MAX_VALUES:
            self._answer(413)
            return
        self.server.values[self.path] = self.rfile.read(length)
        self._answer(200)

    def do_DELETE(self) -> None:
        # A rank says by this that it has met the others; they may still be asking for its values.
        self._answer(200)

    def _answer(self, status: int, value: bytes = b"") -> None:
        self.send_response_only(status)
        self.send_header("Content-Length", str(len(value)))
        self.end_headers()
        self.wfile.write(value)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a request is every few milliseconds."""
