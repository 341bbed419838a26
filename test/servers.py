# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0
"""Network cameras on this machine: MJPEG over HTTP, H.264 over RTSP (RFC 2326, RFC 6184)."""

from __future__ import annotations

import contextlib
import itertools
import re
import socketserver
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np

_SDP = (
    'v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=test\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n'
    'a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:track0\r\n'
)


@contextlib.contextmanager
def _serving(server: socketserver.TCPServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Connections:
    """How often somebody has connected; a closed one sends no more."""

    def __init__(self) -> None:
        self.count = 0
        self.closed = threading.Event()

    def pace(self, seconds: float = 0.02) -> bool:
        """Wait for the next picture; returns False once closed."""
        return not self.closed.wait(seconds)


@contextlib.contextmanager
def http_camera(
    picture: Callable[[int], np.ndarray], breaks_after: int | None = None
) -> Iterator[tuple[str, Connections]]:
    """Serve pictures as MJPEG; the first connection breaks after so many."""
    connections = Connections()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            connections.count += 1
            limit = breaks_after if connections.count == 1 else None
            self.send_response(200)
            self.send_header('Content-Type', 'multipart/x-mixed-replace; boundary=next')
            self.end_headers()
            with contextlib.suppress(OSError):
                for index in itertools.islice(itertools.count(), limit):
                    data = cv2.imencode('.jpg', picture(index)[..., ::-1])[1].tobytes()
                    size = f'Content-Length: {len(data)}'.encode()
                    head = b'--next\r\nContent-Type: image/jpeg\r\n' + size + b'\r\n\r\n'
                    self.wfile.write(head + data + b'\r\n')
                    if not connections.pace():
                        return

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.daemon_threads = True
    with _serving(server) as port:
        try:
            yield f'http://user:secret@127.0.0.1:{port}/video', connections
        finally:
            connections.closed.set()


@contextlib.contextmanager
def rtsp_camera(packets: Sequence[bytes]) -> Iterator[tuple[str, Connections]]:
    """Serve packets of H.264 in Annex B again and again, interleaved in the connection."""
    connections = Connections()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                while request := self._request():
                    method, number = request
                    self._answer(method, number)
                    if method == 'PLAY':
                        connections.count += 1
                        self._play()
                        return

        def _request(self) -> tuple[str, str] | None:
            lines = []
            while (line := self.rfile.readline().decode().strip()) or not lines:
                if not line:
                    return None
                lines.append(line)
            number = re.search(r'CSeq: *(\d+)', '\n'.join(lines), re.IGNORECASE)
            return lines[0].split()[0], number[1] if number else '0'

        def _answer(self, method: str, number: str) -> None:
            more = {
                'OPTIONS': 'Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n',
                'DESCRIBE': f'Content-Type: application/sdp\r\nContent-Length: {len(_SDP)}\r\n',
                'SETUP': 'Session: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n',
            }.get(method, 'Session: 1\r\n')
            body = _SDP if method == 'DESCRIBE' else ''
            self.wfile.write(f'RTSP/1.0 200 OK\r\nCSeq: {number}\r\n{more}\r\n{body}'.encode())

        def _play(self) -> None:
            sequence = 0
            for index, packet in enumerate(itertools.cycle(packets)):
                units = [part for part in re.split(rb'\x00?\x00\x00\x01', packet) if part]
                for unit in units:
                    last = 0x80 if unit is units[-1] else 0
                    head = struct.pack(
                        '>BBHII', 0x80, last | 96, sequence & 0xFFFF, index * 1800, 7
                    )
                    data = head + unit
                    self.wfile.write(b'$\0' + struct.pack('>H', len(data)) + data)
                    sequence += 1
                if not connections.pace():
                    return

    server = socketserver.ThreadingTCPServer(('127.0.0.1', 0), Handler)
    server.daemon_threads = True
    with _serving(server) as port:
        try:
            yield f'rtsp://127.0.0.1:{port}/camera', connections
        finally:
            connections.closed.set()
