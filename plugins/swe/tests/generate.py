"""Makes repos/<name>/expected.txt and repos/mutants.txt anew. Usage, in plugins/swe: python3 tests/generate.py [REPO ...]

With names, only these repositories' lines are made anew.

A mutant is one small change of a repository's source. Kept are those that hidden cases notice (at least three of them, and not
nearly all), that import, that end in time, and that not all visible tests give away; of those, up to MOST a repository, of as
many operators and places as there are. Everything is seeded: the same sources give the same table.

`tests/mutants.rs` checks the table against what the plugin really does.
"""

import ast
import random
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
REPOS = HERE / "repos"
DRIVER = HERE / "score" / "driver.py"
MOST = 7
TRIED = 130  # Enough to choose from, and the table is made in minutes.

# All cases and tests in one process, for a first look; what is kept is run by the driver itself.
QUICK = """
import os, signal, sys
signal.alarm(2)
sys.path[0] = sys.argv[1]
import driver
root, cases, modules = sys.argv[2:5]
sys.path.append(root)
os.chdir(root)
for module in modules.split(","):
    __import__(module)
out = os.dup(1)
driver.silence()
source = open(cases).read()
said = [(name, driver.answer_case(source, name)) for name in driver.case_names(source)]
said += [(name, driver.answer_test(name)) for name in driver.test_names("tests")]
for name, (kind, value) in said:
    os.write(out, f"{kind}\\t{name}\\t{driver.one_line(value)}\\n".encode())
"""
LEAST_KILLS = 3

COMPARISONS = {
    ast.Lt: ["<=", ">"], ast.LtE: ["<"], ast.Gt: [">=", "<"], ast.GtE: [">"],
    ast.Eq: ["!="], ast.NotEq: ["=="], ast.In: ["not in"], ast.NotIn: ["in"], ast.Is: ["is not"], ast.IsNot: ["is"],
}
COMPARISON_TEXT = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
    ast.In: "in", ast.NotIn: "not in", ast.Is: "is", ast.IsNot: "is not",
}
ARITHMETIC = {ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "+"), ast.FloorDiv: ("//", "%"), ast.Mod: ("%", "//"), ast.Div: ("/", "*")}
CALLS = {"min": "max", "max": "min", "any": "all", "all": "any", "lstrip": "rstrip", "rstrip": "lstrip", "startswith": "endswith",
         "endswith": "startswith", "upper": "lower", "lower": "upper", "popleft": "pop", "partition": "rpartition", "append": "extend"}


