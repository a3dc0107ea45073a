//! Text to token ids and back, with a hard line between text that may hold special tokens and text that may not.
//!
//! Special tokens (`<|im_start|>`, `<tool_call>` and the like, here called *markers*) are matched by this module, and only where the
//! caller vouches for the text. The library underneath is built **without** them, so that no sequence of characters that a user
//! sends can become one. Knows no chat templates; read next [`crate::template`], and [`crate::detokenize`] for streams.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::template::PromptSize;

mod build;
mod gguf;

pub(crate) use gguf::{from_gguf, standalone};

/// Bytes of a text that are made tokens of at once to see whether it is too long.
const PART: usize = 32 << 10;

/// Whether special tokens are recognised in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// The host wrote the text (a template, a fixed prompt): markers become their tokens.
    Parse,
    /// Data from outside: everything is ordinary text, whatever it looks like.
    Plain,
}

/// A model's tokenizer: byte-pair encoding over bytes (GPT-2's way) or over text with byte fall-back (SentencePiece's way).
#[derive(Debug)]
pub struct Tokenizer {
    /// Has no markers, neither as added tokens nor in its vocabulary.
    plain: tokenizers::Tokenizer,
    path: PathBuf,
    markers: Markers,
    /// The bytes of every token, by id; empty for ids that do not exist.
    bytes: Vec<Box<[u8]>>,
    special: Vec<bool>,
    prefix: Vec<u32>,
    bos: Option<u32>,
    eos: Option<u32>,
    /// SentencePiece's decoders drop one space at the start of a text.
    strips_leading_space: bool,
}

/// An added token that text from outside may never become.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Marker {
    id: u32,
    /// Swallows white space before it.
    lstrip: bool,
    /// Swallows white space after it.
    rstrip: bool,
    /// Does not match inside of a word.
    single_word: bool,
}

/// Finds markers: leftmost, then longest.
#[derive(Debug, Default)]
struct Markers {
    by_text: HashMap<String, Marker>,
    /// Lengths that occur, longest first.
    lengths: Vec<usize>,
    /// First bytes that occur.
    first: Vec<u8>,
}

impl Markers {
    fn insert(&mut self, text: String, marker: Marker) {
        if let Some(&first) = text.as_bytes().first() {
            if !self.first.contains(&first) {
                self.first.push(first);
            }
            if !self.lengths.contains(&text.len()) {
                self.lengths.push(text.len());
                self.lengths.sort_unstable_by(|a, b| b.cmp(a));
            }
            self.by_text.insert(text, marker);
        }
    }

    /// The next marker at or after `from` that touches none of the `untrusted` ranges (sorted, disjoint).
    fn next(
        &self,
        text: &str,
        from: usize,
        untrusted: &[Range<usize>],
    ) -> Option<(Range<usize>, &Marker)> {
        for (at, byte) in text.bytes().enumerate().skip(from) {
            if !self.first.contains(&byte) {
                continue;
            }
            for &length in &self.lengths {
                let range = at..at + length;
                let Some(marker) = text.get(range.clone()).and_then(|t| self.by_text.get(t)) else {
                    continue;
                };
                let overlaps =
                    |data: &Range<usize>| data.start < range.end && range.start < data.end;
                let in_word = marker.single_word
                    && (text[..range.start]
                        .chars()
                        .next_back()
                        .is_some_and(char::is_alphanumeric)
                        || text[range.end..]
                            .chars()
                            .next()
                            .is_some_and(char::is_alphanumeric));
                if !in_word && !untrusted.iter().any(overlaps) {
                    return Some((range, marker));
                }
            }
        }
        None
    }
}

impl Tokenizer {
    /// Reads a `tokenizer.json`. `path` only names it in errors.
    ///
    /// # Errors
    /// When it is not JSON, not byte-pair encoding, or the library refuses it.
    pub fn from_json(json: &[u8], path: &Path) -> Result<Self> {
        let value = serde_json::from_slice(json).map_err(|source| Error::Json {
            path: path.into(),
            source,
        })?;
        build::from_value(value, path)
    }

    /// Sets the tokens that start and end a text, by their text; unknown texts change nothing.
    pub(crate) fn with_special_texts(mut self, bos: Option<&str>, eos: Option<&str>) -> Self {
        self.bos = bos.and_then(|text| self.token_id(text)).or(self.bos);
        self.eos = eos.and_then(|text| self.token_id(text)).or(self.eos);
        self
    }

    /// The ids of a text. Adds nothing at its start; see [`Tokenizer::prefix`].
    ///
    /// # Errors
    /// When the library fails, which a byte-level tokenizer has no cause to do.
    pub fn encode(&self, text: &str, special: Special) -> Result<Vec<u32>> {
        match special {
            Special::Parse => self.encode_spans(text, &[]),
            Special::Plain => self.encode_plain(text),
        }
    }

    /// As [`Tokenizer::encode`], of a text that is not longer than `most`.
    ///
    /// # Errors
    /// And [`Error::PromptTooLong`], before all of a long one is made tokens of.
    pub fn encode_within(
        &self,
        text: &str,
        special: Special,
        most: PromptSize,
    ) -> Result<Vec<u32>> {
        let too_long = || Error::PromptTooLong { most };
        if text.len() > most.bytes {
            return Err(too_long());
        }
        let whole = 0..text.len();
        let untrusted = match special {
            Special::Parse => &[][..],
            Special::Plain => std::slice::from_ref(&whole),
        };
        let ids = self.encode_at_most(text, untrusted, most.tokens)?;
        ids.ok_or_else(too_long)
    }

