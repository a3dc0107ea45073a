"""Gymnasium environments and reasoning-gym tasks as an OpenEnv server.

    python examples/interop/bridge.py gym FrozenLake-v1 --make is_slippery=false
    python examples/interop/bridge.py reasoning-gym chain_sum --seed 7 --size 10000

Speaks the protocol with OpenEnv's own server, so every OpenEnv client can play. Observations are texts. Each session has an environment
of its own. Prints "listening on PORT" when it can be reached.
"""

import argparse
import json
import re
import socket
from typing import Any, Optional
from uuid import uuid4

from pydantic import Field, create_model

import uvicorn
from openenv.core.env_server.http_server import create_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, EnvironmentMetadata, Observation, State

COLOUR = re.compile(r"\x1b\[([0-9;]*)m")

# What the numbers mean, where Gymnasium does not say it in a form that a program can read.
ACTIONS = {
    "FrozenLake": ["left", "down", "right", "up"],
    "CliffWalking": ["up", "right", "down", "left"],
    "Taxi": ["south", "north", "east", "west", "pick up", "drop off"],
    "Blackjack": ["stick", "hit"],
}


class Text(Observation):
    """What the policy reads."""

    text: str = Field(default="", description="The observation as text")


class Answer(Action):
    """The answer to a question."""

    answer: str = Field(..., description="The answer to the question, and nothing else")


class Bridge(Environment):
    """What both bridges share: a name, and a state that counts steps."""

    SUPPORTS_CONCURRENT_SESSIONS = True
    name = "bridge"

    def __init__(self):
        super().__init__()
        self._state = State()

    def begin(self, episode_id: Optional[str]) -> None:
        self._state = State(episode_id=episode_id or str(uuid4()), step_count=0)

    @property
    def state(self) -> State:
        return self._state

    def get_metadata(self) -> EnvironmentMetadata:
        return EnvironmentMetadata(name=self.name, description=self.name, version="1")


def gym_bridge(env_id: str, options: dict[str, Any]):
    """The environment class and the action class for a Gymnasium environment with discrete actions."""
    import gymnasium

    probe = gymnasium.make(env_id, **options)
    space = probe.action_space
    if not isinstance(space, gymnasium.spaces.Discrete):
        raise SystemExit(f"{env_id} has actions of {space}; only discrete ones can be written as a number")
    drawn = "ansi" in probe.metadata.get("render_modes", [])
    probe.close()
    first, last = int(space.start), int(space.start + space.n - 1)
    names = ACTIONS.get(env_id.split("-")[0], [])
    said = ", ".join(f"{first + i} {name}" for i, name in enumerate(names)) or "the number of the action"
    move = create_model("Move", __base__=Action, action=(int, Field(..., ge=first, le=last, description=said)))

    def draw(picture: str) -> str:
        # Gymnasium marks where the agent is by colour; a text has none.
        marked = re.sub(r"\x1b\[41m(.*?)\x1b\[0m", r"[\1]", picture)
        return COLOUR.sub("", marked).strip("\n")

    class Gym(Bridge):
        name = f"gymnasium {env_id}"

        def __init__(self):
            super().__init__()
            self.env = gymnasium.make(env_id, **options, **({"render_mode": "ansi"} if drawn else {}))

        def seen(self, observation, reward, done) -> Text:
            text = draw(self.env.render()) if drawn else f"observation: {plain(observation)}"
            return Text(text=text, reward=reward, done=done, metadata={"observation": plain(observation)})

        def reset(self, seed: Optional[int] = None, episode_id: Optional[str] = None, **_: Any) -> Text:
            self.begin(episode_id)
            observation, _info = self.env.reset(seed=seed)
            return self.seen(observation, None, False)

        def step(self, action, timeout_s: Optional[float] = None, **_: Any) -> Text:
            self._state.step_count += 1
            observation, reward, terminated, truncated, _info = self.env.step(action.action)
            return self.seen(observation, float(reward), bool(terminated or truncated))

        def close(self) -> None:
            self.env.close()

    return Gym, move


def plain(value: Any) -> Any:
    """An observation as JSON: numpy's numbers and arrays as Python's."""
    return json.loads(json.dumps(value, default=lambda v: v.tolist() if hasattr(v, "tolist") else str(v)))


def reasoning_bridge(dataset: str, seed: int, size: int, options: dict[str, Any]):
    """The environment class and the action class for a reasoning-gym data set: an episode is one question."""
    import reasoning_gym

    data = reasoning_gym.create_dataset(dataset, seed=seed, size=size, **options)

    class Reasoning(Bridge):
        name = f"reasoning-gym {dataset}"

        def reset(self, seed: Optional[int] = None, episode_id: Optional[str] = None, **_: Any) -> Text:
            self.begin(episode_id)
            index = 0 if seed is None else seed
            if index >= size:
                # Not modulo: two seeds of different splits would be one question.
                raise ValueError(f"there is no question {index}: start the bridge with a --size of more than {index}")
            self.entry = data[index]
            return Text(text=self.entry["question"], done=False)

        def step(self, action: Answer, timeout_s: Optional[float] = None, **_: Any) -> Text:
            self._state.step_count += 1
            score = float(data.score_answer(action.answer, self.entry))
            return Text(text="Right." if score == 1.0 else "Wrong.", reward=score, done=True)

    return Reasoning, Answer


def pair(text: str) -> tuple[str, Any]:
    key, _, value = text.partition("=")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=["gym", "reasoning-gym"])
    parser.add_argument("name", help="an id such as FrozenLake-v1, or a data set such as chain_sum")
    parser.add_argument("--make", metavar="KEY=VALUE", type=pair, action="append", default=[], help="passed to its constructor")
    parser.add_argument("--seed", type=int, default=0, help="reasoning-gym: which questions there are")
    parser.add_argument("--size", type=int, default=100_000, help="reasoning-gym: how many")
    parser.add_argument("--port", type=int, default=8000, help="0 for any free one")
    parser.add_argument("--sessions", type=int, default=64, help="at once")
    args = parser.parse_args()
    if args.kind == "gym":
        env, action = gym_bridge(args.name, dict(args.make))
    else:
        env, action = reasoning_bridge(args.name, args.seed, args.size, dict(args.make))
    app = create_app(env, action, Text, env_name=args.name, max_concurrent_envs=args.sessions)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", args.port))
    listener.listen(128)
    print(f"listening on {listener.getsockname()[1]}", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


if __name__ == "__main__":
    main()
