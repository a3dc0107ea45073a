"""Starts the environment that `openenv init` makes, as its author would: the folder is the only argument.

Prints "listening on PORT" when it can be reached.
"""

import importlib
import pathlib
import socket
import sys

import uvicorn

folder = pathlib.Path(sys.argv[1]).resolve()
sys.path.insert(0, str(folder.parent))
app = importlib.import_module(f"{folder.name}.server.app").app
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen(16)
print(f"listening on {listener.getsockname()[1]}", flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])
