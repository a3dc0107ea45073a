//! Text from outside, made fit for a prompt of lines: cut, put on one line, enclosed.
//!
//! The host turns it into tokens without special tokens; this file keeps it from looking like a further example.

use sdk::{Fault, Observation, PromptPart, Role, config, random};

/// A random word that encloses outside text in one prompt. A text cannot guess it, and so cannot pretend to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence(String);

impl Fence {
    /// A new fence, or an empty one when the config says so.
    pub fn new() -> Result<Self, Fault> {
        if !config::boolean("delimiters")? {
            return Ok(Self(String::new()));
        }
        let letters = b"abcdefghjkmnpqrstuvwxyz";
        let letter = |_| {
            letters
                .get(random::below(letters.len()))
                .map_or('x', |byte| char::from(*byte))
        };
        Ok(Self((0..4).map(letter).collect()))
    }

    /// Outside text between the fence's marks, as parts of a prompt.
    pub fn enclose(&self, text: &str) -> [PromptPart; 3] {
        let (before, after) = if self.0.is_empty() {
            (" ".to_owned(), String::new())
        } else {
            (format!(" <{0}>", self.0), format!("</{0}>", self.0))
        };
        [
            PromptPart::Instruction(before),
            PromptPart::Data(text.to_owned()),
            PromptPart::Instruction(after),
        ]
    }
}

/// The first `limit` characters of a text, on one line, cut at a word where possible.
pub fn line(text: &str, limit: usize) -> String {
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if flat.chars().count() <= limit {
        return flat;
    }
    let cut: String = flat.chars().take(limit).collect();
    let at = cut.rfind(' ').filter(|at| *at > limit / 2);
    at.map_or(cut.as_str(), |at| cut.split_at(at).0).to_owned()
}

/// What came back, in words: people's and tools', in order, without a next question.
pub fn reaction(next: &Observation) -> Result<String, Fault> {
    let texts: Vec<_> = next
        .messages
        .iter()
        .filter(|message| matches!(message.role, Role::User | Role::Tool))
        .map(|message| message.content.trim())
        .filter(|text| !text.is_empty())
        .collect();
    let flat = line(&texts.join(" "), usize::MAX);
    Ok(line(
        &before_next_question(&flat),
        config::count("reaction-chars")?,
    ))
}

/// The beginning of a reaction, without a question after it that begins something new: "Too long. How do I iron a shirt?" is a
/// reaction and a new request, and a small model judges the request.
///
/// Measured on SmolLM2-135M-Instruct with six examples, no delimiters and threshold 0, balanced accuracy on the scripted user's
/// words: 61 % with the next question; 97 % (brief persona) and 93 % (the other kinds of complaint) without it.
fn before_next_question(reaction: &str) -> String {
    let mut kept = 0;
    let mut sentences = 0;
    for (at, mark) in reaction
        .char_indices()
        .filter(|(_, c)| matches!(c, '.' | '!' | '?'))
    {
        let end = at + mark.len_utf8();
        let rest = &reaction[end..];
        if !(rest.is_empty() || rest.starts_with(' ')) {
            continue;
        }
        // A first sentence that asks is itself the reaction.
        if sentences > 0 && mark == '?' {
            return reaction[..kept].trim().to_owned();
        }
        sentences += 1;
        kept = end;
        if sentences == SENTENCES {
            return reaction[..kept].trim().to_owned();
        }
    }
    reaction.to_owned()
}

/// How many sentences of a reaction are read: what a person thinks of a reply is said first.
const SENTENCES: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reaction_ends_where_the_next_question_begins() {
        let check = |text: &str, expected: &str| assert_eq!(before_next_question(text), expected);
        check("Too long. How do I iron a shirt?", "Too long.");
        check("Thanks! Next: how do I iron a shirt?", "Thanks!");
        check(
            "Where is the rest? How do I iron a shirt?",
            "Where is the rest?",
        );
        check("How do I iron a shirt?", "How do I iron a shirt?");
        check("It costs 3.50. Too much!", "It costs 3.50. Too much!");
        check("No. No. No. Four", "No. No. No.");
        check("no full stop", "no full stop");
        check("", "");
    }

    #[test]
    fn a_text_is_put_on_one_line_and_cut_at_a_word() {
        assert_eq!(line("  one\ntwo   three ", 100), "one two three");
        assert_eq!(line("one two three", 9), "one two");
        assert_eq!(line("äöüäöüäöü", 4), "äöüä");
        assert_eq!(line("", 4), "");
    }
}