class Finder(ast.NodeVisitor):
    """Collects (operator, offset, before, after) of one file."""

    def __init__(self, text):
        self.text = text
        self.starts = [0]
        for line in text.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line.encode()))
        self.raw = text.encode()
        self.found = []
        self.function = None

    def place(self, line, column):
        return self.starts[line - 1] + column

    def span(self, node):
        return self.place(node.lineno, node.col_offset), self.place(node.end_lineno, node.end_col_offset)

    def source(self, node):
        start, end = self.span(node)
        return self.raw[start:end].decode()

    def put(self, operator, start, end, after):
        before = self.raw[start:end].decode()
        if "\n" not in before and before != after:
            self.found.append((operator, start, before, after))

    def between(self, operator, left, right, old, news):
        """Replaces an operator's text between two operands."""
        start, end = self.span(left)[1], self.span(right)[0]
        gap = self.raw[start:end].decode()
        match = re.search(rf"(?<![<>=!*/]){re.escape(old)}(?![<>=*/])" if not old[0].isalpha() else rf"\b{old}\b", gap)
        if match:
            for new in news:
                self.put(operator, start + match.start(), start + match.end(), new)

    def visit_FunctionDef(self, node):
        outer, self.function = self.function, node
        for default in node.args.defaults:
            if isinstance(default, ast.Constant) and isinstance(default.value, bool):
                self.put("wrong-default", *self.span(default), str(not default.value))
            elif isinstance(default, ast.Constant) and isinstance(default.value, int):
                self.put("wrong-default", *self.span(default), str(default.value + 1))
        self.generic_visit(node)
        self.function = outer

    def visit_Compare(self, node):
        left = node.left
        for operator, right in zip(node.ops, node.comparators):
            kind = "membership" if isinstance(operator, (ast.In, ast.NotIn, ast.Is, ast.IsNot)) else "comparison"
            self.between(kind, left, right, COMPARISON_TEXT[type(operator)], COMPARISONS[type(operator)])
            left = right
        self.generic_visit(node)

    def visit_BinOp(self, node):
        if type(node.op) in ARITHMETIC:
            old, new = ARITHMETIC[type(node.op)]
            self.between("wrong-operator", node.left, node.right, old, [new])
        self.generic_visit(node)

    def visit_AugAssign(self, node):
        if type(node.op) in ARITHMETIC:
            old, new = ARITHMETIC[type(node.op)]
            self.between("wrong-operator", node.target, node.value, old + "=", [new + "="])
        self.put("dropped-statement", *self.span(node), "pass")
        self.generic_visit(node)

    def visit_BoolOp(self, node):
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:]):
            self.between("wrong-operator", left, right, old, [new])
        for value in node.values:
            self.put("dropped-condition", *self.span(value), "True" if old == "and" else "False")
        self.generic_visit(node)

    def visit_UnaryOp(self, node):
        if isinstance(node.op, ast.Not):
            self.put("dropped-not", *self.span(node), self.source(node.operand))
        elif isinstance(node.op, ast.USub):
            self.put("dropped-sign", *self.span(node), self.source(node.operand))
        self.generic_visit(node)

    def visit_Constant(self, node):
        if isinstance(node.value, bool):
            self.put("wrong-constant", *self.span(node), str(not node.value))
        elif isinstance(node.value, int):
            self.put("off-by-one", *self.span(node), str(node.value + 1))
            if node.value > 0:
                self.put("off-by-one", *self.span(node), str(node.value - 1))
        self.generic_visit(node)

    def visit_Call(self, node):
        name = node.func
        if isinstance(name, ast.Name) and name.id in CALLS:
            self.put("wrong-call", *self.span(name), CALLS[name.id])
        if isinstance(name, ast.Attribute) and name.attr in CALLS:
            end = self.span(name)[1]
            self.put("wrong-call", end - len(name.attr), end, CALLS[name.attr])
        if len(node.args) == 2 and not any(isinstance(argument, ast.Starred) for argument in node.args):
            first, second = node.args
            self.put("swapped-arguments", self.span(first)[0], self.span(second)[1], f"{self.source(second)}, {self.source(first)}")
        if isinstance(name, ast.Name) and name.id in ("sorted", "reversed", "list", "str", "int") and len(node.args) == 1 and not node.keywords:
            self.put("dropped-call", *self.span(node), self.source(node.args[0]))
        self.generic_visit(node)

    def visit_Name(self, node):
        if self.function is not None and isinstance(node.ctx, ast.Load):
            names = [argument.arg for argument in self.function.args.args if argument.arg not in ("self", "cls")]
            for inner in ast.walk(self.function):
                if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store) and inner.id not in names:
                    names.append(inner.id)
            if node.id in names:
                for other in names:
                    if other not in (node.id, "_"):
                        self.put("wrong-variable", *self.span(node), other)
        self.generic_visit(node)

    def visit_Expr(self, node):
        if isinstance(node.value, ast.Call):
            self.put("dropped-statement", *self.span(node), "pass")
        self.generic_visit(node)

    def visit_Continue(self, node):
        self.put("early-end", *self.span(node), "break")

    def visit_Break(self, node):
        self.put("late-end", *self.span(node), "continue")

    def visit_IfExp(self, node):
        self.put("dropped-condition", *self.span(node), self.source(node.body))
        self.put("dropped-condition", *self.span(node), self.source(node.orelse))
        self.generic_visit(node)

    def visit_Return(self, node):
        if node.value is not None and not isinstance(node.value, ast.Constant):
            names = [argument.arg for argument in self.function.args.args if argument.arg not in ("self", "cls")]
            for name in names[:2]:
                self.put("wrong-result", *self.span(node.value), name)
        self.generic_visit(node)


def files_of(repo):
    return [file for file in sorted(repo.glob("*.py")) if file.name != "hidden.py"]


