//! Foreign text as a terminal may be shown it: what a model, a user, a tool or a page said is data there, too.
//!
//! Does not cut or wrap; where a text ends is the matter of who prints it.

/// Whether a character would steer a terminal, or make a line read otherwise than it is written: control characters, line and
/// paragraph separators, and the marks that turn the direction of writing.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text in one line: each character that would steer the terminal is U+FFFD.
pub(crate) fn word(text: &str) -> String {
    text.chars()
        .map(|c| if steers(c) { '\u{fffd}' } else { c })
        .collect()
}

/// The lines of a text, each as [`word`] gives it; tabs are four spaces.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = String> {
    text.lines().map(|line| word(&line.replace('\t', "    ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_steer_a_terminal_is_shown_as_a_mark_and_the_rest_as_it_is() {
        assert_eq!(word("naïve 👍 日本"), "naïve 👍 日本");
        for odd in [
            "\u{1b}", "\u{7}", "\r", "\n", "\u{9b}", "\u{202e}", "\u{2066}", "\u{2028}", "\u{200f}",
        ] {
            assert_eq!(word(&format!("a{odd}b")), "a\u{fffd}b", "{odd:?}");
        }
        let all: Vec<String> = lines("a\tb\r\nc\u{1b}[2J\n\nd\re").collect();
        assert_eq!(all, ["a    b", "c\u{fffd}[2J", "", "d\u{fffd}e"]);
    }
}
