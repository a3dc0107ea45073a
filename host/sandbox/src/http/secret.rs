//! Values that the host adds to requests, and their absence from everything else.
//!
//! They are in no error, no log and no `Debug`; what a response repeats of them is masked before anybody sees it.

use std::{fmt, fs, path::PathBuf};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE},
};
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

/// A secret as it is, each word of it, what its Basic credentials stand for, and each of these and the whole header in base64. How a
/// server may spell any of them is [`spellings`].
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
    for text in plain.iter().chain([&whole]) {
        for base64 in [STANDARD, URL_SAFE] {
            let base64 = base64.encode(text);
            forms.push(base64.trim_end_matches('=').as_bytes().to_vec());
        }
    }
    forms.extend(plain.into_iter().map(String::into_bytes));
    forms.retain(|form| form.len() >= SHORTEST);
    forms
}

/// How many bytes at the front of `input` may stand for `byte`: itself, or as JSON (`\/`, `\u002f`), URLs (`%2f`) and forms (`+` for a
/// space) have it, whichever characters the server thinks need it.
fn spellings(input: &[u8], byte: u8) -> impl Iterator<Item = usize> {
    let hex = |digits: &[u8]| {
        let digits = std::str::from_utf8(digits).ok()?;
        u8::from_str_radix(digits, 16).ok()
    };
    let found = match input {
        [b'\\', b'u', b'0', b'0', high, low, ..] if hex(&[*high, *low]) == Some(byte) => Some(6),
        [b'%', high, low, ..] if hex(&[*high, *low]) == Some(byte) => Some(3),
        // Not `\h`: in `\\hunter2` the second backslash belongs to the first.
        [b'\\', escaped, ..] if *escaped == byte && byte.is_ascii_punctuation() => Some(2),
        [b'+', ..] if byte == b' ' => Some(1),
        _ => None,
    };
    // A `%` may be itself, and the beginning of `%25`.
    let itself = (input.first() == Some(&byte)).then_some(1);
    found.into_iter().chain(itself)
}

/// The most bytes at the front of `input` that spell `form`.
fn spelled(input: &[u8], form: &[u8]) -> Option<usize> {
    let mut ends = vec![0];
    for &byte in form {
        let mut next = Vec::new();
        for end in ends {
            let further = spellings(&input[end..], byte).map(|length| end + length);
            next.extend(further);
        }
        // Two ways to one place go on as one: there are never many.
        next.sort_unstable();
        next.dedup();
        ends = next;
        if ends.is_empty() {
            return None;
        }
    }
    ends.last().copied()
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
    let begins = |b: &u8| *b == first || b"\\%+".contains(b);
    while let Some(step) = rest[done..].iter().position(begins) {
        let at = done + step;
        if let Some(length) = spelled(&rest[at..], form) {
            kept.extend_from_slice(&rest[..at]);
            kept.extend_from_slice(MASK);
            rest = &rest[at + length..];
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
    fn a_secret_is_masked_however_a_server_spells_it() {
        let secret = read("Bearer env:KEY", "a<b>&c/d-e.f_g~ h?>+%25\\").unwrap();
        let masking = Masking::of([&secret].into_iter());
        for seen in [
            r"a<b>&c/d-e.f_g~ h?>+%25\",
            r"a<b>&c\/d-e.f_g~ h?>+%25\\",
            r"a\u003cb\u003e\u0026c/d-e.f_g~ h?\u003e+%25\\",
            r"a\u003Cb\u003E\u0026c\/d-e.f_g~ h?\u003E\u002B%25\u005C",
            "a%3Cb%3E%26c%2Fd-e.f_g~%20h%3F%3E%2B%2525%5C",
            "a%3cb%3e%26c%2fd-e.f_g~%20h%3f%3e%2b%2525%5c",
            "a%3Cb%3E%26c/d-e.f_g%7E+h%3F%3E%2B%2525%5C",
            "a%3Cb%3E%26c%2Fd%2De%2Ef%5Fg%7E%20h%3F%3E%2B%2525%5C",
            // In base64, in that of URLs, and with the word before it.
            "YTxiPiZjL2QtZS5mX2d+IGg/PislMjVc",
            "YTxiPiZjL2QtZS5mX2d-IGg_PislMjVc",
            r"YTxiPiZjL2QtZS5mX2d+IGg\/PislMjVc",
            "YTxiPiZjL2QtZS5mX2d%2BIGg%2fPislMjVc",
            "QmVhcmVyIGE8Yj4mYy9kLWUuZl9nfiBoPz4rJTI1XA",
        ] {
            let shown = masking.text(format!("<{seen}>").as_bytes());
            assert_eq!(shown, "<***>", "{seen}");
        }
        let escaped = br#""C:\\bare-secret""#;
        let secret = read("env:KEY", "bare-secret").unwrap();
        let bare = Masking::of([&secret].into_iter());
        assert_eq!(bare.text(escaped), r#""C:\\***""#);
        let other = r"%\u00 a\u003cb\u003e\u0026c%2";
        assert_eq!(masking.text(other.as_bytes()), other);
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