def run(repo, replaced=None, quick=False):
    """The driver's lines for a repository, with one file's text replaced: {name: (kind, value)}; none where it does not even import."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "repo"
        shutil.copytree(repo, root, ignore=shutil.ignore_patterns("hidden.py", "expected.txt", "__pycache__"))
        if replaced:
            (root / replaced[0]).write_bytes(replaced[1])
        command = [sys.executable, "-s", "-B", DRIVER, root, repo / "hidden.py", "all", "1"]
        if quick:
            modules = ",".join(file.stem for file in files_of(repo))
            command = [sys.executable, "-s", "-B", "-c", QUICK, DRIVER.parent, root, repo / "hidden.py", modules]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={"PYTHONHASHSEED": "0"})
        if done.returncode != 0:
            return None
        said = done.stdout
    lines = [line.split("\t") for line in said.splitlines()]
    return {name: (kind, value) for kind, name, value in lines}


def mutants_of(repo):
    """Every mutant of a repository that fits, as (operator, file, offset, before, after, outcome)."""
    truth = run(repo)
    bad = [name for name, (kind, value) in truth.items() if kind == "lost" or (kind == "test" and value != "ok")]
    assert not bad, f"{repo.name}: {bad}"
    assert not any(value == "<object>" or "<object>" in value for kind, value in truth.values()), repo.name
    again = run(repo)
    assert again == truth, f"{repo.name} does not repeat"
    cases = [name for name, (kind, _) in truth.items() if kind == "case"]
    (repo / "expected.txt").write_text("".join(f"{name}\t{truth[name][1]}\n" for name in cases))
    candidates = []
    for file in files_of(repo):
        text = file.read_text()
        finder = Finder(text)
        finder.visit(ast.parse(text))
        for operator, offset, before, after in dict.fromkeys(finder.found):
            raw = finder.raw
            candidates.append((operator, file.name, offset, before, after, raw[:offset] + after.encode() + raw[offset + len(before.encode()):]))
    random.Random(repo.name).shuffle(candidates)
    count = len(candidates)
    candidates = candidates[:TRIED]

    def judge(candidate):
        _, file, _, _, _, raw = candidate
        got = run(repo, (file, raw), quick=True)
        if got is None:
            return None
        killed = [name for name in cases if got[name][1] != truth[name][1]]
        tests = [name for name, (kind, _) in truth.items() if kind == "test"]
        broken = [name for name in tests if got[name][1] != "ok"]
        if not LEAST_KILLS <= len(killed) <= len(cases) * 6 // 10 or len(broken) * 2 > len(tests) + 1:
            return None
        return killed, broken, got

    chosen = []
    used = {"operator": {}, "line": {}, "outcome": set()}
    with ThreadPoolExecutor(2) as pool:
        judged = list(zip(candidates, pool.map(judge, candidates)))
    fit = [(candidate, outcome) for candidate, outcome in judged if outcome]
    while fit and len(chosen) < MOST:
        def cost(entry):
            (operator, file, offset, *_), (killed, broken, _) = entry
            line = (file, (repo / file).read_bytes()[:offset].count(b"\n"))
            # Type errors give the bug away at once; wrong values are worth more.
            _, outcome = entry
            loud = sum(outcome[2][name][1].startswith("raises") for name in killed) * 2 > len(killed)
            return (used["operator"].get(operator, 0) + 2 * used["line"].get(line, 0) + loud, len(broken))
        entry = min(fit, key=cost)
        fit.remove(entry)
        (operator, file, offset, before, after, raw), (killed, broken, got) = entry
        if run(repo, (file, raw)) != got:
            continue
        if any("<object>" in got[name][1] for name in killed):
            continue  # Nobody could say in an issue what came out.
        fingerprint = tuple(got[name] for name in killed) + tuple(killed)
        if fingerprint in used["outcome"]:
            continue
        used["outcome"].add(fingerprint)
        used["operator"][operator] = used["operator"].get(operator, 0) + 1
        line = (file, (repo / file).read_bytes()[:offset].count(b"\n"))
        used["line"][line] = used["line"].get(line, 0) + 1
        # What a user would report: a wrong value rather than an exception, and the shortest to read.
        shown = min(killed, key=lambda name: (got[name][1].startswith("raises"), len(got[name][1]) + len(truth[name][1]), name))
        chosen.append((f"{operator}-{used['operator'][operator]}", file, offset, before, after, killed, broken, shown, got[shown][1]))
    print(f"{repo.name}: {count} candidates, {len(fit)} more fit, {len(chosen)} kept", file=sys.stderr)
    return chosen


def main():
    table = REPOS / "mutants.txt"
    wanted = sys.argv[1:]
    known = table.read_text().splitlines(keepends=True) if wanted else []
    lines = ["# repo\tmutant\tfile\toffset\tbefore\tafter\tkilled by\tbroken tests\tshown\tgot; made by tests/generate.py\n"]
    for repo in sorted(path for path in REPOS.iterdir() if path.is_dir()):
        if wanted and repo.name not in wanted:
            lines += [line for line in known if line.startswith(repo.name + "\t")]
            continue
        for mutant, file, offset, before, after, killed, broken, shown, got in mutants_of(repo):
            fields = [repo.name, mutant, file, str(offset), before, after, ",".join(killed), ",".join(broken), shown, got]
            assert not any("\t" in field or "\n" in field for field in fields)
            lines.append("\t".join(fields) + "\n")
    table.write_text("".join(lines))


main()
