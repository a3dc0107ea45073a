//! GGUF's key-value pairs, typed and bounded.
//!
//! Integers of every width become `i64` or `u64`, floats `f64`. Arrays hold numbers or strings; arrays of arrays exist in the format but in
//! no model, and are refused. Accessors name the key in every error.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::reader::Reader;
use crate::config::{in_range, positive};
use crate::error::{Problem, Result, field};

/// A chat template may be some hundred KB.
const MAX_STRING: u64 = 16 << 20;
const MAX_KEY: u64 = 1 << 12;
/// Vocabularies and merge lists have a few hundred thousand entries.
const MAX_ARRAY: u64 = 1 << 22;
/// All strings of a file together: the largest published vocabulary takes some 20 MB.
const MAX_TOTAL: u64 = 512 << 20;

/// The key-value pairs of a file.
#[derive(Debug)]
pub struct Metadata {
    path: PathBuf,
    pairs: BTreeMap<String, Value>,
}

/// One value.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Int(i64),
    Unsigned(u64),
    Float(f64),
    Bool(bool),
    Text(String),
    Ints(Vec<i64>),
    Floats(Vec<f64>),
    Texts(Vec<String>),
}

impl Metadata {
    pub(super) fn read(reader: &mut Reader<'_>, count: u64) -> Result<Self> {
        let path = reader.path().to_path_buf();
        let start = reader.position();
        let mut pairs = BTreeMap::new();
        for _ in 0..count {
            let key = reader.string("metadata key", MAX_KEY)?;
            let kind = reader.u32(&key)?;
            let value = if kind == ARRAY {
                read_array(reader, &key)?
            } else {
                read_scalar(reader, &key, kind)?
            };
            let used = reader.position() - start;
            if used > MAX_TOTAL {
                return Err(field(
                    path,
                    key,
                    Problem::TooMany {
                        count: used,
                        limit: MAX_TOTAL,
                    },
                ));
            }
            if pairs.contains_key(&key) {
                return Err(field(path, key, Problem::Duplicate));
            }
            pairs.insert(key, value);
        }
        Ok(Self { path, pairs })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the key is there.
    pub fn has(&self, key: &str) -> bool {
        self.pairs.contains_key(key)
    }

    /// The keys, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.pairs.keys().map(String::as_str)
    }

    fn fail<T>(&self, key: &str, problem: Problem) -> Result<T> {
        Err(field(&self.path, key, problem))
    }

    /// A string that must be there.
    ///
    /// # Errors
    /// When it is missing or not a string; so for the other accessors.
    pub fn string(&self, key: &str) -> Result<&str> {
        self.optional_string(key)?
            .map_or_else(|| self.fail(key, Problem::Missing), Ok)
    }

    /// A string that may be there.
    pub(crate) fn optional_string(&self, key: &str) -> Result<Option<&str>> {
        match self.pairs.get(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => self.fail(
                key,
                Problem::Type {
                    expected: "a string",
                },
            ),
        }
    }

    /// A list of strings.
    ///
    /// # Errors
    /// When it is missing or something else.
    pub fn strings(&self, key: &str) -> Result<&[String]> {
        match self.pairs.get(key) {
            None => self.fail(key, Problem::Missing),
            Some(Value::Texts(list)) => Ok(list),
            Some(_) => self.fail(
                key,
                Problem::Type {
                    expected: "a list of strings",
                },
            ),
        }
    }

    /// A list of integers.
    pub(crate) fn integers(&self, key: &str) -> Result<&[i64]> {
        match self.pairs.get(key) {
            None => self.fail(key, Problem::Missing),
            Some(Value::Ints(list)) => Ok(list),
            Some(_) => self.fail(
                key,
                Problem::Type {
                    expected: "a list of integers",
                },
            ),
        }
    }

    /// True or false; absent counts as false.
    pub(crate) fn flag(&self, key: &str) -> Result<bool> {
        match self.pairs.get(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => self.fail(
                key,
                Problem::Type {
                    expected: "true or false",
                },
            ),
        }
    }

    /// Any number.
    pub(crate) fn number(&self, key: &str) -> Result<Option<f64>> {
        match self.pairs.get(key) {
            None => Ok(None),
            Some(Value::Int(n)) => Ok(Some(*n as f64)),
            Some(Value::Unsigned(n)) => Ok(Some(*n as f64)),
            Some(Value::Float(n)) => Ok(Some(*n)),
            Some(_) => self.fail(
                key,
                Problem::Type {
                    expected: "a number",
                },
            ),
        }
    }

