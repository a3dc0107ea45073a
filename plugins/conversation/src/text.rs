//! What can be said about a text without understanding it: sentences, markup, words, repetition.
//!
//! Heuristics for plain English chat replies, each with the cases it must get right in its tests. Knows no persona.

/// Abbreviations after which a full stop does not end a sentence.
const ABBREVIATIONS: [&str; 32] = [
    "e.g", "i.e", "etc", "mr", "mrs", "ms", "dr", "prof", "st", "vs", "approx", "no", "fig", "min",
    "max", "oz", "lb", "lbs", "tbsp", "tsp", "in", "ft", "cm", "mm", "km", "kg", "ml", "hr", "hrs",
    "sec", "temp", "jr",
];

/// Of those, the ones that are also words, and end a sentence when the next word is capitalised.
const ALSO_WORDS: [&str; 10] = [
    "no", "in", "etc", "min", "max", "cm", "mm", "km", "kg", "ml",
];

/// Splits a text into sentences. A line break ends a sentence, with or without a full stop; a decimal point, an abbreviation and
/// an initial do not.
///
/// ```
/// let text = "Use approx. 2.5 cups, e.g. of flour. Then wait!";
/// assert_eq!(conversation::text::sentences(text).len(), 2);
/// ```
pub fn sentences(text: &str) -> Vec<&str> {
    text.lines()
        .flat_map(split_line)
        .filter(|sentence| has_word(sentence))
        .collect()
}

fn has_word(text: &str) -> bool {
    text.chars().any(char::is_alphanumeric)
}

fn split_line(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut start = 0;
    for (at, mark) in line.char_indices() {
        let end = at + mark.len_utf8();
        let rest = &line[end..];
        let closing = rest.trim_start_matches(['.', '!', '?', '"', '\'', ')', '”', '’', '*', '_']);
        let at_break = closing.is_empty() || closing.starts_with(char::is_whitespace);
        let is_last = !rest.starts_with(['.', '!', '?']);
        if matches!(mark, '.' | '!' | '?')
            && at_break
            && is_last
            && ends(&line[start..end], mark, closing)
        {
            let stop = line.len() - closing.len();
            found.push(line[start..stop].trim());
            start = stop;
        }
    }
    found.push(line[start..].trim());
    found
}

/// Whether the mark at the end of `before` ends a sentence that goes on as `after`.
fn ends(before: &str, mark: char, after: &str) -> bool {
    if mark != '.' {
        return true;
    }
    let next = after.trim_start().chars().next();
    let capital = next.is_none_or(|next| !next.is_lowercase());
    if before.ends_with("..") {
        return capital;
    }
    let word = before
        .trim_end_matches('.')
        .rsplit(char::is_whitespace)
        .next()
        .unwrap_or("");
    let word = word
        .trim_start_matches(['(', '"', '\'', '*', '_', '“'])
        .to_lowercase();
    let initial = word.chars().count() == 1 && word.chars().all(char::is_alphabetic) && word != "i";
    // "1." begins a list item; it is no sentence.
    let numeral = before
        .trim()
        .trim_end_matches('.')
        .chars()
        .all(|c| c.is_ascii_digit());
    let letters = word.contains('.') && word.split('.').all(|part| part.chars().count() <= 1);
    if ABBREVIATIONS.contains(&word.as_str()) {
        return next.is_none() || (capital && ALSO_WORDS.contains(&word.as_str()));
    }
    if initial || letters {
        return next.is_none();
    }
    !numeral
}

/// A kind of markup.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Markup {
    /// `# Heading`
    Heading,
    /// `- item`, `* item`, `1. item`
    List,
    /// `**bold**`, `*italic*`, `__bold__`
    Emphasis,
    /// Backticks
    Code,
    /// A table, a quote, a rule or a link
    Other,
}

/// The first markup in a text.
pub fn markup(text: &str) -> Option<Markup> {
    text.lines()
        .find_map(|line| line_markup(line.trim()))
        .or_else(|| inline_markup(text))
}

