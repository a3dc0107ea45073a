"""What stands between the host and app.py: the functions that app.py leaves out, the log, and what the host does not have.

`print` writes to the host's log, and so does an exception that is no fault before it ends the call.
"""

import abc
import builtins
import functools
import io
import os
import sys
import time

# What the standard library imports only when it is called: `Counter.most_common`, `datetime.strptime`, `str.encode`.
import _strptime
import encodings.ascii
import encodings.latin_1
import encodings.utf_16
import heapq

import app
from componentize_py_types import Err
from wit_world.imports import log, types


def unsupported(name):
    def function(*_):
        raise Err(types.Fault_Unsupported(name))

    return function


def reactions(_self, _turn, new_messages):
    messages = [said for said in new_messages if said.role in (types.Role.USER, types.Role.TOOL)]
    return types.Observation(messages, []) if messages else None


def unknown(_self, _request):
    from wit_world.exports.environment import Line

    return Line.UNKNOWN


# What a plugin says that has nothing to say, as in the kit for Rust.
DEFAULTS = {
    "Environment": {
        "classify": unknown,
        "next_state": reactions,
        "session_ends": lambda *_: False,
        "tasks": lambda *_: [],
    },
    "Episode": {
        "restore": unsupported("restore"),
        "outcome": lambda *_: None,
        "snapshot": unsupported("snapshot"),
    },
    "Judge": {
        "ask_hint": lambda *_: None,
        "read_hint": lambda *_: None,
        "place_hint": unsupported("place-hint"),
    },
    "Reward": {
        "advantages": lambda _self, rewards: rewards,
        "token_advantages": lambda *_: None,
    },
}


class Lines(io.TextIOBase):
    """A stream that ends in the log, a line at a time; a guest has no other."""

    def __init__(self, level):
        self.level, self.rest = level, ""

    def write(self, text):
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            log.write(self.level, line)
        return len(text)


# What would end a call without a word, since there is no system behind it.
ABSENT = {
    "files": [(builtins, "open"), (io, "open")]
    + [(os, name) for name in ("open", "stat", "lstat", "listdir", "scandir", "mkdir", "remove")],
    "clock but `wit_world.imports.clock`": [
        (time, name)
        for name in ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "sleep")
    ],
    "randomness but `wit_world.imports.random`": [(os, "urandom")],
}


def absent(what):
    def function(*_, **__):
        raise OSError(f"a guest has no {what}")

    return function


@functools.cache
def begin():
    """Before the first call, and not while the component is built, which may read and import."""
    sys.stdout, sys.stderr = Lines(log.Level.INFO), Lines(log.Level.WARN)
    for what, functions in ABSENT.items():
        for module, name in functions:
            setattr(module, name, absent(what))
    sys.path.clear()
    sys.path_hooks.clear()
    sys.path_importer_cache.clear()


def begun(call):
    @functools.wraps(call)
    def function(*given):
        begin()
        try:
            return call(*given)
        except ImportError:
            print("a guest imports only while it is built: at the top of app.py", file=sys.stderr)
            raise

    return function


for kind, defaults in DEFAULTS.items():
    exported = getattr(app, kind, None)
    if exported is None:
        continue
    for name, default in defaults.items():
        own = getattr(exported, name, None)
        if own is None or getattr(own, "__isabstractmethod__", False):
            setattr(exported, name, default)
    abc.update_abstractmethods(exported)
    for name, call in list(vars(exported).items()):
        if isinstance(call, (classmethod, staticmethod)):
            setattr(exported, name, type(call)(begun(call.__func__)))
        elif callable(call) and not name.startswith("__"):
            setattr(exported, name, begun(call))
    globals()[kind] = exported