    /// An integer between 1 and `max`.
    pub(crate) fn size(&self, key: &str, default: Option<usize>, max: usize) -> Result<usize> {
        let number = match self.pairs.get(key) {
            None => return default.map_or_else(|| self.fail(key, Problem::Missing), Ok),
            Some(Value::Unsigned(n)) => Some(*n),
            Some(Value::Int(n)) => u64::try_from(*n).ok(),
            Some(_) => None,
        };
        match number {
            Some(number) => in_range(&self.path, key, number, max),
            None => self.fail(
                key,
                Problem::Type {
                    expected: "a non-negative integer",
                },
            ),
        }
    }

    /// A finite number above `above` and at most `max`.
    pub(crate) fn float(
        &self,
        key: &str,
        default: Option<f64>,
        above: f64,
        max: f64,
    ) -> Result<f32> {
        match self.number(key)?.or(default) {
            Some(value) => positive(&self.path, key, value, above, max),
            None => self.fail(key, Problem::Missing),
        }
    }

    /// A token id. Some writers put 2^32 - 1 for "none".
    pub(crate) fn token(&self, key: &str) -> Result<Option<u32>> {
        let expected = "a token id";
        let id = match self.pairs.get(key) {
            None => return Ok(None),
            Some(Value::Unsigned(n)) => u32::try_from(*n).ok(),
            Some(Value::Int(n)) => u32::try_from(*n).ok(),
            Some(_) => None,
        };
        match id {
            Some(u32::MAX) => Ok(None),
            Some(id) => Ok(Some(id)),
            None => self.fail(key, Problem::Type { expected }),
        }
    }
}

const STRING: u32 = 8;
const ARRAY: u32 = 9;

fn read_scalar(reader: &mut Reader<'_>, key: &str, kind: u32) -> Result<Value> {
    Ok(match kind {
        0 => Value::Unsigned(u8::from_le_bytes(reader.array(key)?).into()),
        1 => Value::Int(i8::from_le_bytes(reader.array(key)?).into()),
        2 => Value::Unsigned(u16::from_le_bytes(reader.array(key)?).into()),
        3 => Value::Int(i16::from_le_bytes(reader.array(key)?).into()),
        4 => Value::Unsigned(reader.u32(key)?.into()),
        5 => Value::Int(i32::from_le_bytes(reader.array(key)?).into()),
        6 => Value::Float(f32::from_le_bytes(reader.array(key)?).into()),
        7 => match reader.array(key)? {
            [0] => Value::Bool(false),
            [1] => Value::Bool(true),
            [_] => {
                let problem = Problem::Type {
                    expected: "true (1) or false (0)",
                };
                return Err(field(reader.path(), key, problem));
            }
        },
        STRING => Value::Text(reader.string(key, MAX_STRING)?),
        10 => Value::Unsigned(reader.u64(key)?),
        11 => Value::Int(i64::from_le_bytes(reader.array(key)?)),
        12 => Value::Float(f64::from_le_bytes(reader.array(key)?)),
        other => {
            let problem = Problem::Unsupported {
                value: format!("value type {other}"),
            };
            return Err(field(reader.path(), key, problem));
        }
    })
}

/// Bytes of one element on disk; for strings the least possible.
fn element_bytes(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        STRING | 10..=12 => Some(8),
        _ => None,
    }
}

fn read_array(reader: &mut Reader<'_>, key: &str) -> Result<Value> {
    let kind = reader.u32(key)?;
    let Some(bytes) = element_bytes(kind) else {
        let problem = Problem::Unsupported {
            value: format!("an array of value type {kind}"),
        };
        return Err(field(reader.path(), key, problem));
    };
    let count = reader.count(key, MAX_ARRAY)?;
    // The count is at most 2^22 and each element takes bytes that must be in the file, so memory stays in proportion.
    reader.need(key, count * bytes)?;
    let scalars = (0..count).map(|_| read_scalar(reader, key, kind));
    Ok(match kind {
        STRING => Value::Texts(scalars.map(|v| v.map(text)).collect::<Result<_>>()?),
        6 | 12 => Value::Floats(scalars.map(|v| v.map(float)).collect::<Result<_>>()?),
        _ => Value::Ints(scalars.map(|v| v.map(integer)).collect::<Result<_>>()?),
    })
}

fn text(value: Value) -> String {
    if let Value::Text(text) = value {
        text
    } else {
        String::new()
    }
}

fn float(value: Value) -> f64 {
    if let Value::Float(number) = value {
        number
    } else {
        0.0
    }
}

fn integer(value: Value) -> i64 {
    match value {
        Value::Int(n) => n,
        // No list that a model needs holds numbers beyond i64.
        Value::Unsigned(n) => i64::try_from(n).unwrap_or(i64::MAX),
        Value::Bool(b) => b.into(),
        _ => 0,
    }
}