fn line_markup(line: &str) -> Option<Markup> {
    let after_hashes = line.trim_start_matches('#');
    let hashes = line.len() - after_hashes.len();
    if (1..=6).contains(&hashes) && after_hashes.starts_with(' ') {
        return Some(Markup::Heading);
    }
    if ["- ", "* ", "+ ", "• ", "– "]
        .iter()
        .any(|bullet| line.starts_with(bullet))
    {
        return Some(Markup::List);
    }
    let after_digits = line.trim_start_matches(|c: char| c.is_ascii_digit());
    let digits = line.len() - after_digits.len();
    if (1..=2).contains(&digits)
        && (after_digits.starts_with(". ") || after_digits.starts_with(") "))
    {
        return Some(Markup::List);
    }
    let rule = line.len() >= 3
        && ["-", "*", "_"]
            .iter()
            .any(|c| line.replace(*c, "").is_empty());
    let table = line.starts_with('|') && line.ends_with('|') && line.len() > 2;
    (rule || table || line.starts_with("> ")).then_some(Markup::Other)
}

fn inline_markup(text: &str) -> Option<Markup> {
    if text.contains('`') {
        return Some(Markup::Code);
    }
    if encloses(text, "**") || encloses(text, "__") || encloses(text, "*") {
        return Some(Markup::Emphasis);
    }
    let link = text
        .split_once("](")
        .is_some_and(|(before, after)| before.contains('[') && after.contains(')'));
    link.then_some(Markup::Other)
}

/// Whether a pair of marks encloses text on one line, as in `*so*`; `2 * 3 * 4` does not.
fn encloses(text: &str, mark: &str) -> bool {
    text.lines().any(|line| {
        let pieces: Vec<_> = line.split(mark).collect();
        pieces.len() >= 3
            && pieces[1..pieces.len() - 1]
                .iter()
                .any(|inner| !inner.is_empty() && inner.trim() == *inner && has_word(inner))
    })
}

/// The words of a text, lower case, without punctuation around them.
pub fn words(text: &str) -> Vec<String> {
    text.split_whitespace()
        .map(|word| {
            word.trim_matches(|c: char| !c.is_alphanumeric() && c != '°')
                .to_lowercase()
        })
        .filter(|word| !word.is_empty())
        .collect()
}

/// The numbers of a text, written in digits: `1,250`, `12.50`, `48`. A sign is not part of one.
pub fn numbers(text: &str) -> Vec<f64> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        rest = &rest[start..];
        let mut end = 0;
        for (at, mark) in rest.char_indices() {
            let digits = rest[at + mark.len_utf8()..]
                .chars()
                .take_while(char::is_ascii_digit)
                .count();
            // A comma stands before three digits, a point before any; else they end a clause or a sentence.
            let inside = match mark {
                ',' => digits == 3,
                '.' => digits > 0,
                mark => mark.is_ascii_digit(),
            };
            if !inside {
                break;
            }
            end = at + mark.len_utf8();
        }
        found.extend(rest[..end].replace(',', "").parse::<f64>().ok());
        rest = &rest[end..];
    }
    found
}

/// Whether a text repeats itself: a sentence of some length twice, or the same four words three times.
pub fn repeats(text: &str) -> bool {
    let sentences: Vec<_> = sentences(text)
        .into_iter()
        .map(words)
        .filter(|words| words.len() >= 4)
        .collect();
    let twice = sentences
        .iter()
        .enumerate()
        .any(|(at, sentence)| sentences[..at].contains(sentence));
    let words = words(text);
    let fours: Vec<_> = words.windows(4).collect();
    let thrice = fours
        .iter()
        .any(|four| fours.iter().filter(|other| *other == four).count() >= 3);
    twice || thrice
}

