//! Text from outside, made fit for a prompt of lines: put on one line, cut in the middle, enclosed.
//!
//! The host turns it into tokens without special tokens; this file keeps it from looking like a further example.

use sdk::{Fault, PromptPart, config, random};

/// What stands where a text was cut.
const MARK: &str = " ... ";

/// A random word that encloses outside text in one prompt. A text cannot guess it, and so cannot pretend to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence(Option<String>);

impl Fence {
    /// A new fence; none when the config says so.
    pub fn new() -> Result<Self, Fault> {
        const LETTERS: &[u8] = b"bcdfghjkmnpqrstvwxz";
        let letter = |_| {
            LETTERS
                .get(random::below(LETTERS.len()))
                .copied()
                .map_or('x', char::from)
        };
        let word = || (0..4).map(letter).collect();
        Ok(Self(config::boolean("delimiters")?.then(word)))
    }

    /// A line of the prompt: our label, outside text between the fence's marks, and the end of the line.
    pub fn line(&self, label: &str, texts: &[String]) -> Vec<PromptPart> {
        let mut parts = vec![PromptPart::Instruction(format!("{label}:"))];
        for text in texts {
            let (before, after) = match &self.0 {
                Some(word) => (format!(" <{word}>"), format!("</{word}>")),
                None => (" ".to_owned(), String::new()),
            };
            let data = if text.is_empty() { NOTHING } else { text };
            parts.push(PromptPart::Instruction(before));
            parts.push(PromptPart::Data(data.to_owned()));
            parts.push(PromptPart::Instruction(after));
        }
        parts.push(PromptPart::Instruction("\n".to_owned()));
        parts
    }
}

/// What is shown of an empty text: a command that printed nothing says something by that.
pub const NOTHING: &str = "(nothing)";

/// A text on one line: white space becomes single spaces, other control characters vanish.
pub fn flat(text: &str) -> String {
    let visible: String = text
        .chars()
        .filter(|c| c.is_whitespace() || !c.is_control())
        .collect();
    visible.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// At most `limit` characters of a text, from its beginning and its end: what was asked stands first, and an error last.
pub fn cut(text: &str, limit: usize) -> String {
    let count = text.chars().count();
    if count <= limit {
        return text.to_owned();
    }
    let Some(kept) = limit.checked_sub(MARK.len()).filter(|kept| *kept >= 2) else {
        return text.chars().take(limit).collect();
    };
    let end = kept / 2;
    let begin: String = text.chars().take(kept - end).collect();
    let end: String = text.chars().skip(count - end).collect();
    format!("{begin}{MARK}{end}")
}

/// Divides `total` among texts of these lengths: short ones keep all they have, and long ones share what is left evenly.
pub fn shares(lengths: &[usize], total: usize) -> Vec<usize> {
    let mut order: Vec<(usize, usize)> = lengths.iter().copied().enumerate().collect();
    order.sort_by_key(|(_, length)| *length);
    let mut shares = vec![0; lengths.len()];
    let (mut left, mut waiting) = (total, lengths.len());
    for (at, length) in order {
        let share = length.min(left / waiting.max(1));
        if let Some(place) = shares.get_mut(at) {
            *place = share;
        }
        left -= share;
        waiting -= 1;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_put_on_one_line_without_control_characters() {
        assert_eq!(flat(" a\r\n\tb\u{2028}c\u{85}\u{1b}[2Jd\0 "), "a b c [2Jd");
        assert_eq!(flat("\n\u{7}"), "");
    }

    #[test]
    fn a_text_is_cut_in_the_middle_and_never_longer_than_its_limit() {
        assert_eq!(cut("abcdefghij", 10), "abcdefghij");
        assert_eq!(cut("abcdefghijk", 10), "abc ... jk");
        assert_eq!(cut("äöüäöüäöü", 7), "ä ... ü");
        assert_eq!(cut("abcdefgh", 6), "abcdef");
        assert_eq!(cut("abc", 0), "");
    }

    #[test]
    fn short_texts_are_whole_and_long_ones_share_the_rest() {
        assert_eq!(shares(&[100, 5, 100], 65), [30, 5, 30]);
        assert_eq!(shares(&[3, 4], 100), [3, 4]);
        assert_eq!(shares(&[9, 9, 9], 10), [3, 3, 4]);
        assert!(shares(&[], 10).is_empty());
    }
}
