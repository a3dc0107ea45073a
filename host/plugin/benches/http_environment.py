"""An environment behind HTTP, as environments are commonly served: the peer of `cargo bench -p plugin`.

Standard library only. Prints the port that it listens on; every POST is a step and answers what a scripted user would say.
"""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    turns = 0

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Handler.turns += 1
        brief = len(request["action"].split()) < 12
        answer = json.dumps(
            {
                "messages": [{"role": "user", "content": "Thanks." if brief else "Please be brief."}],
                "done": Handler.turns % 4 == 0,
                "outcome": 1.0 if brief else 0.0,
            }
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    # Small packets must not wait for one another.
    Handler.wbufsize = -1
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()
