//! The user's words, written by a model (capability `model`) instead of taken from [`crate::phrases`].
//!
//! The model writes; it decides nothing. What the user thinks of a reply is the rule's word ([`crate::persona`]), and the model is told it, as a
//! scripted phrase to say in the person's own way. What it writes is tidied, and not used where it says the opposite.

use sdk::{
    Fault, Finish, Message, Role, log,
    model::{self, Completion, Request},
};

use crate::{persona::Persona, text, user::Asked};

/// Texts of a conversation that the model is shown: four exchanges.
pub const REMEMBERED: usize = 8;

/// Most characters of each: a long reply must not use up the budget.
const SHOWN_CHARS: usize = 400;

/// Most characters of what the user says.
const SAID_CHARS: usize = 240;

/// Most tokens of it.
const SAID_TOKENS: u32 = 48;

/// Below 1, so that a small model's sentences hold together; above 0, so that people differ.
const TEMPERATURE: f64 = 0.7;

/// What a prompt can grow by until the next question to the model, in tokens.
const GROWTH: u32 = 1_000;

/// What only somebody who is satisfied says, as stems.
const SATISFIED: [&str; 12] = [
    "thank",
    "perfect",
    "great",
    "lovely",
    "wonderful",
    "excellent",
    "brilliant",
    "exactly what",
    "just right",
    "well done",
    "love it",
    "spot on",
];

/// What only somebody who is not says, as stems.
const UNSATISFIED: [&str; 10] = [
    "too long",
    "not what",
    "wrong",
    "don't like",
    "didn't",
    "did not",
    "should have",
    "could have",
    "please don't",
    "instead of",
];

/// What a model says that talks about its task, or as the assistant, instead of as the person: small ones do.
const OUT_OF_CHARACTER: [&str; 12] = [
    "the person",
    "the conversation",
    "the assistant",
    "the user",
    "own words",
    "other words",
    "language model",
    "as an ai",
    "you're right",
    "happy to help",
    "glad to help",
    "here to help",
];

/// What a model is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// Who speaks, and by whose taste.
    pub asked: &'a Asked,
    /// The latest texts, the user's and the assistant's in turn, an assistant's reply at the end.
    pub history: &'a [String],
    /// What a scripted user would say.
    pub phrase: &'a str,
    /// Whether it is a complaint.
    pub complains: bool,
}

/// What the user says, and what is left of the budget.
#[derive(Clone, PartialEq, Debug)]
pub struct Said {
    /// None where the model wrote nothing that can be used.
    pub text: Option<String>,
    /// Whether the next question to the model fits into what is left.
    pub goes_on: bool,
}

/// Asks the model of this name.
///
/// # Errors
/// The host's: a name that it does not know, a budget without room, a model that failed.
pub fn say(name: &str, situation: &Situation<'_>) -> Result<Said, Fault> {
    let completion = model::complete(request(name, situation))?;
    let text = tidy(&completion).filter(|text| is_usable(text, situation.complains));
    log::metric("spoken-by-model", if text.is_some() { 1.0 } else { 0.0 });
    Ok(Said {
        text,
        goes_on: completion.left >= completion.tokens.saturating_add(GROWTH),
    })
}

fn request(name: &str, situation: &Situation<'_>) -> Request {
    let Asked { speaker, rule, .. } = situation.asked;
    let system = format!(
        "You write the messages of a person who talks with an assistant. The person is {}, and wants {}. \
         Write only what the person says: one or two short sentences, no quotation marks, no lists, no explanations.",
        who(*speaker),
        wants(*rule)
    );
    let shown = situation.history.iter().rev().enumerate().rev();
    let talk: Vec<String> = shown
        .map(|(back, said)| {
            // The last one is the assistant's.
            let name = if back % 2 == 0 { "Assistant" } else { "Person" };
            let shown: String = said.chars().take(SHOWN_CHARS).collect();
            format!("{name}: {}", one_line(&shown))
        })
        .collect();
    let talk = format!(
        "The conversation so far:\n\n{}\n\nThe person now says this to the assistant, in his or her own words: {}",
        talk.join("\n\n"),
        situation.phrase
    );
    Request {
        model: name.to_owned(),
        messages: vec![Message::new(Role::System, system), Message::user(talk)],
        max_tokens: SAID_TOKENS,
        temperature: TEMPERATURE,
        stop: vec!["\n\n".into(), "Assistant:".into()],
    }
}

fn who(speaker: Persona) -> &'static str {
    match speaker {
        Persona::Brief => "busy, and reads on a small phone",
        Persona::Warm => "a little lonely, and talks as to a friend",
        Persona::Metric => "a hobbyist from Europe who measures everything",
        Persona::Student => "a student who lets an assistant do the homework",
        Persona::Ta => "a teaching assistant who grades the homework of a class",
        Persona::Teacher => "a teacher who writes comments under the homework of pupils",
    }
}

fn wants(rule: Persona) -> &'static str {
    match rule {
        Persona::Brief => "plain text of at most two sentences",
        Persona::Warm => "kind words, and some encouragement at the end",
        Persona::Metric => "the number first, in metric units",
        Persona::Student => {
            "an answer that does not look as if a machine had written it: no bold, no lists, no step labels"
        }
        Persona::Ta => "feedback that names the mistake and is friendly",
        Persona::Teacher => "a comment that is warm and goes into detail",
    }
}

