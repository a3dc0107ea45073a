//! The JSON object of one call, with its arguments as the model wrote them.
//!
//! A real parser decides what is valid; this module only finds where the values stand.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Call;

/// What a text begins with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// A call, and the text after it.
    Call(Call, &'a str),
    /// Valid so far; more text may complete it.
    Incomplete,
    /// Not a call.
    Other,
}

/// Reads a call from the front of a text. `hermes` asks for the key `arguments`, otherwise it is `parameters`; the other one is
/// accepted, too, because models mix them up.
pub(super) fn call(text: &str, hermes: bool) -> Found<'_> {
    let text = text.trim_start();
    if !text.starts_with('{') {
        return if text.is_empty() {
            Found::Incomplete
        } else {
            Found::Other
        };
    }
    let Some((object, rest)) = (match value::<IgnoredAny>(text) {
        Ok((_, end)) => Some(text.split_at(end)),
        Err(error) if error.is_eof() => return Found::Incomplete,
        Err(_) => None,
    }) else {
        return Found::Other;
    };
    let (first, second) = if hermes {
        ("arguments", "parameters")
    } else {
        ("parameters", "arguments")
    };
    let members = members(object);
    let raw = |key: &str| {
        members
            .iter()
            .rev()
            .find(|(k, _)| k == key)
            .map(|(_, raw)| *raw)
    };
    let name = raw("name").and_then(|raw| serde_json::from_str::<String>(raw).ok());
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return Found::Other;
    };
    match raw(first)
        .or_else(|| raw(second))
        .map_or(Some("{}".to_owned()), arguments)
    {
        Some(arguments) => Found::Call(Call { name, arguments }, rest),
        None => Found::Other,
    }
}

/// An object as it stands; some models write it as a string, which is then what stands inside.
fn arguments(raw: &str) -> Option<String> {
    if raw.starts_with('{') {
        return Some(raw.to_owned());
    }
    let inner: String = serde_json::from_str(raw).ok()?;
    let is_object = inner.trim_start().starts_with('{');
    (is_object && serde_json::from_str::<IgnoredAny>(&inner).is_ok()).then_some(inner)
}

/// The keys of a valid object with the text of their values.
fn members(object: &str) -> Vec<(String, &str)> {
    let mut found = Vec::new();
    let mut rest = object.trim_start().strip_prefix('{').unwrap_or_default();
    loop {
        rest = rest.trim_start_matches([',', ' ', '\t', '\r', '\n']);
        let Ok((key, end)) = value::<String>(rest) else {
            return found;
        };
        let after = rest[end..].trim_start();
        let after = after.strip_prefix(':').unwrap_or(after).trim_start();
        let Ok((_, end)) = value::<IgnoredAny>(after) else {
            return found;
        };
        found.push((key, &after[..end]));
        rest = &after[end..];
    }
}

/// The value at the front of a text, and where it ends.
fn value<'a, T: Deserialize<'a>>(text: &'a str) -> Result<(T, usize), serde_json::Error> {
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<T>();
    match stream.next() {
        Some(value) => value.map(|value| (value, stream.byte_offset())),
        None => serde_json::from_str::<T>("").map(|value| (value, 0)),
    }
}