    /// The ids of a text in which the `untrusted` byte ranges (sorted, disjoint, on character borders) are data: a marker that
    /// touches one is ordinary text. Between markers the text is encoded as a whole, so that for harmless data the ids are
    /// exactly those of the whole text, merges across the ranges' ends included.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_spans(&self, text: &str, untrusted: &[Range<usize>]) -> Result<Vec<u32>> {
        let ids = self.encode_at_most(text, untrusted, usize::MAX)?;
        // More than that there cannot be.
        Ok(ids.unwrap_or_default())
    }

    /// As [`Tokenizer::encode_spans`]; none for a text that has more than `most` ids.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub(crate) fn encode_at_most(
        &self,
        text: &str,
        untrusted: &[Range<usize>],
        most: usize,
    ) -> Result<Option<Vec<u32>>> {
        let mut ids = Vec::new();
        let mut done = 0;
        while let Some((range, marker)) = self.markers.next(text, done, untrusted) {
            let mut before = &text[done..range.start];
            if marker.lstrip {
                before = before.trim_end();
            }
            if self.has_more_than(before, most)? {
                return Ok(None);
            }
            ids.extend(self.encode_plain(before)?);
            ids.push(marker.id);
            if ids.len() > most {
                return Ok(None);
            }
            done = range.end;
            if marker.rstrip {
                done = text.len() - text[done..].trim_start().len();
            }
        }
        let rest = &text[done..];
        if self.has_more_than(rest, most)? {
            return Ok(None);
        }
        ids.extend(self.encode_plain(rest)?);
        Ok((ids.len() <= most).then_some(ids))
    }

    /// Whether a text surely has more tokens than `most`, found out in little memory: the library holds up to some 300 bytes for each byte
    /// of a text of many tokens. Cut into parts a text has few more tokens than whole, at the cuts; never twice as many.
    fn has_more_than(&self, text: &str, most: usize) -> Result<bool> {
        if text.len() <= PART.max(most) {
            return Ok(false);
        }
        let (mut rest, mut tokens) = (text, 0_usize);
        while !rest.is_empty() && tokens / 2 <= most {
            let (part, after) = rest.split_at(rest.floor_char_boundary(PART));
            tokens += self.encode_plain(part)?.len();
            rest = after;
        }
        Ok(tokens / 2 > most)
    }

    fn encode_plain(&self, text: &str) -> Result<Vec<u32>> {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let encoding = self.plain.encode_fast(text, false);
        let encoding = encoding.map_err(|source| Error::Tokenizer {
            action: "encode text",
            path: self.path.clone(),
            source,
        })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of ids, special tokens included as their text; bytes that are not UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids
            .iter()
            .flat_map(|&id| self.token_bytes(id))
            .copied()
            .collect();
        let text = String::from_utf8_lossy(&bytes);
        match text.strip_prefix(' ') {
            Some(rest) if self.strips_leading_space => rest.to_owned(),
            _ => text.into_owned(),
        }
    }

    /// Bytes of the longest token.
    pub fn longest_token(&self) -> usize {
        self.bytes
            .iter()
            .map(|bytes| bytes.len())
            .max()
            .unwrap_or(0)
    }

    /// The bytes that a token stands for; nothing for an id that does not exist. Not always UTF-8 by itself.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        usize::try_from(id)
            .ok()
            .and_then(|id| self.bytes.get(id))
            .map_or(&[], |bytes| bytes)
    }

    /// A token's text, for tokens that are UTF-8 by themselves.
    pub fn token_text(&self, id: u32) -> Option<String> {
        let bytes = self.token_bytes(id);
        (!bytes.is_empty())
            .then(|| String::from_utf8(bytes.to_vec()).ok())
            .flatten()
    }

    /// The id of a marker, or of a text that is exactly one token.
    pub fn token_id(&self, text: &str) -> Option<u32> {
        if let Some(marker) = self.markers.by_text.get(text) {
            return Some(marker.id);
        }
        match self.encode_plain(text).ok()?.as_slice() {
            [id] => Some(*id),
            _ => None,
        }
    }

    /// Whether a token is a control token: never part of visible text.
    pub fn is_special(&self, id: u32) -> bool {
        usize::try_from(id)
            .ok()
            .and_then(|id| self.special.get(id))
            .copied()
            .unwrap_or(false)
    }

    /// All control tokens, ascending.
    pub fn special_ids(&self) -> Vec<u32> {
        (0u32..)
            .zip(&self.special)
            .filter_map(|(id, &special)| special.then_some(id))
            .collect()
    }

    /// What a bare prompt starts with (Llama 3: `<|begin_of_text|>`). Chat templates write it themselves.
    pub fn prefix(&self) -> &[u32] {
        &self.prefix
    }

    /// The token that starts a text, as the tokenizer's files name it.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text, as the tokenizer's files name it. What ends a reply is [`crate::ModelConfig::eos`].
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// One more than the highest id. Models often pad their embedding table beyond it.
    pub fn vocab_size(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn strips_leading_space(&self) -> bool {
        self.strips_leading_space
    }
}

#[cfg(test)]
mod tests;
