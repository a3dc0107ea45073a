//! What a task is drawn from: names, numbers and plain words, by a seed of the task's own.
//!
//! The same task gives the same draws for ever, whatever other families exist. Does not know any family.

use std::collections::BTreeSet;

use sdk::random::Stream;

/// Words that name files and folders. None of them is in [`FILLER`], so that a search for one finds only what was put there.
const NOUNS: [&str; 64] = [
    "report", "budget", "notes", "invoice", "garden", "river", "planet", "music", "recipe",
    "travel", "winter", "summer", "orange", "silver", "copper", "forest", "harbor", "island",
    "market", "meadow", "mirror", "museum", "ocean", "office", "paper", "pencil", "photo", "piano",
    "pocket", "rabbit", "rocket", "school", "shadow", "shelter", "signal", "station", "stone",
    "storm", "studio", "sugar", "table", "temple", "ticket", "tiger", "tower", "train", "tunnel",
    "valley", "velvet", "village", "violet", "wagon", "wallet", "water", "window", "wizard",
    "yellow", "zebra", "anchor", "basket", "candle", "desert", "engine", "falcon",
];

/// Words that texts are made of.
const FILLER: [&str; 48] = [
    "the", "a", "small", "large", "old", "new", "bright", "quiet", "early", "late", "first",
    "last", "goes", "comes", "stays", "moves", "turns", "opens", "closes", "starts", "ends",
    "here", "there", "always", "never", "often", "soon", "again", "with", "without", "before",
    "after", "under", "over", "near", "far", "one", "two", "three", "green", "blue", "red",
    "white", "black", "warm", "cold", "long", "short",
];

/// The first number of a held-out task; all below are training tasks.
pub const FIRST_HELD_OUT: u32 = 1000;

/// One past the last number of a task.
pub const END: u32 = 2000;

/// A source of names, numbers and words.
#[derive(Debug)]
pub struct Draw {
    stream: Stream,
    used: BTreeSet<String>,
    /// Names of training tasks end on an odd number, those of held-out tasks on an even one: no task of one split is a task of the other.
    held_out: bool,
}

impl Draw {
    /// The draws of one task.
    pub fn new(family: &str, difficulty: usize, number: u32) -> Self {
        // FNV-1a over the id, so that a new family changes no other one's tasks.
        let id = format!("{family}/{difficulty}/{number}");
        let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self {
            stream: Stream(hash),
            used: BTreeSet::new(),
            held_out: number >= FIRST_HELD_OUT,
        }
    }

    /// Whether the task is a held-out one. For draws without a name in them, which have to keep the splits apart by themselves.
    pub fn held_out(&self) -> bool {
        self.held_out
    }

    /// A whole number of `low..=high`.
    pub fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.stream.below(high + 1 - low)
    }

    /// `count` different numbers of `low..=high`, in no order.
    pub fn distinct(&mut self, count: usize, low: usize, high: usize) -> Vec<usize> {
        let mut found = Vec::new();
        while found.len() < count.min(high + 1 - low) {
            let number = self.between(low, high);
            if !found.contains(&number) {
                found.push(number);
            }
        }
        found
    }

    /// One of a list.
    pub fn pick<'a>(&mut self, list: &[&'a str]) -> &'a str {
        self.stream.pick(list)
    }

    /// Puts a list in any order.
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for end in (1..list.len()).rev() {
            list.swap(end, self.stream.below(end + 1));
        }
    }

    /// A noun that this task has not seen.
    pub fn noun(&mut self) -> String {
        loop {
            let noun = self.stream.pick(&NOUNS).to_owned();
            if self.used.insert(noun.clone()) {
                return noun;
            }
        }
    }

    /// Several nouns that this task has not seen.
    pub fn nouns(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.noun()).collect()
    }

    /// A name that this task has not seen: a noun and a number.
    pub fn name(&mut self) -> String {
        let number = 10 + 2 * self.stream.below(45) + usize::from(!self.held_out);
        format!("{}{number}", self.noun())
    }

    /// A file's name.
    pub fn file(&mut self, extension: &str) -> String {
        format!("{}.{extension}", self.name())
    }

    /// Several files' names.
    pub fn files(&mut self, count: usize, extension: &str) -> Vec<String> {
        (0..count).map(|_| self.file(extension)).collect()
    }

    /// Plain words in a row; no noun among them.
    pub fn words(&mut self, count: usize) -> String {
        let words: Vec<_> = (0..count).map(|_| self.stream.pick(&FILLER)).collect();
        words.join(" ")
    }

    /// Lines of plain words, each with its newline.
    pub fn lines(&mut self, count: usize) -> String {
        lines(&self.list(count))
    }

    /// Different lines of plain words.
    pub fn list(&mut self, count: usize) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        while found.len() < count {
            let length = self.between(3, 6);
            let line = self.words(length);
            if !found.contains(&line) {
                found.push(line);
            }
        }
        found
    }

    /// A text of exactly so many bytes, with a newline at its end.
    pub fn bytes(&mut self, count: usize) -> String {
        let mut text = String::new();
        while text.len() + 1 < count {
            let word = self.words(1);
            text.push_str(&word);
            text.push(if text.len().is_multiple_of(7) {
                '\n'
            } else {
                ' '
            });
        }
        text.truncate(count.saturating_sub(1));
        text.push('\n');
        text
    }
}

/// Lines as a file holds them.
pub fn lines<T: AsRef<str>>(list: &[T]) -> String {
    list.iter().flat_map(|line| [line.as_ref(), "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_task_draws_the_same_and_another_number_draws_otherwise() {
        let names = |number| Draw::new("find-text", 1, number).files(5, "txt");
        assert_eq!(names(3), names(3));
        assert_ne!(names(3), names(4));
    }

    #[test]
    fn no_name_of_a_training_task_is_a_name_of_a_held_out_one() {
        let ends = |number| {
            let names = Draw::new("x", 1, number).files(40, "txt");
            let odd = |name: &String| name.as_bytes()[name.len() - 5] % 2 == 1;
            (names.iter().all(odd), names.iter().any(odd))
        };
        assert_eq!(ends(FIRST_HELD_OUT - 1), (true, true));
        assert_eq!(ends(FIRST_HELD_OUT), (false, false));
    }

    #[test]
    fn a_text_has_exactly_its_bytes_and_texts_never_hold_a_noun() {
        let mut draw = Draw::new("x", 2, 1);
        for count in [1, 2, 50, 333] {
            assert_eq!(draw.bytes(count).len(), count);
        }
        // A search for one noun finds neither a plain word nor another noun.
        for noun in NOUNS {
            let holds = |other: &&str| *other != noun && other.contains(noun);
            assert!(!FILLER.iter().chain(&NOUNS).any(holds), "{noun}");
        }
    }
}
