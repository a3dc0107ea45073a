//! From a `tokenizer.json` (read, or made from GGUF metadata) to a [`Tokenizer`].
//!
//! Takes the markers out of the definition before the library sees it. Does not encode.

use std::collections::HashSet;
use std::path::Path;

use serde_json::{Map, Value};

use super::{Marker, Markers, Tokenizer};
use crate::error::{Error, Problem, Result, field};

/// Ids above this are a damaged file; [`crate::ModelConfig`] has the same bound on the vocabulary.
const MAX_ID: u64 = 1 << 22;

/// How a vocabulary writes bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Alphabet {
    /// GPT-2: each byte has a printable character.
    Bytes,
    /// SentencePiece: text with ▁ for spaces, and `<0x0A>` for bytes that no token covers.
    Text,
}

pub(super) fn from_value(mut json: Value, path: &Path) -> Result<Tokenizer> {
    let fail = |name: &str, problem| Err(field(path, name, problem));
    let Some(object) = json.as_object_mut() else {
        return fail(
            "tokenizer",
            Problem::Type {
                expected: "an object",
            },
        );
    };
    let alphabet = alphabet(object, path)?;
    // Settings of batch training that would cut, pad or randomise prompts.
    for name in ["truncation", "padding"] {
        object.insert(name.into(), Value::Null);
    }
    let added = added_tokens(object, path)?;
    let (markers, kept): (Vec<_>, Vec<_>) = added.iter().partition(|token| token.is_marker());
    let kept: Vec<Value> = kept.into_iter().map(|token| token.json.clone()).collect();
    object.insert("added_tokens".into(), Value::Array(kept));
    let Some(model) = object.get_mut("model").and_then(Value::as_object_mut) else {
        return fail("model", Problem::Missing);
    };
    match model.get("type").and_then(Value::as_str) {
        // Old files leave the type out when it is byte-pair encoding.
        Some("BPE") | None => {}
        Some(other) => {
            return fail(
                "model.type",
                Problem::Unsupported {
                    value: other.into(),
                },
            );
        }
    }
    model.insert("dropout".into(), Value::Null);
    let texts: HashSet<&str> = markers.iter().map(|token| token.text.as_str()).collect();
    let vocab = take_markers_out(model, &texts, path)?;

    let (bytes, special) = tables(&vocab, &added, alphabet, path)?;
    let plain = serde_json::to_vec(&json)
        .map_err(|source| Error::Json {
            path: path.into(),
            source,
        })
        .and_then(|json| {
            tokenizers::Tokenizer::from_bytes(&json).map_err(|source| Error::Tokenizer {
                action: "build",
                path: path.into(),
                source,
            })
        })?;
    let mut found = Markers::default();
    for token in markers {
        found.insert(token.text.clone(), token.marker.clone());
    }
    let prefix = prefix(&plain);
    Ok(Tokenizer {
        plain,
        path: path.into(),
        markers: found,
        bytes,
        special,
        bos: prefix.first().copied(),
        prefix,
        eos: None,
        strips_leading_space: alphabet == Alphabet::Text,
    })
}

fn alphabet(object: &Map<String, Value>, path: &Path) -> Result<Alphabet> {
    let decoder = object.get("decoder").unwrap_or(&Value::Null);
    let kinds: Vec<&str> = match decoder.get("decoders").and_then(Value::as_array) {
        Some(list) => list
            .iter()
            .filter_map(|d| d.get("type")?.as_str())
            .collect(),
        None => decoder
            .get("type")
            .and_then(Value::as_str)
            .into_iter()
            .collect(),
    };
    if kinds.contains(&"ByteLevel") {
        Ok(Alphabet::Bytes)
    } else if kinds.contains(&"ByteFallback") {
        Ok(Alphabet::Text)
    } else {
        let value = format!("the decoders {kinds:?}");
        Err(field(path, "decoder", Problem::Unsupported { value }))
    }
}

/// One entry of `added_tokens`.
struct Added {
    text: String,
    special: bool,
    marker: Marker,
    json: Value,
}

impl Added {
    /// Control tokens, and others that look like one (Qwen's `<think>`, `<tool_call>`): not runs of spaces and the like.
    fn is_marker(&self) -> bool {
        let bracketed = |open, close| self.text.starts_with(open) && self.text.ends_with(close);
        self.special || bracketed('<', '>') || bracketed('[', ']')
    }
}

