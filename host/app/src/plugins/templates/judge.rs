//! A judge: asks a model whether the user was content with a reply, and reads its Yes or No as a vote.
//!
//! What comes from outside goes into a prompt as data, never as an instruction. `nextstate/wit/judge.wit` says what each function
//! promises.

use sdk::{
    Answer, Completion, Fault, Judge, Observation, Prompt, PromptFormat, PromptMessage, PromptPart,
    Question, Role, Sign, Turn, Vote,
};

const QUESTION: &str = "A user wrote to an assistant after its reply:\n";
const DEMAND: &str = "\nIs the user content with the reply? Answer Yes or No.";

/// The judge.
#[derive(Debug)]
pub struct Contentment;

impl Judge for Contentment {
    fn evaluate(_turn: Turn, next: Observation) -> Result<Question, Fault> {
        let said: Vec<String> = next
            .messages
            .into_iter()
            .filter(|message| message.role == Role::User)
            .map(|message| message.content)
            .collect();
        if said.is_empty() {
            return Ok(Question::Skip); // Nobody reacted: no vote, which is not a neutral one.
        }
        let parts = vec![
            PromptPart::Instruction(QUESTION.to_owned()),
            PromptPart::Data(said.join("\n")),
            PromptPart::Instruction(DEMAND.to_owned()),
        ];
        Ok(Question::Ask(Prompt {
            messages: vec![PromptMessage {
                role: Role::User,
                parts,
            }],
            format: PromptFormat::Chat,
            answer: Answer::Choice(vec!["Yes".to_owned(), "No".to_owned()]),
        }))
    }

    fn read_vote(
        _turn: Turn,
        _next: Observation,
        completion: Completion,
    ) -> Result<Option<Vote>, Fault> {
        let [yes, no] = completion.answers.as_slice() else {
            return Ok(None);
        };
        let score = yes.log_prob - no.log_prob;
        let sign = if score > 0.0 { Sign::Good } else { Sign::Bad };
        Ok(Some(Vote {
            sign,
            score: Some(score.clamp(-100.0, 100.0)),
        }))
    }
}

sdk::export_judge!(Contentment);

#[cfg(test)]
mod tests {
    use sdk::{Finish, ScoredAnswer};

    use super::*;

    #[test]
    fn the_likelier_answer_is_the_vote() {
        let answer = |text: &str, log_prob| ScoredAnswer {
            text: text.to_owned(),
            log_prob,
        };
        let completion = Completion {
            text: "No".to_owned(),
            answers: vec![answer("Yes", -2.0), answer("No", -0.5)],
            finish: Finish::Stop,
        };
        let message = sdk::Message::user("That is wrong.");
        let turn = Turn {
            request: vec![],
            response: message.clone(),
            finish: Finish::Stop,
        };
        let next = Observation::new(vec![message]);
        let vote = Contentment::read_vote(turn, next, completion)
            .unwrap()
            .unwrap();
        assert_eq!((vote.sign, vote.score), (Sign::Bad, Some(-1.5)));
    }
}
