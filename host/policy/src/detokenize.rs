//! Tokens to text as they come, one at a time.
//!
//! Shows only text that can no longer change: holds back the bytes of an unfinished character and anything that may be the start of a
//! stop string. Everything shown, in sequence, is what [`Tokenizer::decode`] gives for all tokens (special ones left out), up
//! to the first stop string.

use crate::tokenizer::Tokenizer;

/// A control token that a parser of calls must see (Llama 3).
const PYTHON_TAG: &[u8] = b"<|python_tag|>";

/// The text of one reply in the making.
#[derive(Debug, Clone)]
pub struct Detokenizer {
    stops: Vec<String>,
    /// Bytes of a character that is not complete yet; at most three.
    bytes: Vec<u8>,
    /// Of the last token: kept, so that a token allocates nothing but what it shows.
    text: String,
    /// Text that may be the start of a stop string.
    held: String,
    stopped: bool,
    /// SentencePiece: the first space of the text is not part of it.
    strip_space: bool,
}

impl Detokenizer {
    /// Starts a text that ends at any of `stops`. Empty stop strings are left out.
    pub fn new(tokenizer: &Tokenizer, stops: &[String]) -> Self {
        Self {
            stops: stops
                .iter()
                .filter(|stop| !stop.is_empty())
                .cloned()
                .collect(),
            bytes: Vec::new(),
            text: String::new(),
            held: String::new(),
            stopped: false,
            strip_space: tokenizer.strips_leading_space(),
        }
    }

    /// Takes a token and returns the text that can be shown now, often none. Nothing more comes after a stop string.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> String {
        let bytes = tokenizer.token_bytes(id);
        if tokenizer.is_special(id) && bytes != PYTHON_TAG {
            return String::new();
        }
        self.push_bytes(bytes)
    }

    fn push_bytes(&mut self, bytes: &[u8]) -> String {
        if self.stopped {
            return String::new();
        }
        self.bytes.extend_from_slice(bytes);
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        take_text(&mut self.bytes, &mut text);
        let shown = self.show(&text);
        self.text = text;
        shown
    }

    fn show(&mut self, text: &str) -> String {
        let mut text = text;
        if self.strip_space && !text.is_empty() {
            text = text.strip_prefix(' ').unwrap_or(text);
            self.strip_space = false;
        }
        self.held.push_str(text);
        let first = self
            .stops
            .iter()
            .filter_map(|stop| self.held.find(stop))
            .min();
        if let Some(at) = first {
            self.stopped = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let keep = self
            .stops
            .iter()
            .map(|stop| overlap(&self.held, stop))
            .max()
            .unwrap_or(0);
        let shown = self.held.len() - keep;
        let text = self.held[..shown].to_owned();
        self.held.drain(..shown);
        text
    }

    /// Whether a stop string has come.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// Ends the text and returns what was held back; an unfinished character becomes U+FFFD.
    pub fn finish(&mut self) -> String {
        if self.stopped {
            return String::new();
        }
        let rest = String::from_utf8_lossy(&std::mem::take(&mut self.bytes)).into_owned();
        let mut text = self.show(&rest);
        text.push_str(&std::mem::take(&mut self.held));
        text
    }
}

/// Moves the complete characters off the front to the end of `text`. Bytes that cannot become UTF-8 turn into U+FFFD as in `from_utf8_lossy`.
fn take_text(bytes: &mut Vec<u8>, text: &mut String) {
    let mut rest = bytes.as_slice();
    loop {
        match std::str::from_utf8(rest) {
            Ok(good) => {
                text.push_str(good);
                rest = &[];
                break;
            }
            Err(error) => {
                let (good, bad) = rest.split_at(error.valid_up_to());
                text.push_str(&String::from_utf8_lossy(good));
                rest = bad;
                let Some(skip) = error.error_len() else { break };
                text.push(char::REPLACEMENT_CHARACTER);
                rest = &rest[skip..];
            }
        }
    }
    let taken = bytes.len() - rest.len();
    bytes.drain(..taken);
}

/// The length of the longest end of `text` that is a beginning of `stop`.
pub(crate) fn overlap(text: &str, stop: &str) -> usize {
    // Neither the whole of `stop` nor more than there is of `text`, however long `stop` is.
    let longest = text.len().min(stop.len().saturating_sub(1));
    let (text, stop) = (text.as_bytes(), stop.as_bytes());
    // `text` ends between two characters, and so does a beginning of `stop` that equals its end.
    (1..=longest)
        .rev()
        .find(|&n| text.ends_with(&stop[..n]))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests;
