//! A kept file, drawn: little-endian, version in the magic number. A file of another version is one that does not verify.
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 8 | `NSCODE01` |
//! | 8 | 32 | HMAC-SHA-256 over the [`Name`] and the code |
//! | 40 | the rest | the code, as wasmtime serialised it |
//!
//! The MAC is over `NSCODE01`, the maker (1 byte), the component's SHA-256 (32), the engine's digest (32), the code's length (8), the code. The name
//! is not in the file: whoever looks for a name knows it, and a file under another's name does not verify.

use super::{
    engine::EngineDigest,
    key::{Key, TAG_BYTES, Tag},
};

const MAGIC: &[u8; 8] = b"NSCODE01";

/// Where the code begins.
const CODE: usize = MAGIC.len() + TAG_BYTES;

/// Who compiled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Maker {
    Host,
    Worker,
}

impl Maker {
    fn byte(self) -> u8 {
        match self {
            Maker::Host => 1,
            Maker::Worker => 2,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Maker::Host => "host",
            Maker::Worker => "worker",
        }
    }
}

/// What code is of: the same name, the same code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Name {
    pub(super) component: [u8; 32],
    pub(super) engine: EngineDigest,
    pub(super) maker: Maker,
}

/// Why a file is not used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("it is no plain file, or a link to one")]
    Kind,
    #[error("it is another user's")]
    Owner,
    #[error("others than its owner may read or write it")]
    Mode,
    #[error("it is too long")]
    Size,
    #[error("it was not written by this host for this component, engine and maker, or was changed")]
    Mac,
    #[error("only what a host compiled is a host's to load")]
    Maker,
    #[error("wasmtime does not take it")]
    Engine,
}

impl Name {
    /// The file's name.
    pub(super) fn file(&self) -> String {
        let (component, engine) = (hex::encode(self.component), hex::encode(self.engine.0));
        format!("{component}-{}-{}", &engine[..32], self.maker.word())
    }

    /// Whether a file is called as a name's is.
    pub(super) fn is_file(file: &str) -> bool {
        let digits = |part: &str, length| {
            part.len() == length && part.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        let mut parts = file.split('-');
        let (component, engine, maker) = (parts.next(), parts.next(), parts.next());
        component.is_some_and(|part| digits(part, 64))
            && engine.is_some_and(|part| digits(part, 32))
            && matches!(maker, Some("host" | "worker"))
            && parts.next().is_none()
    }

    fn tag(&self, key: &Key, code: &[u8]) -> Tag {
        key.tag(&[
            MAGIC,
            &[self.maker.byte()],
            &self.component,
            &self.engine.0,
            &(code.len() as u64).to_le_bytes(),
            code,
        ])
    }
}

/// What stands before the code in its file.
pub(super) fn header(key: &Key, name: &Name, code: &[u8]) -> Vec<u8> {
    let mut header = MAGIC.to_vec();
    header.extend(name.tag(key, code).as_bytes());
    header
}

/// The longest file with code of so many bytes.
pub(super) fn file_bytes(code: u64) -> u64 {
    code.saturating_add(CODE as u64)
}

/// The code of a file, when the file is what this key's owner wrote under this name.
pub(super) fn open(key: &Key, name: &Name, mut file: Vec<u8>) -> Result<Vec<u8>, Refusal> {
    let code = file.get(CODE..).ok_or(Refusal::Mac)?;
    let tag = &file[MAGIC.len()..CODE];
    if !file.starts_with(MAGIC) || !name.tag(key, code).is(tag) {
        return Err(Refusal::Mac);
    }
    file.drain(..CODE);
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: Name = Name {
        component: [1; 32],
        engine: EngineDigest([2; 32]),
        maker: Maker::Host,
    };

    fn sealed(key: &Key, name: &Name, code: &[u8]) -> Vec<u8> {
        [header(key, name, code), code.to_vec()].concat()
    }

    #[test]
    fn a_file_opens_under_its_own_name_and_key_and_no_other() {
        let key = Key::of(&[7; 32]);
        let file = sealed(&key, &NAME, b"code");
        assert_eq!(open(&key, &NAME, file.clone()).unwrap(), b"code");
        let others = [
            Name {
                component: [3; 32],
                ..NAME
            },
            Name {
                engine: EngineDigest([3; 32]),
                ..NAME
            },
            Name {
                maker: Maker::Worker,
                ..NAME
            },
        ];
        for other in others {
            assert_ne!(other.file(), NAME.file());
            assert_eq!(open(&key, &other, file.clone()), Err(Refusal::Mac));
        }
        assert_eq!(
            open(&Key::of(&[8; 32]), &NAME, file.clone()),
            Err(Refusal::Mac)
        );
    }

    #[test]
    fn no_bit_of_a_file_can_be_another_and_no_byte_missing_or_more() {
        let key = Key::of(&[7; 32]);
        let file = sealed(&key, &NAME, b"code");
        for bit in 0..file.len() * 8 {
            let mut flipped = file.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(&key, &NAME, flipped), Err(Refusal::Mac), "{bit}");
        }
        for length in 0..file.len() {
            let cut = file[..length].to_vec();
            assert_eq!(open(&key, &NAME, cut), Err(Refusal::Mac), "{length}");
        }
        let more = [file, vec![0]].concat();
        assert_eq!(open(&key, &NAME, more), Err(Refusal::Mac));
    }

    /// Kept files of an older program must not verify by chance: a change of this needs another magic number.
    #[test]
    fn the_file_is_as_it_is_drawn() {
        let file = sealed(&Key::of(&[7; 32]), &NAME, b"code");
        assert_eq!(&file[..8], b"NSCODE01");
        assert_eq!(&file[40..], b"code");
        assert_eq!(
            hex::encode(&file[8..40]),
            "0760f7de81d8054752da3f7dd6471daf4b7b5eeac079d6b50c00c6b60ef90272"
        );
        assert!(Name::is_file(&NAME.file()));
        for other in [".new-12-ab", "compiled", "", "a-b-host"] {
            assert!(!Name::is_file(other), "{other}");
        }
    }
}
