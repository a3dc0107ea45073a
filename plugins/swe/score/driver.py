"""Runs hidden cases and unit tests against a copy of a repository, and says what came out.

Usage: driver.py ROOT CASES TESTS SECONDS. CASES is a file of cases, TESTS a file of ids of unit tests, one a line, or `all` for those
in ROOT/tests; either may be `-` for none.

Lines on stdout, one each:

    case <tab> name <tab> value       the value as text, or `raises <type>`
    test <tab> id <tab> ok|failed|skipped
    lost <tab> name <tab> reason      the process died or ran out of time before it answered

This process never imports the repository: every case and every test has a process of its own. The values are compared
elsewhere, so that the right answers are nowhere on this machine.
"""

import ast
import os
import select
import signal
import sys
import time

LONGEST_VALUE = 2000
PATIENCE = 3  # How many may run out of time before the rest is not tried any more.


def render(value, depth=0):
    """Plain data as text, by exact types: an object that only claims to be a number is no number. What is equal is written equally."""
    kind = type(value)
    if depth > 20:
        return "<deep>"
    if kind in (int, bool, str, bytes, type(None)):
        return repr(value)
    if kind is float:
        short = float(f"{value:.12g}")
        return repr(int(short)) if short.is_integer() else repr(short)
    if kind in (list, tuple):
        inner = ", ".join(render(item, depth + 1) for item in value)
        if kind is list:
            return f"[{inner}]"
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if kind is dict:
        pairs = (render(key, depth + 1) + ": " + render(item, depth + 1) for key, item in value.items())
        return "{" + ", ".join(sorted(pairs)) + "}"
    if kind in (set, frozenset):
        return "{" + ", ".join(sorted(render(item, depth + 1) for item in value)) + "}"
    return "<object>"


def answer_case(source, name):
    """What a case returns."""
    scope = {"__name__": "hidden"}
    try:
        exec(compile(source, "hidden.py", "exec"), scope)
        return "case", render(scope[name]())[:LONGEST_VALUE]
    except BaseException as error:
        return "case", f"raises {type(error).__name__}"


def answer_test(name):
    """How a unit test ends."""
    import unittest

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromName(name).run(result)
    if result.testsRun != 1 or not result.wasSuccessful() or result.unexpectedSuccesses:
        return "test", "failed"
    return "test", "skipped" if result.skipped else "ok"


def silence():
    """Nothing that the repository prints is taken for an answer."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)


def alone(root, answer, seconds):
    """Runs `answer` in a process of its own: (kind, value), or ("lost", reason)."""
    inlet, outlet = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(inlet)
        os.setpgid(0, 0)
        silence()
        os.chdir(root)
        # Behind the standard library, so that no file of the repository can take its place.
        sys.path.append(root)
        try:
            kind, value = answer()
        except BaseException as error:
            kind, value = "lost", type(error).__name__
        os.write(outlet, f"{kind}\t{value}".encode("utf-8", "backslashreplace"))
        os._exit(0)
    os.close(outlet)
    try:
        os.setpgid(child, child)
    except OSError:
        pass  # The child did it already.
    heard = listen(inlet, time.monotonic() + seconds)
    try:
        os.killpg(child, signal.SIGKILL)
    except OSError:
        pass
    os.waitpid(child, 0)
    os.close(inlet)
    if heard is None:
        return "lost", "out of time"
    kind, tab, value = heard.decode("utf-8", "replace").partition("\t")
    return (kind, one_line(value)) if tab else ("lost", "no answer")


def listen(inlet, deadline):
    """All bytes up to the end; none when that takes too long."""
    heard = b""
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([inlet], [], [], left)[0]:
            return None
        piece = os.read(inlet, 65536)
        if not piece or len(heard) > 8 * LONGEST_VALUE:
            return heard
        heard += piece


def one_line(text):
    return "".join(char if char.isprintable() else "?" for char in text)


def case_names(source):
    """The cases of a file, found without running it."""
    functions = (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))
    return [function.name for function in functions if function.name.startswith("case_")]


def test_names(folder):
    """The ids of the tests in `tests/test_*.py`, found without running them."""
    names = []
    for file in sorted(os.listdir(folder)):
        if not (file.startswith("test") and file.endswith(".py")):
            continue
        with open(os.path.join(folder, file), encoding="utf-8") as opened:
            tree = ast.parse(opened.read())
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                for item in node.body:
                    if isinstance(item, ast.FunctionDef) and item.name.startswith("test"):
                        names.append(f"tests.{file[:-3]}.{node.name}.{item.name}")
    return names


def main():
    root, cases, tests, seconds = sys.argv[1:5]
    # The folder of this file is no place to import from.
    sys.path[:] = [place for place in sys.path if place != os.path.dirname(os.path.abspath(__file__))]
    plan = []
    if cases != "-":
        with open(cases, encoding="utf-8") as opened:
            source = opened.read()
        plan += [(name, lambda name=name: answer_case(source, name)) for name in case_names(source)]
    names = []
    if tests == "all":
        names = test_names(os.path.join(root, "tests"))
    elif tests != "-":
        with open(tests, encoding="utf-8") as opened:
            names = opened.read().split()
    plan += [(name, lambda name=name: answer_test(name)) for name in names]
    late = 0
    for name, answer in plan:
        kind, value = ("lost", "not tried") if late >= PATIENCE else alone(root, answer, float(seconds))
        late += value == "out of time"
        print(kind, name, value, sep="\t", flush=True)


if __name__ == "__main__":
    main()
