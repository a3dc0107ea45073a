"""What the drivers of both formats need: files of the image, values as digests, calls in a row."""

import copy
import hashlib
import importlib
import json
import os
import re
import sys
import types

# What a model is shown of one result; the whole of it counts for the comparison.
MOST_SHOWN = 8_000
# tau2's longest list has 14 MiB.
MOST_LIST_BYTES = 64 << 20


class Trouble(Exception):
    """Something in the image is not as it should be; the text is for the operator."""


def within(root, *parts):
    """The path of a file of the image. Task files may not lead elsewhere by `..`, an absolute path or a link."""
    path = os.path.realpath(os.path.join(root, *parts))
    if not path.startswith(os.path.realpath(root) + os.sep):
        raise Trouble(f"{'/'.join(parts)} leads out of the image")
    return path


def read_text(path):
    """A file's text."""
    if not os.path.isfile(path):
        raise Trouble(f"{path} is not there")
    if os.path.getsize(path) > MOST_LIST_BYTES:
        raise Trouble(f"{path} has more than {MOST_LIST_BYTES} bytes")
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise Trouble(f"{path} is no text in UTF-8: {error}") from None


def read_json(path):
    """A file's value."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise Trouble(f"{path} is no JSON: {error}") from None


def read_lines(path):
    """The objects of a file with one a line."""
    objects = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise Trouble(f"{path}, line {number}, is no JSON: {error}") from None
        if not isinstance(value, dict):
            raise Trouble(f"{path}, line {number}, is no object")
        objects.append(value)
    return objects


def typed(value, kind, what):
    """The value, which has to be of a kind."""
    if not isinstance(value, kind):
        name = kind.__name__ if isinstance(kind, type) else "value of another kind"
        raise Trouble(f"{what} is no {name}")
    return value


def checked_id(task):
    """A task's id, which the host has to be able to write down."""
    if not isinstance(task, str) or not re.fullmatch(r"[\x21-\x7e]{1,150}", task):
        raise Trouble(f"{str(task)[:80]!r} is no id of a task: 1 to 150 printable characters without a space")
    return task


def empty_packages(names, folders):
    """Makes packages whose own `__init__` is not run: it may want a whole framework that the tools do not need."""
    for name, folder in zip(names, folders):
        package = types.ModuleType(name)
        package.__path__ = [folder]
        sys.modules[name] = package


def module(name):
    """A module of the image."""
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise Trouble(f"the module {name} of the image cannot be imported: {type(error).__name__}: {error}") from None


def plain(value, above=()):
    """What makes up a value, as JSON: two values have the same form where Python's `==` would call them equal."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (bool, int, float)):
        # In base 16: a number with thousands of digits has no other text in Python.
        whole = not isinstance(value, float) or value.is_integer()
        return ["n", hex(int(value)) if whole else repr(value)]
    if id(value) in above:
        # A way back up, such as a folder's parent.
        return ["up", len(above) - above.index(id(value))]
    above = (*above, id(value))
    if isinstance(value, dict):
        pairs = [[plain(key, above), plain(item, above)] for key, item in value.items()]
        return ["d", sorted(pairs, key=lambda pair: json.dumps(pair[0]))]
    if isinstance(value, (list, tuple)):
        return ["l" if isinstance(value, list) else "t", [plain(item, above) for item in value]]
    if isinstance(value, (set, frozenset)):
        return ["s", sorted((plain(item, above) for item in value), key=json.dumps)]
    attributes = getattr(value, "__dict__", None)
    if attributes is None:
        return ["r", type(value).__name__, repr(value)]
    # Private attributes are bookkeeping (times, generators of random numbers), and so is the way up.
    public = {key: item for key, item in attributes.items() if not key.startswith("_") and key != "parent"}
    return ["o", type(value).__name__, plain(public, above)]


def digest(value):
    """A digest of a value."""
    return hashlib.sha256(json.dumps(plain(value)).encode()).hexdigest()


def told(text, failed):
    """A result: what is shown, a digest of the whole, and whether the call failed."""
    # A lone surrogate is text to Python and to nobody else.
    text = text.encode("utf-8", "replace").decode("utf-8")
    whole = hashlib.sha256(text.encode()).hexdigest()
    if len(text) > MOST_SHOWN:
        text = f"{text[:MOST_SHOWN]} [... {len(text) - MOST_SHOWN} characters left out ...]"
    return {"text": text, "digest": whole, "failed": failed}


def play(game, turns):
    """Makes calls, turn by turn: the results of each turn, and the state after it."""
    results, states = [], []
    for turn in turns:
        # Copies: an API may keep what it is given, and change it with a later call.
        results.append([game.call(call["name"], copy.deepcopy(call["arguments"])) for call in turn])
        states.append(game.state())
    return results, states


def expected(game, turns):
    """What the right calls give, turn by turn: digests of their results, and of the state after them."""
    results, states = play(game, turns)
    return {"results": [[result["digest"] for result in turn] for turn in results], "states": states}
