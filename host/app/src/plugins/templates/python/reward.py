"""A reward rule: the majority of the judge's votes rewards a turn, and the environment's score, where there is one, the last turn.

Missing is not zero: a turn that nobody judged has no reward. `nextstate/wit/reward.wit` says what each function promises.
"""

from collections import Counter

from wit_world.exports.reward import Decider, Decision, TurnReward
from wit_world.imports import config
from wit_world.imports.types import Sign

NUMBERS = {Sign.GOOD: 1.0, Sign.NEUTRAL: 0.0, Sign.BAD: -1.0}


class Reward:
    def verdict(self, votes):
        signs = Counter(vote.sign for vote in votes if vote is not None).most_common(2)
        if not signs:
            return None
        is_tie = len(signs) == 2 and signs[0][1] == signs[1][1]
        return Decision(Sign.NEUTRAL if is_tie else signs[0][0], Decider.JUDGE)

    def turn_rewards(self, trajectory):
        # `plugin.toml` declares the key, its type, its range and its default; the host checks them.
        weight = config.get("outcome-weight").value
        rewards = [of_verdict(turn.verdict) for turn in trajectory.turns]
        if trajectory.outcome is not None and rewards:
            # A score is from 0 to 1, a reward on both sides of 0.
            rewards[-1].reward = 2.0 * trajectory.outcome - 1.0
            rewards[-1].rl_weight = weight
        return rewards


def of_verdict(verdict):
    if verdict is None:
        return TurnReward(reward=None, rl_weight=0.0, opd_weight=0.0)
    number = NUMBERS[verdict.sign]
    return TurnReward(reward=number, rl_weight=abs(number), opd_weight=0.0)
