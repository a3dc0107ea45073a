"""Multi-turn tasks of the Berkeley Function Calling Leaderboard: `bfcl_eval` as the package has it, or the part of it that is needed.

    /work/bfcl_eval/data/BFCL_*multi_turn_*.json                    questions, one a line
    /work/bfcl_eval/data/possible_answer/<the same name>            the right calls, one task a line
    /work/bfcl_eval/data/multi_turn_func_doc/<module>.json          the tools of a class, one a line
    /work/bfcl_eval/eval_checker/multi_turn_eval/func_source_code/<module>.py
"""

import ast
import copy
import glob
import inspect
import json
import os
import re

from image import Trouble, checked_id, digest, empty_packages, expected, module, read_lines, read_text, told, typed, within

ROOT = "/work/bfcl_eval"
DOCS = "data/multi_turn_func_doc"
CODE = "eval_checker/multi_turn_eval/func_source_code"
PACKAGE = "bfcl_eval.eval_checker.multi_turn_eval.func_source_code"
# No split is published. The same numbers of every category are held out, since they are the same story.
HELD_OUT_EVERY = 5
# These have no state, and no scenario to load.
WITHOUT_SCENARIO = "_load_scenario"


def lists():
    """The files with questions, by the name of their category."""
    found = {}
    for path in sorted(glob.glob(f"{ROOT}/data/BFCL_*multi_turn_*.json")):
        found[os.path.basename(path).split("multi_turn_")[1].removesuffix(".json")] = path
    if not found:
        raise Trouble(f"there is no BFCL_*multi_turn_*.json in {ROOT}/data")
    return found


def tasks():
    """Every task with its category, and whether it is held out."""
    listed = []
    for category, path in lists().items():
        for index, entry in enumerate(read_lines(path)):
            task = checked_id(entry.get("id"))
            number = re.search(r"_([0-9]{1,9})$", task)
            number = int(number[1]) if number else index
            listed.append([task, category, number % HELD_OUT_EVERY == HELD_OUT_EVERY - 1])
    return listed


def entry_of(path, task):
    """The line of a file that is about a task."""
    for entry in read_lines(path):
        if entry.get("id") == task:
            return entry
    return None


def module_of(name):
    """The module that defines a class; it has the same name as the file with its tools."""
    if not isinstance(name, str) or not name.isidentifier():
        raise Trouble(f"{str(name)[:80]!r} is no name of a class")
    defines = re.compile(rf"^class {name}\b", re.MULTILINE)
    for path in sorted(glob.glob(f"{ROOT}/{CODE}/*.py")):
        if defines.search(read_text(within(ROOT, CODE, os.path.basename(path)))):
            return os.path.basename(path).removesuffix(".py")
    raise Trouble(f"no file of {ROOT}/{CODE} defines the class {name}")


def schema(value):
    """A schema of theirs as JSON Schema: some types have other names there."""
    if isinstance(value, list):
        return [schema(item) for item in value]
    if not isinstance(value, dict):
        return value
    names = {"dict": "object", "float": "number", "tuple": "array", "list": "array", "bool": "boolean", "str": "string", "int": "integer"}
    made = {key: schema(item) for key, item in value.items()}
    kind = made.get("type")
    if isinstance(kind, str):
        if kind == "any":
            del made["type"]
        else:
            made["type"] = names.get(kind, kind)
    return made


def tools(classes, excluded):
    """The tools of some classes."""
    listed = []
    for name in classes:
        for doc in read_lines(within(ROOT, DOCS, f"{module_of(name)}.json")):
            tool = typed(doc.get("name"), str, "a tool's name")
            if tool in excluded:
                continue
            listed.append({
                "name": tool,
                "description": str(doc.get("description", "")),
                "parameters": schema(doc.get("parameters") or {"type": "object", "properties": {}}),
            })
    return listed


