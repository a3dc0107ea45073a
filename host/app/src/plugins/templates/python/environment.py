"""An environment: hosts a quiz of sums, and leaves live traffic to the defaults of the kit.

The same task, seed and actions give the same episode, byte for byte. `nextstate/wit/environment.wit` says what each
function promises.
"""

import re

from componentize_py_types import Err
from wit_world.exports.environment import (
    ActionKind,
    Capabilities,
    Done,
    ModalityCard,
    ObservationKind,
    OutcomeScore,
    Split,
    Step,
)
from wit_world.imports.types import Fault_InvalidInput, Message, Observation, Role


def says(text):
    message = Message(Role.USER, text, reasoning=None, tool_calls=[], tool_call_id=None, name=None)
    return Observation([message], evidence=[])


class Environment:
    def describe(self):
        return ModalityCard(
            name="plugin-name",
            version="0.1.0",
            action=ActionKind.TEXT,
            observation=ObservationKind.TEXT,
            tools=[],
            capabilities=Capabilities(0),
        )

    def tasks(self, split):
        # No task is in both splits.
        numbers = range(2, 10) if split == Split.TRAIN else range(10, 13)
        return [f"{a}+{2 * a + 1}" for a in numbers]


class Episode:
    """One sum; whether it was answered, and rightly."""

    def __init__(self, a, b):
        self.a, self.b, self.right = a, b, None

    @classmethod
    def start(cls, task, seed):
        numbers = re.fullmatch(r"(\d{1,4})\+(\d{1,4})", task, re.ASCII)
        if numbers is None:
            raise Err(Fault_InvalidInput(f"no task `{task}`"))
        return cls(int(numbers[1]), int(numbers[2]))

    def observe(self):
        return says(f"What is {self.a} + {self.b}?")

    def act(self, action):
        if self.right is not None:
            raise Err(Fault_InvalidInput("the episode is over"))
        self.right = str(self.a + self.b) in re.findall(r"\w+", action.reply.content)
        return Step(says("Right." if self.right else "Wrong."), Done.FINISHED)

    def outcome(self):
        if self.right is None:
            return None
        return OutcomeScore(1.0 if self.right else 0.0, metrics=[])
