//! Messages of chromium's pipe: JSON texts, each ended by a NUL. Knows nothing of what they say.

use std::{
    borrow::Cow,
    io::{self, BufRead, BufReader, ErrorKind, Read},
};

/// Largest message that is kept. An accessibility tree of 10,000 elements has about 20 MB, which is the largest honest one.
pub(super) const LARGEST: usize = 32 << 20;

/// What is kept of a message that is too large: its id, which comes first.
const HEAD: usize = 64;

/// One message.
#[derive(Debug, PartialEq)]
pub(super) enum Frame {
    Whole(Vec<u8>),
    /// More than [`LARGEST`]: its first bytes.
    TooLarge(Vec<u8>),
}

/// The messages of a stream.
pub(super) struct Frames<R> {
    source: BufReader<R>,
}

impl<R: Read> Frames<R> {
    pub(super) fn new(source: R) -> Self {
        Self {
            source: BufReader::with_capacity(256 << 10, source),
        }
    }

    /// The next message; none at the end of the stream, where an unfinished one is dropped.
    pub(super) fn next(&mut self) -> io::Result<Option<Frame>> {
        let mut frame = Vec::new();
        let mut fits = true;
        loop {
            let chunk = match self.source.fill_buf() {
                Ok([]) => return Ok(None),
                Ok(chunk) => chunk,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let end = chunk.iter().position(|&byte| byte == 0);
            let part = &chunk[..end.unwrap_or(chunk.len())];
            let read = part.len() + usize::from(end.is_some());
            if fits && frame.len() + part.len() <= LARGEST {
                frame.extend_from_slice(part);
            } else if fits {
                fits = false;
                frame.extend_from_slice(&part[..part.len().min(HEAD)]);
                frame.truncate(HEAD);
                frame.shrink_to_fit();
            }
            self.source.consume(read);
            if end.is_some() {
                return Ok(Some(if fits {
                    Frame::Whole(frame)
                } else {
                    Frame::TooLarge(frame)
                }));
            }
        }
    }
}

/// JSON in which every escaped half of a surrogate pair is U+FFFD. A page's strings may hold such halves; Rust's may not.
pub(super) fn without_lone_surrogates(text: &str) -> Cow<'_, str> {
    let mut healed = String::new();
    let mut kept = 0;
    let mut at = 0;
    while let Some(found) = text[at..].find('\\') {
        let here = at + found;
        let (high, low) = (unit(text, here), unit(text, here + 6));
        let is_pair = high.is_some_and(|h| (0xD800..0xDC00).contains(&h))
            && low.is_some_and(|l| (0xDC00..0xE000).contains(&l));
        at = match high {
            _ if is_pair => here + 12,
            Some(0xD800..0xE000) => {
                healed.push_str(&text[kept..here]);
                healed.push_str("\\ufffd");
                kept = here + 6;
                kept
            }
            Some(_) => here + 6,
            // The escaped character is ASCII wherever the text is JSON at all.
            None if text.is_char_boundary(here + 2) => here + 2,
            None => break,
        };
    }
    if kept == 0 {
        return Cow::Borrowed(text);
    }
    healed.push_str(&text[kept..]);
    Cow::Owned(healed)
}

/// The code unit that is escaped as `\uXXXX` at this place.
fn unit(text: &str, at: usize) -> Option<u16> {
    let escape = text.get(at..at + 6)?;
    u16::from_str_radix(escape.strip_prefix("\\u")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Vec<Frame> {
        let mut frames = Frames::new(bytes);
        std::iter::from_fn(|| frames.next().unwrap()).collect()
    }

    #[test]
    fn messages_end_with_a_nul_and_an_unfinished_one_is_dropped() {
        let frames = all(b"{\"a\":1}\0{}\0\0{\"b\"");
        let whole = |text: &str| Frame::Whole(text.as_bytes().to_vec());
        assert_eq!(frames, [whole("{\"a\":1}"), whole("{}"), whole("")]);
    }

    #[test]
    fn a_message_that_is_too_large_leaves_its_head_and_the_next_one_whole() {
        let mut bytes = b"{\"id\":7,".to_vec();
        bytes.resize(LARGEST + 1, b'x');
        bytes.extend_from_slice(b"\0next\0");
        let frames = all(&bytes);
        assert_eq!(frames.len(), 2);
        let Frame::TooLarge(head) = &frames[0] else {
            panic!("it is kept whole");
        };
        assert!(head.starts_with(b"{\"id\":7,x") && head.len() <= HEAD);
        assert_eq!(frames[1], Frame::Whole(b"next".to_vec()));
    }

    #[test]
    fn a_message_of_exactly_the_largest_size_is_whole() {
        let mut bytes = vec![b'x'; LARGEST];
        bytes.push(0);
        assert_eq!(all(&bytes), [Frame::Whole(vec![b'x'; LARGEST])]);
    }

    #[test]
    fn only_lone_halves_of_surrogate_pairs_are_replaced() {
        for (given, expected) in [
            (r#""plain""#, r#""plain""#),
            (r#""\ud83d\ude00""#, r#""\ud83d\ude00""#),
            (r#""a\ud800b""#, r#""a\ufffdb""#),
            (r#""\ude00\ud83d""#, r#""\ufffd\ufffd""#),
            (r#""\\ud800""#, r#""\\ud800""#),
            (r#""\\\ud800\n""#, r#""\\\ufffd\n""#),
            (r#""\u00e4\ud800""#, r#""\u00e4\ufffd""#),
            (r#""\ud800"#, r#""\ufffd"#),
            (r"\", r"\"),
            (r"\ä", r"\ä"),
        ] {
            assert_eq!(without_lone_surrogates(given), expected, "{given}");
        }
    }
}
