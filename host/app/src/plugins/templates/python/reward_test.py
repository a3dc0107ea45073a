"""Under the Python of this machine, without Wasm: what the host gives is put in its place."""

import unittest
from unittest import mock

from app import Reward
from wit_world.exports.reward import Decider, Decision, JudgedTurn, Trajectory
from wit_world.imports.config import Value_Number
from wit_world.imports.types import Sign, Vote


def turn(sign=None):
    verdict = None if sign is None else Decision(sign, Decider.JUDGE)
    return JudgedTurn(verdict, process=None, tokens=20, cut=False)


class RewardTest(unittest.TestCase):
    def test_a_tie_is_neutral_and_nobody_s_word_is_no_verdict(self):
        votes = [Vote(Sign.GOOD, None), None, Vote(Sign.BAD, None)]
        self.assertEqual(Reward().verdict(votes).sign, Sign.NEUTRAL)
        self.assertIsNone(Reward().verdict([None]))

    @mock.patch("wit_world.imports.config.get", return_value=Value_Number(0.5))
    def test_the_score_is_the_reward_of_the_last_turn_only(self, _):
        first, last = Reward().turn_rewards(Trajectory([turn(Sign.GOOD), turn()], outcome=0.25))
        self.assertEqual((first.reward, first.rl_weight), (1.0, 1.0))
        self.assertEqual((last.reward, last.rl_weight), (-0.5, 0.5))


if __name__ == "__main__":
    unittest.main()
