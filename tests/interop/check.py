"""The official OpenEnv client against `nextstate serve-env`: NEXTSTATE_URL hosts `tool-call` with 3 episodes at once."""

import json
import os
import sys
import traceback
import urllib.error
import urllib.request

import jsonschema
from openenv.core.generic_client import GenericEnvClient

URL = os.environ["NEXTSTATE_URL"]


def client():
    return GenericEnvClient(base_url=URL, message_timeout_s=30.0).sync()


def call(route, body=None):
    data = None if body is None else json.dumps(body).encode()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(URL + route, data=data), timeout=30) as answer:
        return json.load(answer)


def play(env, replies):
    """Plays until it is over; the last result."""
    for reply in replies:
        result = env.step(reply)
        if result.done:
            return result
    raise AssertionError("the episode did not end")


def an_episode_is_played_and_ends_with_a_reward():
    with client() as env:
        first = env.reset(seed=3)
        assert first.observation["text"] and not first.done and first.reward is None, first
        assert first.observation["messages"][0]["content"], first
        last = play(env, [{"message": "I do not know."}] * 64)
        assert 0.0 <= last.reward <= 1.0, last
        assert last.metadata["metrics"], last
        assert env.state()["done"] is True


def tool_calls_reach_the_environment():
    tools = call("/schema")["action"]["x-tools"]
    assert tools and all(tool["name"] for tool in tools), tools
    asked = {"message": "", "tool_calls": [{"name": tools[0]["name"], "arguments": {"no": "such argument"}}]}
    jsonschema.validate(asked, call("/schema")["action"])
    with client() as env:
        env.reset(seed=3)
        answer = env.step(asked)
        roles = [message["role"] for message in answer.observation["messages"]]
        assert "tool" in roles, answer


def the_same_seed_is_the_same_episode_and_sessions_do_not_meet():
    with client() as one, client() as other:
        first, second = one.reset(seed=5), other.reset(seed=5)
        assert first.observation["text"] == second.observation["text"]
        one.step({"message": "Hm."})
        assert (one.state()["step_count"], other.state()["step_count"]) == (1, 0)


def a_wrong_action_is_refused_and_the_session_goes_on():
    with client() as env:
        env.reset(seed=1)
        try:
            env.step({"mesage": "typo"})
        except RuntimeError as error:
            assert "VALIDATION_ERROR" in str(error), error
        else:
            raise AssertionError("it was accepted")
        assert env.step({"message": "Hm."}).observation


def more_episodes_than_allowed_are_turned_away_and_come_in_later():
    open_ones = [client() for _ in range(3)]
    try:
        for env in open_ones:
            env.reset(seed=1)
        with client() as late:
            try:
                late.reset(seed=1)
            except RuntimeError as error:
                assert "CAPACITY_REACHED" in str(error), error
            else:
                raise AssertionError("it was let in")
            open_ones.pop().close()
            assert late.reset(seed=1).observation["text"]
    finally:
        for env in open_ones:
            env.close()


def it_can_be_played_by_post_requests_alone():
    begun = call("/reset", {"seed": 2, "episode_id": "by-post"})
    assert begun["metadata"]["episode_id"] == "by-post"
    for _ in range(64):
        step = call("/step", {"action": {"message": "Hm."}, "episode_id": "by-post"})
        if step["done"]:
            break
    assert 0.0 <= step["reward"] <= 1.0, step
    try:
        call("/step", {"action": {"message": "Hm."}, "episode_id": "by-post"})
    except urllib.error.HTTPError as error:
        assert error.code == 404
    else:
        raise AssertionError("an episode that is over took an action")


def it_says_what_it_is():
    assert call("/health") == {"status": "healthy"}
    assert call("/metadata")["name"] == "tool-call"
    held_out = call("/tool-call/tasks", {"split": "held-out"})["tasks"]
    train = call("/tool-call/tasks", {"split": "train"})["tasks"]
    assert train and held_out and not set(train) & set(held_out)


CHECKS = [
    an_episode_is_played_and_ends_with_a_reward,
    tool_calls_reach_the_environment,
    the_same_seed_is_the_same_episode_and_sessions_do_not_meet,
    a_wrong_action_is_refused_and_the_session_goes_on,
    more_episodes_than_allowed_are_turned_away_and_come_in_later,
    it_can_be_played_by_post_requests_alone,
    it_says_what_it_is,
]


def main():
    failed = 0
    for check in CHECKS:
        try:
            check()
            print(f"ok      {check.__name__}")
        except Exception:
            failed += 1
            print(f"FAILED  {check.__name__}")
            traceback.print_exc()
    print(f"{len(CHECKS) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
