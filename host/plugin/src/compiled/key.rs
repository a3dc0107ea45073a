//! The key under which this user's hosts vouch for what they compiled: a file that only its owner can read, made at first use.

use std::{fmt, path::Path};

use ring::{
    hmac,
    rand::{SecureRandom as _, SystemRandom},
};
use subtle::ConstantTimeEq as _;

use super::folder::{Folder, Found, Problem};

/// HMAC-SHA-256's.
pub(super) const TAG_BYTES: usize = 32;

const KEY_BYTES: usize = 32;

pub(super) struct Key(hmac::Key);

pub(super) struct Tag(hmac::Tag);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

impl Tag {
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_ref()
    }

    /// In a time that does not depend on where they differ.
    pub(super) fn is(&self, other: &[u8]) -> bool {
        self.as_bytes().ct_eq(other).into()
    }
}

impl Key {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    pub(super) fn tag(&self, parts: &[&[u8]]) -> Tag {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(part);
        }
        Tag(context.sign())
    }

    /// The key in this file, made when there is none. Of two hosts that make it at once, one's is both's.
    pub(super) fn at(path: &Path) -> Result<Self, Problem> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Problem::Key {
                path: path.to_owned(),
                what: "it is no file's name",
            });
        };
        let name = name.to_string_lossy();
        let folder = Folder::open(folder)?;
        if !folder.has(&name)? {
            let mut bytes = [0; KEY_BYTES];
            random(&mut bytes)?;
            folder.write_first(&name, hex::encode(bytes).as_bytes())?;
        }
        let damaged = |what| Problem::Key {
            path: path.to_owned(),
            what,
        };
        let text = match folder.read(&name, 2 * KEY_BYTES as u64)? {
            Found::Bytes(text) => text,
            Found::Refused(_) => return Err(damaged("it is not its owner's alone, or is damaged")),
            Found::Nothing => return Err(damaged("it is gone")),
        };
        let bytes = hex::decode(text).ok();
        let bytes = bytes.filter(|bytes| bytes.len() == KEY_BYTES);
        let bytes = bytes.ok_or_else(|| damaged("it is not its owner's alone, or is damaged"))?;
        Ok(Self::of(&bytes))
    }
}

/// Fills with bytes that nobody can guess.
pub(super) fn random(bytes: &mut [u8]) -> Result<(), Problem> {
    SystemRandom::new()
        .fill(bytes)
        .map_err(|_| Problem::NoRandomness)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    };

    use super::*;

    fn tag(path: &Path) -> Vec<u8> {
        Key::at(path).unwrap().tag(&[b"a"]).as_bytes().to_vec()
    }

    #[test]
    fn a_key_is_made_once_and_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys/compiled");
        let first = tag(&path);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(tag(&path), first);
        assert_eq!(fs::read_dir(dir.path().join("keys")).unwrap().count(), 1);
        assert_ne!(tag(&dir.path().join("keys/another")), first);
    }

    #[test]
    fn a_key_that_others_can_read_is_damaged_or_a_link_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("compiled");
        tag(&path);
        let refused = || Key::at(&path).unwrap_err().to_string();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(refused().contains("not its owner's alone"), "{}", refused());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        for damage in ["", "ab", &"a".repeat(63), &"g".repeat(64), &"a".repeat(66)] {
            fs::write(&path, damage).unwrap();
            assert!(refused().contains("damaged"), "{damage}");
        }
        fs::rename(&path, dir.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        assert!(refused().contains("not its owner's alone"), "{}", refused());
    }

    #[test]
    fn two_that_make_it_at_once_have_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("compiled");
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let path = path.clone();
                std::thread::spawn(move || tag(&path))
            })
            .collect();
        let tags: Vec<_> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect();
        assert!(tags.iter().all(|tag| *tag == tags[0]));
    }
}
