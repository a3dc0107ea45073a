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
            (" \"".to_owned(), "\"".to_owned())
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

/// What came back, in words: people's and tools', in order.
pub fn reaction(next: &Observation) -> Result<String, Fault> {
    let texts: Vec<_> = next
        .messages
        .iter()
        .filter(|message| matches!(message.role, Role::User | Role::Tool))
        .map(|message| message.content.trim())
        .filter(|text| !text.is_empty())
        .collect();
    Ok(line(&texts.join(" "), config::count("reaction-chars")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_put_on_one_line_and_cut_at_a_word() {
        assert_eq!(line("  one\ntwo   three ", 100), "one two three");
        assert_eq!(line("one two three", 9), "one two");
        assert_eq!(line("äöüäöüäöü", 4), "äöüä");
        assert_eq!(line("", 4), "");
    }
}