class Game:
    """The instances of a task's classes."""

    def __init__(self, setup):
        folders = ["", "eval_checker", "eval_checker/multi_turn_eval", CODE]
        parts = PACKAGE.split(".")
        names = [".".join(parts[: length + 1]) for length in range(len(parts))]
        empty_packages(names, [os.path.join(ROOT, folder) for folder in folders])
        self.instances = {}
        self.methods = {}
        config = typed(setup["initial_config"], dict, "`initial_config`")
        for name in setup["involved_classes"]:
            made = self.instance(name, setup["module"][name], config, setup["long_context"])
            self.instances[name] = made
            for method, function in inspect.getmembers(made, predicate=inspect.ismethod):
                if not method.startswith("_"):
                    self.methods[method] = function

    @staticmethod
    def instance(name, module_name, config, long_context):
        """An instance with its scenario."""
        try:
            made = getattr(module(f"{PACKAGE}.{module_name}"), name)()
            if hasattr(made, WITHOUT_SCENARIO):
                made._load_scenario(copy.deepcopy(config.get(name, {})), long_context=long_context)
            return made
        except Trouble:
            raise
        except Exception as error:
            raise Trouble(f"the class {name} cannot take its scenario: {type(error).__name__}: {error}") from None

    def call(self, name, arguments, positional=()):
        """Makes a call."""
        try:
            if name not in self.methods:
                raise NameError(f"name '{name}' is not defined")
            result = self.methods[name](*positional, **arguments)
        except Exception as error:
            return told(f"Error during execution: {error}", True)
        failed = isinstance(result, dict) and "error" in result
        if isinstance(result, dict):
            try:
                return told(json.dumps(result), failed)
            except (TypeError, ValueError):
                pass
        return told(result if isinstance(result, str) else str(result), failed)

    def state(self):
        """A digest of all instances."""
        return digest({name: vars_of(instance) for name, instance in self.instances.items()})


def vars_of(instance):
    """What of an instance counts: its public attributes."""
    return {key: value for key, value in vars(instance).items() if not key.startswith("_")}


def parsed(text, game):
    """A call as the answers have it, `f(1, a='b')`: its name, its values by position, its values by name. Nothing is evaluated."""
    wrong = Trouble(f"{str(text)[:200]!r} among the right calls is no call with plain values")
    try:
        call = ast.parse(typed(text, str, "one of the right calls").strip(), mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise wrong
        positional = [ast.literal_eval(value) for value in call.args]
        named = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        raise wrong from None
    if None in named or call.func.id not in game.methods:
        raise wrong
    return call.func.id, positional, named


def by_name(call, game):
    """A call whose values all have names, as a model makes it."""
    name, positional, named = call
    try:
        bound = inspect.signature(game.methods[name]).bind(*positional, **named)
    except TypeError:
        return {"name": name, "arguments": named}
    return {"name": name, "arguments": dict(bound.arguments)}


class Right(Game):
    """The instances on which the right calls are made: as they stand there, by position too."""

    def call(self, name, arguments):
        positional, named = arguments
        return super().call(name, named, positional)


def opened(task):
    """All that the plugin needs of a task. Afterwards the machine holds neither questions nor answers."""
    for path in lists().values():
        entry = entry_of(path, task)
        if entry is not None:
            break
    else:
        raise Trouble(f"there is no task {task}")
    answers = within(ROOT, "data/possible_answer", os.path.basename(path))
    right = entry_of(answers, task)
    if right is None:
        raise Trouble(f"{answers} has no right calls for {task}")
    questions = typed(entry.get("question"), list, f"`question` of {task}")
    truth = typed(right.get("ground_truth"), list, f"`ground_truth` of {task}")
    if len(questions) != len(truth) or not questions:
        raise Trouble(f"{task} has {len(questions)} questions and right calls for {len(truth)}")
    classes = typed(entry.get("involved_classes"), list, f"`involved_classes` of {task}")
    setup = {
        "involved_classes": classes,
        "initial_config": typed(entry.get("initial_config", {}), dict, f"`initial_config` of {task}"),
        "module": {name: module_of(name) for name in classes},
        "long_context": "long_context" in task or "composite" in task,
    }
    game = Right(setup)
    start = game.state()
    calls = [[parsed(call, game) for call in typed(turn, list, f"right calls of {task}")] for turn in truth]
    if not any(calls):
        raise Trouble(f"{task} is done when nothing is")
    made = {
        "policy": "",
        "tools": tools(classes, entry.get("excluded_function") or []),
        "requests": [words(question, task) for question in questions],
        "withheld": {str(turn): names for turn, names in (entry.get("missed_function") or {}).items()},
        "reference": [[by_name(call, game) for call in turn] for turn in calls],
        "right": expected(game, [[{"name": name, "arguments": (by, named)} for name, by, named in turn] for turn in calls]),
        "start": start,
        "communicate": [],
        # As text: the plugin would give it back with its keys in another order, which an API may show.
        "setup": json.dumps(setup),
    }
    for path in [*lists().values(), *glob.glob(f"{ROOT}/data/possible_answer/*")]:
        os.remove(path)
    return made


def words(question, task):
    """What the user says in a turn."""
    messages = typed(question, list, f"a question of {task}")
    texts = [message.get("content") for message in messages if isinstance(message, dict)]
    if not all(isinstance(text, str) for text in texts):
        raise Trouble(f"a question of {task} has no text")
    return "\n".join(texts)
