"""Under the Python of this machine, without Wasm."""

import unittest

from app import Environment, Episode
from componentize_py_types import Err
from wit_world.exports.environment import Action, Split
from wit_world.imports.types import Finish, Message, Role


class EpisodeTest(unittest.TestCase):
    def test_a_right_answer_scores_once(self):
        episode = Episode.start("2+5", 1)
        action = Action(Message(Role.ASSISTANT, "It is 7.", None, [], None, None), Finish.STOP)
        episode.act(action)
        self.assertEqual(episode.outcome().value, 1.0)
        with self.assertRaises(Err):
            episode.act(action)

    def test_no_task_is_in_both_splits(self):
        train, held_out = map(Environment().tasks, (Split.TRAIN, Split.HELD_OUT))
        self.assertFalse(set(train) & set(held_out))


if __name__ == "__main__":
    unittest.main()
