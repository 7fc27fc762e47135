"""Servers on this machine that misbehave, and one that does not."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit


class Proxy:
    """Passes bytes on to another server, until it is told to stop.

    Attributes:
        sent: bytes that came from the server so far.
        limit: after so many bytes, every connection is cut and no new one is served.
        silent: connections are accepted, and nothing more is said.
    """

    def __init__(self, target: str) -> None:
        address = urlsplit(target)
        self._target = (address.hostname, address.port)
        self.sent, self.limit, self.silent = 0, None, False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._target) as server:
            back = threading.Thread(target=self._answer, args=(server, client), daemon=True)
            back.start()
            try:
                while data := client.recv(65536):
                    if not self.silent:
                        server.sendall(data)
            except OSError:
                pass
            back.join(0 if self.silent else 10)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        try:
            while data := server.recv(65536):
                left = len(data) if self.limit is None else max(0, self.limit - self.sent)
                client.sendall(data[:left])
                self.sent += len(data[:left])
                if left < len(data):
                    break
            client.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


class _Files(SimpleHTTPRequestHandler):
    """Serves a folder; `ranges` decides whether it knows ranges."""

    def __init__(self, *args, ranges: bool, **kwargs) -> None:
        self._ranges = ranges
        super().__init__(*args, **kwargs)

    def log_message(self, *args: object) -> None:
        pass

    def list_directory(self, path: object) -> None:
        self.send_error(403, "no listing here")

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not (self._ranges and wanted and path.is_file()):
            super().do_GET()
            return
        content = path.read_bytes()
        part = content[int(wanted[1]) : int(wanted[2]) + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {wanted[1]}-{wanted[2]}/{len(content)}")
        self.end_headers()
        self.wfile.write(part)


@contextmanager
def web_server(folder: Path, *, ranges: bool = True) -> Iterator[str]:
    """The URL of a web server that lists nothing."""
    handler = partial(_Files, directory=str(folder), ranges=ranges)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
