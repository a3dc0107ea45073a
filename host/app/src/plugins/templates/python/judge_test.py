"""Under the Python of this machine, without Wasm."""

import unittest

from app import Judge
from wit_world.exports.judge import Completion, Question_Skip, ScoredAnswer
from wit_world.imports.types import Finish, Message, Observation, Role, Sign, Turn

WORDS = Message(Role.USER, "That is wrong.", None, [], None, None)
TURN = Turn([], Message(Role.ASSISTANT, "Five.", None, [], None, None), Finish.STOP)


class JudgeTest(unittest.TestCase):
    def test_the_likelier_answer_is_the_vote(self):
        answers = [ScoredAnswer("Yes", -2.0), ScoredAnswer("No", -0.5)]
        completion = Completion("No", answers, Finish.STOP)
        vote = Judge().read_vote(TURN, Observation([WORDS], []), completion)
        self.assertEqual((vote.sign, vote.score), (Sign.BAD, -1.5))

    def test_what_the_user_says_is_data_and_silence_is_no_vote(self):
        question = Judge().evaluate(TURN, Observation([WORDS], []))
        self.assertEqual(question.value.messages[0].parts[1].value, "That is wrong.")
        self.assertEqual(Judge().evaluate(TURN, Observation([], [])), Question_Skip())


if __name__ == "__main__":
    unittest.main()
