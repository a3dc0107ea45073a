//! The evaluative question: was the action good, by what came back?

use sdk::{
    Answer, Completion, Fault, Observation, Prompt, PromptFormat, PromptMessage, PromptPart, Role,
    Turn, Vote, answers, config, random,
};

use crate::{outside::Fence, scene};

/// What stands between the fields of an example. Not a mark that commands are made of.
const FIELDS: &str = " → ";

/// The prompt for one vote. The order of the examples is drawn anew for each, so that votes differ.
pub fn ask(turn: &Turn, next: &Observation) -> Result<Prompt, Fault> {
    let fence = Fence::new()?;
    let mut parts = vec![PromptPart::Instruction(format!(
        "{}\n\n",
        config::text("question")?
    ))];
    for (example, answer) in examples()? {
        parts.extend(lines_of(&example, &fence)?);
        parts.push(PromptPart::Instruction(format!(
            "The action was:{answer}\n\n"
        )));
    }
    parts.extend(scene::lines(turn, next, &fence)?);
    parts.push(PromptPart::Instruction("The action was:".into()));
    let choice = vec![config::text("good-answer")?, config::text("bad-answer")?];
    Ok(plain(parts, choice))
}

/// A text that the model goes on from with one of these answers.
pub fn plain(parts: Vec<PromptPart>, choice: Vec<String>) -> Prompt {
    let role = Role::User;
    Prompt {
        messages: vec![PromptMessage { role, parts }],
        format: PromptFormat::Plain,
        answer: Answer::Choice(choice),
    }
}

/// The examples with their answers, good and bad ones in turn: a small model leans towards what it saw last. Only the order within
/// a kind is drawn.
fn examples() -> Result<Vec<(String, String)>, Fault> {
    let shuffled = |examples: &str, answer: &str| {
        let (mut texts, answer) = (config::texts(examples)?, config::text(answer)?);
        random::shuffle(&mut texts);
        Ok::<_, Fault>(texts.into_iter().map(move |text| (text, answer.clone())))
    };
    let mut good = shuffled("good-examples", "good-answer")?;
    let mut bad = shuffled("bad-examples", "bad-answer")?;
    let mut examples = Vec::new();
    loop {
        let pair = [good.next(), bad.next()];
        if pair.iter().all(Option::is_none) {
            return Ok(examples);
        }
        examples.extend(pair.into_iter().flatten());
    }
}

fn lines_of(example: &str, fence: &Fence) -> Result<Vec<PromptPart>, Fault> {
    let fields: Vec<_> = example
        .split(FIELDS)
        .map(|field| field.trim().to_owned())
        .collect();
    let (task, action, result, report) = match fields.as_slice() {
        [task, action, result] => (task, action, result, None),
        [task, action, result, report] => (task, action, result, Some(report)),
        _ => {
            return Err(Fault::InvalidConfig(format!(
                "the example \"{example}\" is not \"task → action → result\" or \"task → action → result → report\""
            )));
        }
    };
    let mut parts = Vec::new();
    for (label, text) in [("Task", task), ("Action", action), ("Result", result)] {
        parts.extend(fence.line(label, std::slice::from_ref(text)));
    }
    parts.extend(report.map(|report| scene::reported(report)));
    Ok(parts)
}

/// The log-odds of the two answers without their bias, as a vote. None when an answer is missing or has no log-prob.
pub fn read(completion: &Completion) -> Result<Option<Vote>, Fault> {
    let (good, bad) = (config::text("good-answer")?, config::text("bad-answer")?);
    let (bias, margin) = (config::number("bias")?, config::number("margin")?);
    Ok(answers::vote(completion, (&good, &bad), bias, margin))
}
