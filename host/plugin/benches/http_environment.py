"""An environment behind HTTP, as environments are commonly served: the peer of `cargo bench -p plugin`.

`http_environment.py plain` uses the standard library only, `fastapi` what OpenEnv and its like serve environments with. Prints the
port that it listens on; every POST is a step and answers what a scripted user would say.
"""

import json
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

turns = 0


def step(action):
    global turns
    turns += 1
    brief = len(action.split()) < 12
    return {
        "messages": [{"role": "user", "content": "Thanks." if brief else "Please be brief."}],
        "done": turns % 4 == 0,
        "outcome": 1.0 if brief else 0.0,
    }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = json.dumps(step(request["action"])).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


def plain():
    # Small packets must not wait for one another.
    Handler.wbufsize = -1
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


def fastapi():
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel

    class Message(BaseModel):
        role: str
        content: str

    class Action(BaseModel):
        action: str

    class Step(BaseModel):
        messages: list[Message]
        done: bool
        outcome: float

    app = FastAPI()

    @app.post("/step", response_model=Step)
    async def post(action: Action):
        return step(action.action)

    # The event loop sends small packets at once only on sockets that say that they are TCP.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    print(listener.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[listener])


if __name__ == "__main__":
    {"plain": plain, "fastapi": fastapi}[sys.argv[1]]()
