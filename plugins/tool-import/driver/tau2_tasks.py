"""Tasks of tau2-bench whose outcome its data base and the user's answers decide.

    /work/data/tau2/domains/<domain>/{tasks.json,db.json,policy.md,split_tasks.json}
    /work/tau2/domains/<domain>/{data_model,tools}.py, and what they import of /work/tau2

Left out are tasks that need a user with tools of its own or a judge, and those that are done when nothing is.
"""

import copy
import glob
import hashlib
import inspect
import json
import os
import re

from image import Trouble, checked_id, empty_packages, expected, module, read_json, read_text, told, typed, within

DATA = "/work/data/tau2/domains"
CODE = "/work/tau2"
# Where a domain has no split of its own.
HELD_OUT_EVERY = 5
PROGRAMMATIC = {"DB", "COMMUNICATE"}


def domains():
    """The names of the domains whose data is there."""
    found = sorted(os.path.basename(os.path.dirname(path)) for path in glob.glob(f"{DATA}/*/tasks.json"))
    if not found:
        raise Trouble(f"there is no <domain>/tasks.json in {DATA}")
    return found


def entries(domain):
    """The tasks of a domain, as they stand there."""
    path = within(DATA, domain, "tasks.json")
    return [typed(entry, dict, f"a task of {path}") for entry in typed(read_json(path), list, path)]


def usable(entry):
    """Whether a task can be played and decided without a model."""
    criteria = entry.get("evaluation_criteria") or {}
    state = entry.get("initial_state") or {}
    basis = set(criteria.get("reward_basis") or PROGRAMMATIC)
    actions = criteria.get("actions") or []
    others = [action for action in actions if action.get("requestor", "assistant") != "assistant"]
    data = state.get("initialization_data") or {}
    theirs = [call for call in state.get("initialization_actions") or [] if call.get("env_type") != "assistant"]
    told_before = state.get("message_history") or data.get("user_data") or theirs or others
    return basis <= PROGRAMMATIC and not told_before and bool(actions or criteria.get("communicate_info"))


def tasks():
    """Every task that can be played, with its domain, and whether it is held out."""
    listed = []
    for domain in domains():
        path = within(DATA, domain, "split_tasks.json")
        split = typed(read_json(path), dict, path) if os.path.exists(path) else {}
        test = {str(task) for task in split.get("test") or []}
        for index, entry in enumerate(entries(domain)):
            held_out = str(entry.get("id")) in test if test else index % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
            if usable(entry):
                listed.append([checked_id(f"{domain}/{entry.get('id')}"), domain, held_out])
    return listed


def public_class(domain, part, of):
    """The class of a domain's module that is defined there and has what is asked for."""
    found = module(f"tau2.domains.{domain}.{part}")
    for _, made in inspect.getmembers(found, inspect.isclass):
        if made.__module__ == found.__name__ and of(made):
            return made
    raise Trouble(f"tau2/domains/{domain}/{part}.py defines nothing to use")


class Game:
    """A domain's data base and the tools over it."""

    def __init__(self, setup):
        # A copy: a data base keeps what it is given.
        setup = copy.deepcopy(setup)
        domain = setup["domain"]
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,60}", domain):
            raise Trouble(f"{domain!r} is no name of a domain")
        names = ["tau2", "tau2.domains", f"tau2.domains.{domain}"]
        empty_packages(names, [CODE, f"{CODE}/domains", within(CODE, "domains", domain)])
        quiet()
        db = public_class(domain, "data_model", lambda made: made.__name__.endswith("DB") and hasattr(made, "load"))
        kit = public_class(domain, "tools", lambda made: hasattr(made, "get_tools"))
        try:
            self.kit = kit(db.load(data_base(domain)))
            if setup["agent_data"]:
                self.kit.update_db(setup["agent_data"])
            for call in setup["actions"]:
                getattr(self.kit, call["func_name"])(**call.get("arguments", {}))
        except Exception as error:
            raise Trouble(f"the domain {domain} cannot begin: {type(error).__name__}: {error}") from None

    def tools(self):
        """The tools with their JSON Schemas."""
        return [tool.openai_schema["function"] for tool in self.kit.get_tools().values()]

    def call(self, name, arguments):
        """Makes a call."""
        try:
            if name not in self.kit.tools:
                raise ValueError(f"Tool '{name}' not found.")
            result = self.kit.tools[name](**arguments)
            return told(result if isinstance(result, str) else json.dumps(dumped(result), default=str), False)
        except Exception as error:
            return told(f"Error: {error}", True)

    def state(self):
        """A digest of the data base; of its text, which for megabytes takes a fraction of the time."""
        return hashlib.sha256(json.dumps(dumped(self.kit.db), sort_keys=True, default=str).encode()).hexdigest()


def quiet():
    """The tools log their work; nobody reads it."""
    try:
        from loguru import logger
        logger.remove()
    except ImportError:
        pass


def dumped(value):
    """A value without classes."""
    if hasattr(value, "model_dump"):
        return value.model_dump()
    if isinstance(value, dict):
        return {key: dumped(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [dumped(item) for item in value]
    return value


def data_base(domain):
    """The path of a domain's data base."""
    for name in ["db.json", "db.toml"]:
        path = within(DATA, domain, name)
        if os.path.exists(path):
            return path
    raise Trouble(f"{DATA}/{domain} has no db.json or db.toml")


def policy(domain):
    """A domain's rules for the agent."""
    for name in ["policy.md", "main_policy.md"]:
        path = within(DATA, domain, name)
        if os.path.exists(path):
            return read_text(path)
    raise Trouble(f"{DATA}/{domain} has no policy.md")


def words(entry):
    """What the user was told to want, as a first message."""
    given = (entry.get("user_scenario") or {}).get("instructions")
    if isinstance(given, dict):
        names = ["reason_for_call", "known_info", "unknown_info", "task_instructions"]
        given = "\n".join(str(given[name]).strip() for name in names if given.get(name))
    if not isinstance(given, str) or not given.strip():
        raise Trouble(f"the task {entry['id']} has no instructions for its user")
    return given


def opened(task):
    """All that the plugin needs of a task. Afterwards the machine holds no task list."""
    domain, _, name = task.partition("/")
    if domain not in domains():
        raise Trouble(f"there is no domain {domain}")
    entry = next((entry for entry in entries(domain) if str(entry.get("id")) == name and usable(entry)), None)
    if entry is None:
        raise Trouble(f"there is no task {task} that can be decided without a model")
    state = entry.get("initial_state") or {}
    criteria = entry["evaluation_criteria"]
    setup = {
        "domain": domain,
        "agent_data": (state.get("initialization_data") or {}).get("agent_data"),
        "actions": state.get("initialization_actions") or [],
    }
    calls = [
        {"name": typed(action.get("name"), str, "an action's name"), "arguments": typed(action.get("arguments") or {}, dict, "an action's arguments")}
        for action in criteria.get("actions") or []
    ]
    game = Game(setup)
    made = {
        "policy": policy(domain),
        "tools": game.tools(),
        "requests": [words(entry)],
        "withheld": {},
        "reference": [calls],
        "start": game.state(),
        "right": expected(game, [calls]),
        "communicate": [str(info) for info in criteria.get("communicate_info") or []],
        # As text: the plugin would give it back with its keys in another order, which an API may show.
        "setup": json.dumps(setup),
    }
    for path in glob.glob(f"{DATA}/*/*tasks*.json"):
        os.remove(path)
    return made
