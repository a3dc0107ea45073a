//! Large values that can be erased: sealed under a key of their own, which whoever stores them keeps in a sealed record.
//!
//! A blob has no subject, so no slot in `keys` can erase it. Its key can lie in a record that has one: destroying that
//! record's key makes the blob unreadable in every copy, wherever its bytes still are. Nothing here touches a file.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{Result, keys};

/// What is authenticated beside the bytes: a sealed blob cannot be passed off as a record's body.
const CONTEXT: &str = "blob";

/// The key of one sealed value. It belongs into a sealed record, and nowhere else.
#[derive(Clone, PartialEq, Eq)]
pub struct BlobKey([u8; 32]);

impl fmt::Debug for BlobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BlobKey(…)")
    }
}

impl Serialize for BlobKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(self.0))
    }
}

impl<'de> Deserialize<'de> for BlobKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let mut key = [0; 32];
        hex::decode_to_slice(&*text, &mut key).map_err(de::Error::custom)?;
        Ok(Self(key))
    }
}

/// Seals `bytes` under a new key: what to store as a blob.
///
/// # Errors
/// The machine has no random bytes.
pub fn seal_blob(bytes: &[u8]) -> Result<(BlobKey, Vec<u8>)> {
    let key = keys::random()?;
    let sealed = keys::seal(&key, CONTEXT, "", bytes)?;
    Ok((BlobKey(key), sealed))
}

/// The bytes again; `None` when these are not what was sealed under this key.
pub fn open_blob(key: &BlobKey, sealed: &[u8]) -> Option<Vec<u8>> {
    keys::unseal(
        &key.0,
        CONTEXT,
        "",
        sealed,
        Vec::with_capacity(sealed.len()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_is_opened_with_its_key_and_with_no_other_nor_after_any_change() {
        let (key, sealed) = seal_blob(b"who said what").unwrap();
        let text = serde_json::to_string(&key).unwrap();
        let key: BlobKey = serde_json::from_str(&text).unwrap();
        assert_eq!(open_blob(&key, &sealed).unwrap(), b"who said what");
        let (other, again) = seal_blob(b"who said what").unwrap();
        assert_eq!(open_blob(&other, &sealed), None);
        assert_ne!(again, sealed);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(open_blob(&key, &changed), None, "byte {at}");
        }
        assert!(!format!("{key:?}").contains(&text[1..9]));
    }
}
