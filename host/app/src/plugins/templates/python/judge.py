"""A judge: asks a model whether the user was content with a reply, and reads its Yes or No as a vote.

What comes from outside goes into a prompt as data, never as an instruction. `nextstate/wit/judge.wit` says what each function
promises.
"""

from wit_world.exports.judge import (
    Answer_Choice,
    Prompt,
    PromptFormat,
    PromptMessage,
    PromptPart_Data,
    PromptPart_Instruction,
    Question_Ask,
    Question_Skip,
)
from wit_world.imports.types import Role, Sign, Vote

QUESTION = "A user wrote to an assistant after its reply:\n"
DEMAND = "\nIs the user content with the reply? Answer Yes or No."


class Judge:
    def evaluate(self, turn, next):
        said = [message.content for message in next.messages if message.role == Role.USER]
        if not said:
            return Question_Skip()  # Nobody reacted: no vote, which is not a neutral one.
        parts = [
            PromptPart_Instruction(QUESTION),
            PromptPart_Data("\n".join(said)),
            PromptPart_Instruction(DEMAND),
        ]
        messages = [PromptMessage(Role.USER, parts)]
        return Question_Ask(Prompt(messages, PromptFormat.CHAT, Answer_Choice(["Yes", "No"])))

    def read_vote(self, turn, next, completion):
        if len(completion.answers) != 2:
            return None
        yes, no = completion.answers
        score = yes.log_prob - no.log_prob
        return Vote(Sign.GOOD if score > 0 else Sign.BAD, max(-100.0, min(100.0, score)))
