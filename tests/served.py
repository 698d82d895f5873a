"""A real HTTP server on this machine that plays an OpenAI-compatible endpoint: good, bad, slow and dishonest."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SOON = {"retry-after-ms": "1"}  # the client honours it: no waiting in tests


class Server(ThreadingHTTPServer):
    """Answers every question with `behave(handler, body)`: a reply, (status, message), or None if it did it itself."""

    daemon_threads, request_queue_size = True, 128

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock, self.bodies, self.flight, self.most = threading.Lock(), [], 0, 0
        self.behave = lambda handler, body: "right"
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request, client_address):
        pass  # a client that gave up


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            self.server.bodies.append(body)
            self.server.flight += 1
            self.server.most = max(self.server.most, self.server.flight)
        try:
            said = self.server.behave(self, body)
        finally:
            with self.server.lock:
                self.server.flight -= 1
        if isinstance(said, str):
            self.send(200, {"choices": [{"index": 0, "message": {"role": "assistant", "content": said}}]})
        elif said:
            self.send(said[0], {"error": {"message": said[1]}})

    def send(self, status, content):
        content = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": str(len(content)), **SOON}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass
