//! Values that the host adds to requests, and their absence from everything else.
//!
//! They are in no error, no log and no `Debug`; what a response repeats of them is masked before anybody sees it.

use std::{fmt, fs, path::PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use ureq::http::HeaderValue;

/// Shortest secret. A shorter one would be found, and masked, where nobody repeated it.
const SHORTEST: usize = 8;

/// Longest secret.
const LONGEST: usize = 8 << 10;

/// What a guest sees in place of a secret.
const MASK: &[u8] = b"***";

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    Env(String),
    File(PathBuf),
}

/// Reads `Bearer env:NAME`: what stands before the secret, and where the secret is. An error does not repeat the text: it may be the
/// secret itself, written in the wrong place.
pub(super) fn parse(text: &str) -> Result<(String, Source), String> {
    let wrong = || {
        "has no source: write `env:NAME` or `file:PATH`, after a word such as `Bearer ` or not"
            .to_owned()
    };
    let found = [text.find("env:"), text.find("file:")];
    let at = found.into_iter().flatten().min().ok_or_else(wrong)?;
    let (before, source) = text.split_at(at);
    let (kind, name) = source.split_once(':').ok_or_else(wrong)?;
    let visible = |b: u8| b.is_ascii_graphic() || b == b' ';
    if !(before.is_empty() || before.ends_with(' '))
        || !before.bytes().all(visible)
        || name.is_empty()
        || name.contains(['\0', '=']) && kind == "env"
    {
        return Err(wrong());
    }
    let source = match kind {
        "env" => Source::Env(name.to_owned()),
        _ => Source::File(name.into()),
    };
    Ok((before.to_owned(), source))
}

/// A header that the host adds.
pub(super) struct Secret {
    pub(super) value: HeaderValue,
    /// The forms in which a response may repeat it.
    forms: Vec<Vec<u8>>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// Reads it where the config says. The error is for the operator alone.
    pub(super) fn read(
        text: &str,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let (before, source) = parse(text)?;
        let (value, place) = match source {
            Source::Env(name) => {
                let place = format!("the environment variable {name}");
                let value = variable(&name).ok_or_else(|| format!("{place} is not set"))?;
                (value, place)
            }
            Source::File(path) => {
                let place = format!("the file {}", path.display());
                let value = fs::read_to_string(&path)
                    .map_err(|error| format!("{place} cannot be read: {error}"))?;
                (value, place)
            }
        };
        let value = value.trim();
        if !(SHORTEST..=LONGEST).contains(&value.len()) {
            let bytes = value.len();
            return Err(format!(
                "{place} holds {bytes} bytes, and {SHORTEST} to {LONGEST} make a secret"
            ));
        }
        let mut header = HeaderValue::from_str(&format!("{before}{value}"))
            .map_err(|_| format!("{place} holds what no header may, such as a line end"))?;
        header.set_sensitive(true);
        Ok(Self {
            value: header,
            forms: forms(&before, value),
        })
    }
}

/// A secret as it is, each word of it, what its Basic credentials stand for, and each of these as URLs, JSON and base64 have it.
fn forms(before: &str, value: &str) -> Vec<Vec<u8>> {
    let mut plain: Vec<String> = vec![value.to_owned()];
    plain.extend(value.split_whitespace().map(str::to_owned));
    let whole = format!("{before}{value}");
    if let Some((scheme, credentials)) = whole.split_once(' ')
        && scheme.eq_ignore_ascii_case("basic")
        && let Ok(pair) = STANDARD.decode(credentials)
        && let Ok(pair) = String::from_utf8(pair)
    {
        plain.extend(
            pair.split_once(':')
                .map(|(_, password)| password.to_owned()),
        );
        plain.push(pair);
    }
    let mut forms = Vec::new();
    for text in plain {
        let json = serde_json::Value::from(text.as_str()).to_string();
        forms.push(json.trim_matches('"').as_bytes().to_vec());
        forms.push(
            percent_encode(text.as_bytes(), NON_ALPHANUMERIC)
                .to_string()
                .into_bytes(),
        );
        let base64 = STANDARD.encode(&text);
        forms.push(base64.trim_end_matches('=').as_bytes().to_vec());
        forms.push(text.into_bytes());
    }
    forms.retain(|form| form.len() >= SHORTEST);
    forms
}