fn added_tokens(object: &Map<String, Value>, path: &Path) -> Result<Vec<Added>> {
    let list = match object.get("added_tokens") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(_) => {
            return Err(field(
                path,
                "added_tokens",
                Problem::Type { expected: "a list" },
            ));
        }
    };
    let read = |(i, json): (usize, &Value)| {
        let flag = |name: &str| json.get(name).and_then(Value::as_bool).unwrap_or(false);
        let text = json
            .get("content")
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty());
        let id = json
            .get("id")
            .and_then(Value::as_u64)
            .filter(|id| *id <= MAX_ID);
        let (Some(text), Some(Ok(id))) = (text, id.map(u32::try_from)) else {
            let expected = "an object with an id and a content";
            return Err(field(
                path,
                format!("added_tokens[{i}]"),
                Problem::Type { expected },
            ));
        };
        let (lstrip, rstrip, single_word) = (flag("lstrip"), flag("rstrip"), flag("single_word"));
        Ok(Added {
            text: text.into(),
            special: flag("special"),
            marker: Marker {
                id,
                lstrip,
                rstrip,
                single_word,
            },
            json: json.clone(),
        })
    };
    list.iter().enumerate().map(read).collect()
}

/// Removes the markers from the vocabulary and from the merges, so that the model cannot produce them; returns the
/// vocabulary as it was.
fn take_markers_out(
    model: &mut Map<String, Value>,
    markers: &HashSet<&str>,
    path: &Path,
) -> Result<Vec<(String, u32)>> {
    let unknown = model
        .get("unk_token")
        .and_then(Value::as_str)
        .map(str::to_owned);
    let Some(vocab) = model.get_mut("vocab").and_then(Value::as_object_mut) else {
        let expected = "an object of tokens and ids";
        return Err(field(path, "model.vocab", Problem::Type { expected }));
    };
    let mut all = Vec::with_capacity(vocab.len());
    for (text, id) in vocab.iter() {
        match id.as_u64().filter(|id| *id <= MAX_ID).map(u32::try_from) {
            Some(Ok(id)) => all.push((text.clone(), id)),
            _ => {
                let name = format!("model.vocab[{text:?}]");
                return Err(field(
                    path,
                    name,
                    Problem::Type {
                        expected: "a token id",
                    },
                ));
            }
        }
    }
    vocab.retain(|text, _| !markers.contains(text.as_str()) || Some(text) == unknown.as_ref());
    if let Some(merges) = model.get_mut("merges").and_then(Value::as_array_mut) {
        merges.retain(|merge| {
            let joined = match merge {
                Value::String(pair) => pair.replacen(' ', "", 1),
                Value::Array(pair) => pair.iter().filter_map(Value::as_str).collect(),
                _ => return true,
            };
            !markers.contains(joined.as_str())
        });
    }
    Ok(all)
}

type Tables = (Vec<Box<[u8]>>, Vec<bool>);

/// The bytes of every id, and whether it is a control token.
fn tables(
    vocab: &[(String, u32)],
    added: &[Added],
    alphabet: Alphabet,
    path: &Path,
) -> Result<Tables> {
    let ids = vocab
        .iter()
        .map(|(_, id)| *id)
        .chain(added.iter().map(|token| token.marker.id));
    let size = ids.max().map_or(0, |id| id as usize + 1);
    if size == 0 {
        return Err(field(path, "model.vocab", Problem::Missing));
    }
    let mut bytes = vec![Box::default(); size];
    let mut special = vec![false; size];
    for (text, id) in vocab {
        bytes[*id as usize] = token_bytes(text, alphabet);
    }
    for token in added {
        bytes[token.marker.id as usize] = token.text.as_bytes().into();
        special[token.marker.id as usize] = token.special;
    }
    Ok((bytes, special))
}

fn token_bytes(text: &str, alphabet: Alphabet) -> Box<[u8]> {
    match alphabet {
        Alphabet::Bytes => {
            let bytes: Option<Vec<u8>> = text.chars().map(byte_of).collect();
            // A token with a character outside of the alphabet stands for itself, as in the library's decoder.
            bytes.unwrap_or_else(|| text.as_bytes().into()).into()
        }
        Alphabet::Text => {
            let hex = text.strip_prefix("<0x").and_then(|t| t.strip_suffix('>'));
            match hex
                .filter(|hex| hex.len() == 2)
                .map(|hex| u8::from_str_radix(hex, 16))
            {
                Some(Ok(byte)) => Box::new([byte]),
                _ => text.replace('▁', " ").into_bytes().into(),
            }
        }
    }
}

/// The byte that a character of GPT-2's alphabet stands for: printable Latin-1 is itself, the others follow from U+0100 on.
fn byte_of(c: char) -> Option<u8> {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    match u32::from(c) {
        code @ 0..=0xFF => u8::try_from(code).ok().filter(|b| printable(*b)),
        code => (0..=u8::MAX)
            .filter(|b| !printable(*b))
            .nth(code.checked_sub(0x100)? as usize),
    }
}

/// What the post-processor puts before a text: the difference that asking for special tokens makes.
fn prefix(plain: &tokenizers::Tokenizer) -> Vec<u32> {
    let ids = |special| {
        plain
            .encode_fast("a", special)
            .map(|e| e.get_ids().to_vec())
    };
    match (ids(true), ids(false)) {
        (Ok(with), Ok(without)) if !without.is_empty() => {
            let at = with
                .windows(without.len())
                .position(|window| window == without);
            with[..at.unwrap_or(0)].to_vec()
        }
        _ => Vec::new(),
    }
}