fn one_line(text: &str) -> String {
    let visible = |c: char| if c.is_control() { ' ' } else { c };
    let text: String = text.chars().map(visible).collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What can be used of a completion: a line without a name in front and quotation marks around, up to the end of a sentence where it was cut.
fn tidy(completion: &Completion) -> Option<String> {
    let line = completion
        .text
        .lines()
        .find(|line| !line.trim().is_empty())?;
    let line = one_line(line);
    let line = line.strip_prefix("Person:").unwrap_or(&line).trim();
    let line = line.trim_matches(['"', '“', '”']).trim();
    let mut said: String = line.chars().take(SAID_CHARS).collect();
    if completion.finish == Finish::Length || said.len() < line.len() {
        let sentences = text::sentences(&said);
        let whole: usize = sentences
            .iter()
            .rev()
            .skip(1)
            .map(|one| one.len() + 1)
            .sum();
        if whole > 1 {
            said.truncate(said.floor_char_boundary(whole - 1));
        }
    }
    (!text::words(&said).is_empty()).then_some(said)
}

/// Attack: a reply that talks the model into praise, or a model that is praise itself; the judge goes by what the user says.
fn is_usable(said: &str, complains: bool) -> bool {
    let opposite: &[&str] = if complains { &SATISFIED } else { &UNSATISFIED };
    !text::mentions(said, opposite) && !text::mentions(said, &OUT_OF_CHARACTER)
}

#[cfg(test)]
mod tests {
    use sdk::native;

    use super::*;
    use crate::cast::Cast;

    fn completion(text: &str, finish: Finish) -> Completion {
        Completion {
            text: text.to_owned(),
            finish,
            tokens: 100,
            left: 2_000,
        }
    }

    fn tidied(text: &str, finish: Finish, expected: Option<&str>) {
        let found = tidy(&completion(text, finish));
        assert_eq!(found.as_deref(), expected, "{text}");
    }

    #[test]
    fn a_completion_is_tidied_to_a_line_that_a_person_says() {
        tidied(
            "\n \"Too long for me.\"\nAssistant: sorry",
            Finish::Stop,
            Some("Too long for me."),
        );
        tidied(
            "Person: Shorter,\u{7} please!",
            Finish::Stop,
            Some("Shorter, please!"),
        );
        tidied(
            "That is long. I would rather",
            Finish::Length,
            Some("That is long."),
        );
        tidied("That is a lot of", Finish::Length, Some("That is a lot of"));
        tidied(" \n...", Finish::Stop, None);
        tidied("", Finish::Stop, None);
        let long = tidy(&completion(&"many words ".repeat(100), Finish::Stop)).unwrap();
        assert!(long.chars().count() <= SAID_CHARS);
    }

    #[test]
    fn words_that_say_the_opposite_of_the_rule_or_are_not_the_person_s_are_not_used() {
        assert!(!is_usable("Thanks, that's perfect.", true));
        assert!(is_usable("Too much to read.", true));
        assert!(!is_usable("The person finds it too much to read.", true));
        assert!(!is_usable("That is not what I wanted.", false));
        let phrases = crate::phrases::THANKS.iter();
        assert!(phrases.clone().all(|phrase| is_usable(phrase, false)));
    }

    #[test]
    fn the_model_is_told_who_speaks_what_was_said_and_what_to_say() {
        let asked = Cast::parse("student-drift-brief").unwrap().block(0, 3, 0)[0].clone();
        let history = ["Hello", "Hi\n\nthere", "And now?", "<|im_end|> 42"].map(String::from);
        let situation = Situation {
            asked: &asked,
            history: &history,
            phrase: "Phew, so much text.",
            complains: true,
        };
        let request = request("user", &situation);
        let [system, talk] = &request.messages[..] else {
            panic!("{request:?}");
        };
        assert!(
            system.content.contains("a student who") && system.content.contains("two sentences")
        );
        let told = &talk.content;
        assert!(
            told.contains("Person: Hello\n\nAssistant: Hi there\n\nPerson: And now?"),
            "{told}"
        );
        assert!(told.ends_with("Phew, so much text."), "{told}");
    }

    #[test]
    fn the_budget_s_end_is_seen_before_it_is_met() {
        native::set_model(|_| Ok(completion("It is long.", Finish::Stop)));
        let asked = Cast::parse("brief").unwrap().block(0, 3, 3)[0].clone();
        let situation = Situation {
            asked: &asked,
            history: &[],
            phrase: "",
            complains: true,
        };
        let said = say("user", &situation).unwrap();
        assert_eq!(
            (said.text.as_deref(), said.goes_on),
            (Some("It is long."), true)
        );
        native::set_model(|_| {
            let left = 1_099;
            Ok(Completion {
                left,
                ..completion("Thanks!", Finish::Stop)
            })
        });
        let said = say("user", &situation).unwrap();
        assert_eq!((said.text, said.goes_on), (None, false));
    }
}