/// Takes secrets out of what a guest is going to see.
#[derive(Default)]
pub(super) struct Masking {
    /// The longest first: a form may hold another.
    forms: Vec<Vec<u8>>,
}

impl fmt::Debug for Masking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Masking(..)")
    }
}

impl Masking {
    pub(super) fn of<'a>(secrets: impl Iterator<Item = &'a Secret>) -> Self {
        let mut forms: Vec<_> = secrets.flat_map(|secret| secret.forms.clone()).collect();
        forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
        forms.dedup();
        Self { forms }
    }

    pub(super) fn bytes(&self, bytes: Vec<u8>) -> Vec<u8> {
        self.forms
            .iter()
            .fold(bytes, |bytes, form| masked(bytes, form))
    }

    pub(super) fn text(&self, bytes: &[u8]) -> String {
        String::from_utf8_lossy(&self.bytes(bytes.to_vec())).into_owned()
    }
}

fn masked(bytes: Vec<u8>, form: &[u8]) -> Vec<u8> {
    let Some(&first) = form.first() else {
        return bytes;
    };
    let mut kept = Vec::new();
    let mut rest = bytes.as_slice();
    let mut done = 0;
    while let Some(step) = rest[done..].iter().position(|&b| b == first) {
        let at = done + step;
        if rest[at..].starts_with(form) {
            kept.extend_from_slice(&rest[..at]);
            kept.extend_from_slice(MASK);
            rest = &rest[at + form.len()..];
            done = 0;
        } else {
            done = at + 1;
        }
    }
    if kept.is_empty() {
        return bytes;
    }
    kept.extend_from_slice(rest);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, value: &str) -> Result<Secret, String> {
        Secret::read(text, &|name| (name == "KEY").then(|| value.to_owned()))
    }

    #[test]
    fn a_source_is_read_with_the_word_before_it() {
        let secret = read("Bearer env:KEY", "hunter2-hunter2\n").unwrap();
        assert_eq!(secret.value, "Bearer hunter2-hunter2");
        assert!(!format!("{secret:?} {:?}", secret.value).contains("hunter"));
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, b"from-a-file\n").unwrap();
        let text = format!("file:{}", file.path().display());
        assert_eq!(read(&text, "").unwrap().value, "from-a-file");
    }

    #[test]
    fn what_is_wrong_is_said_without_the_value() {
        for (text, value, expected) in [
            ("env:OTHER", "", "OTHER is not set"),
            ("file:/no/such/file", "", "cannot be read"),
            ("env:KEY", "hunter2", "7 bytes"),
            ("env:KEY", "hunter2\r\nhost: evil", "no header may"),
            ("hunter2-hunter2", "", "no source"),
        ] {
            let why = read(text, value).unwrap_err();
            assert!(why.contains(expected) && !why.contains("hunter"), "{why}");
        }
    }

    #[test]
    fn a_secret_is_masked_in_the_forms_that_servers_repeat() {
        let secret = read("Bearer env:KEY", "hunter2 \"quoted\"/x").unwrap();
        let masking = Masking::of([&secret].into_iter());
        for (seen, shown) in [
            ("<Bearer hunter2 \"quoted\"/x>", "<Bearer ***>"),
            (r#"{"a":"hunter2 \"quoted\"/x"}"#, r#"{"a":"***"}"#),
            ("?k=hunter2%20%22quoted%22%2Fx&", "?k=***&"),
            ("aHVudGVyMiAicXVvdGVkIi94", "***"),
            ("just \"quoted\"/x here", "just *** here"),
            ("hhunter2 \"quoted\"/xhunter2 \"quoted\"/x", "h******"),
            ("nothing of it", "nothing of it"),
        ] {
            assert_eq!(masking.text(seen.as_bytes()), shown);
        }
    }

    #[test]
    fn basic_credentials_are_masked_decoded_as_well() {
        let secret = read("Basic env:KEY", &STANDARD.encode("user:long password")).unwrap();
        let masking = Masking::of([&secret].into_iter());
        assert_eq!(masking.text(b"user:long password!"), "***!");
        assert_eq!(
            masking.text(b"password is long password"),
            "password is ***"
        );
    }
}