/// Whether any of the stems begins a word of the text; a stem of several words must occur as it is.
pub fn mentions(text: &str, stems: &[&str]) -> bool {
    let lower = text.to_lowercase();
    let words = words(text);
    stems.iter().any(|stem| {
        if stem.contains(' ') {
            lower.contains(stem)
        } else {
            words.iter().any(|word| word.starts_with(stem))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(text: &str, expected: usize) {
        assert_eq!(sentences(text).len(), expected, "{:?}", sentences(text));
    }

    #[test]
    fn full_stops_that_end_no_sentence_are_told_apart() {
        count("Keep it in a bag.", 1);
        count("Keep it in a bag. Freeze the rest.", 2);
        count("Use 2.5 cups of water.", 1);
        count("Add fruit, e.g. apples, and stir.", 1);
        count("Ask Dr. Smith or Mrs. Jones. They know.", 2);
        count("The U.S. uses cups.", 1);
        count("J. R. R. Tolkien wrote it.", 1);
        count("Wait approx. 5 min. before you turn it.", 1);
        count("Add salt, pepper, etc. Then stir.", 2);
        count("It costs $3.50.", 1);
        count("Visit example.com today.", 1);
    }

    #[test]
    fn other_marks_quotes_and_line_breaks_end_sentences() {
        count("Really?! Yes.", 2);
        count("Well... maybe.", 1);
        count("Well... Maybe.", 2);
        count("He said \"Stop.\" Then he left.", 2);
        count("First line\nSecond line", 2);
        count("(Do it now.) Good.", 2);
        count("", 0);
        count("...", 0);
        count("\n\n", 0);
        count("No full stop", 1);
        count("1. Wash it.\n2. Dry it.", 2);
        count("Wow!!! Great!!!", 2);
    }

    #[test]
    fn markup_is_found_and_arithmetic_is_not() {
        let check = |text: &str, expected| assert_eq!(markup(text), expected, "{text}");
        check("Just text, with a dash - here.", None);
        check("2 * 3 * 4 is 24", None);
        check("It is number 1.", None);
        check("snake_case_name is a name", None);
        check("In 1999 it rained.\n2000 was dry.", None);
        check("# Title", Some(Markup::Heading));
        check("#hashtag", None);
        check("Do this:\n- one", Some(Markup::List));
        check("Do this:\n  1. one", Some(Markup::List));
        check("Do this:\n2) two", Some(Markup::List));
        check("This is **very** good", Some(Markup::Emphasis));
        check("This is *very* good", Some(Markup::Emphasis));
        check("Run `ls`", Some(Markup::Code));
        check("See [here](http://x)", Some(Markup::Other));
        check("| a | b |", Some(Markup::Other));
        check("a\n---\nb", Some(Markup::Other));
        check("> quoted", Some(Markup::Other));
    }

    #[test]
    fn numbers_are_read_with_thousands_and_decimals_and_without_the_stops_around_them() {
        assert_eq!(
            numbers("It is 1,250 or 12.50, not 48."),
            [1250.0, 12.5, 48.0]
        );
        assert_eq!(
            numbers("6x8=48, 5,6 and -3"),
            [6.0, 8.0, 48.0, 5.0, 6.0, 3.0]
        );
        assert!(numbers("1.2.3 x").is_empty());
        assert!(numbers("none, and …").is_empty());
    }

    #[test]
    fn repetition_is_a_sentence_twice_or_four_words_thrice() {
        assert!(repeats(
            "You should store the bread well. You should store the bread well."
        ));
        assert!(repeats(
            "put it in the bag and put it in the bag and put it in the bag"
        ));
        assert!(!repeats(
            "Put it in a bag. Put it in a box. Put it on a shelf."
        ));
        assert!(!repeats("Yes. Yes."));
    }

    #[test]
    fn a_stem_begins_a_word() {
        assert!(mentions("Freezing works.", &["freez"]));
        assert!(!mentions("Antifreeze works.", &["freez"]));
        assert!(mentions("Good luck with it!", &["good luck"]));
    }
}
