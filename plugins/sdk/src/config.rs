//! The plugin's own section of the recipe (capability `config`). The host has checked names, types and defaults.

use crate::{Fault, native};

pub use crate::bindings::environment::nextstate::plugin::config::Value;

/// The value of a key; none when it is optional and was not given.
pub fn get(key: &str) -> Option<Value> {
    if cfg!(target_arch = "wasm32") {
        crate::bindings::environment::nextstate::plugin::config::get(key)
    } else {
        native::config(key)
    }
}

fn typed<T>(key: &str, kind: &str, read: impl Fn(Value) -> Option<T>) -> Result<T, Fault> {
    get(key)
        .and_then(read)
        .ok_or_else(|| Fault::InvalidConfig(format!("`{key}` is not set to {kind}")))
}

/// A text.
pub fn text(key: &str) -> Result<String, Fault> {
    typed(key, "a text", |value| match value {
        Value::Text(text) => Some(text),
        _ => None,
    })
}

/// An integer.
pub fn integer(key: &str) -> Result<i32, Fault> {
    typed(key, "an integer", |value| match value {
        Value::Integer(integer) => Some(integer),
        _ => None,
    })
}

/// An integer that is not negative.
pub fn count(key: &str) -> Result<usize, Fault> {
    usize::try_from(integer(key)?).map_err(|_| Fault::InvalidConfig(format!("`{key}` is negative")))
}

/// A number.
pub fn number(key: &str) -> Result<f64, Fault> {
    typed(key, "a number", |value| match value {
        Value::Number(number) => Some(number),
        Value::Integer(integer) => Some(f64::from(integer)),
        _ => None,
    })
}

/// Yes or no.
pub fn boolean(key: &str) -> Result<bool, Fault> {
    typed(key, "a boolean", |value| match value {
        Value::Boolean(boolean) => Some(boolean),
        _ => None,
    })
}

/// A list of texts.
pub fn texts(key: &str) -> Result<Vec<String>, Fault> {
    typed(key, "a list of texts", |value| match value {
        Value::Texts(texts) => Some(texts),
        _ => None,
    })
}
