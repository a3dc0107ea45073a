//! A plugin in one file: its manifest, its component, and who vouches for both.
//!
//! Little endian, in this order: `NSPLUG01`; the manifest's length (4 bytes) and text; the component's length (8 bytes) and bytes; the
//! author's Ed25519 public key (32 bytes); the signature (64 bytes) over all before it. There are no file names in it, so nothing can be
//! unpacked to a place of the package's choice.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use plugin::Manifest;
use sha2::{Digest as _, Sha256};

/// How a package's file ends.
pub const SUFFIX: &str = "nsplugin";
const MAGIC: &[u8; 8] = b"NSPLUG01";
const MANIFEST_BYTES: usize = 64 << 10;
const KEY: usize = 32;
const SIGNATURE: usize = 64;
/// What a signature is about, so that one of something else is never taken for it.
const PURPOSE: &[u8] = b"nextstate plugin package\0";

/// A package whose signature is right. Whether its signer is to be trusted is not known here.
#[derive(Debug)]
pub struct Package {
    /// What the plugin says of itself.
    pub manifest: Manifest,
    /// The same, as text.
    pub text: String,
    /// The component.
    pub component: Vec<u8>,
    /// Who signed, in hexadecimal.
    pub signer: String,
}

impl Package {
    /// The component's SHA-256, in hexadecimal.
    pub fn digest(&self) -> String {
        hex::encode(Sha256::digest(&self.component))
    }

    /// What its file is called. The manifest's check lets nothing into either that leads elsewhere.
    pub fn file_name(&self) -> String {
        format!("{}-{}.{SUFFIX}", self.manifest.name, self.manifest.version)
    }
}

/// The longest package that is read: one whose component has a language's runtime inside.
pub fn most_bytes() -> u64 {
    (plugin::Limits::default().runtime_component_bytes + MANIFEST_BYTES + 1024) as u64
}

/// A package's bytes.
///
/// # Errors
/// A manifest that is not valid, or too long.
pub fn seal(manifest: &str, component: &[u8], key: &SigningKey) -> anyhow::Result<Vec<u8>> {
    Manifest::parse(manifest)?;
    ensure!(
        manifest.len() <= MANIFEST_BYTES,
        "the manifest has {} bytes, and {MANIFEST_BYTES} are allowed",
        manifest.len()
    );
    let mut bytes = MAGIC.to_vec();
    bytes.extend(u32::try_from(manifest.len())?.to_le_bytes());
    bytes.extend(manifest.as_bytes());
    bytes.extend((component.len() as u64).to_le_bytes());
    bytes.extend(component);
    bytes.extend(key.verifying_key().as_bytes());
    let signature = key.sign(&[PURPOSE, &bytes].concat());
    bytes.extend(signature.to_bytes());
    Ok(bytes)
}

/// Reads a package's file and checks its signature.
///
/// # Errors
/// A file that is no package, longer than a plugin may be, or changed after it was signed.
pub fn read(path: &Path) -> anyhow::Result<(Package, Vec<u8>)> {
    let most = most_bytes();
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(most + 1).read_to_end(&mut bytes))
        .with_context(|| format!("failed to read {}", path.display()))?;
    ensure!(
        bytes.len() as u64 <= most,
        "{} is longer than a plugin may be: more than {most} bytes",
        path.display()
    );
    let package = open(&bytes).with_context(|| format!("failed to use {}", path.display()))?;
    Ok((package, bytes))
}

/// Reads a package's bytes and checks their signature.
///
/// # Errors
/// As [`read`].
pub fn open(bytes: &[u8]) -> anyhow::Result<Package> {
    let mut rest = Cursor(bytes);
    ensure!(
        rest.take(MAGIC.len()) == Some(MAGIC),
        "it is no plugin package; `nextstate plugin pack` makes one"
    );
    let cut = "the package is cut off";
    let len = u32::from_le_bytes(rest.array().context(cut)?) as usize;
    ensure!(len <= MANIFEST_BYTES, "its manifest is too long");
    let text = rest.take(len).context(cut)?;
    let len = usize::try_from(u64::from_le_bytes(rest.array().context(cut)?)).context(cut)?;
    let component = rest.take(len).context(cut)?;
    let key: [u8; KEY] = rest.array().context(cut)?;
    let signed = &bytes[..bytes.len() - rest.0.len()];
    let signature: [u8; SIGNATURE] = rest.array().context(cut)?;
    ensure!(
        rest.0.is_empty(),
        "something follows the package's signature"
    );
    VerifyingKey::from_bytes(&key)
        .and_then(|key| {
            let signature = Signature::from_bytes(&signature);
            key.verify_strict(&[PURPOSE, signed].concat(), &signature)
        })
        .context("it was changed after it was signed, or the signature is of somebody else")?;
    let text = String::from_utf8(text.to_vec()).context("its manifest is not UTF-8")?;
    Ok(Package {
        manifest: Manifest::parse(&text)?,
        text,
        component: component.to_vec(),
        signer: hex::encode(key),
    })
}

/// What is left of the bytes.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn sealed() -> Vec<u8> {
        let guest = bundled::BINARY_REWARD;
        seal(guest.manifest, guest.component, &key(1)).unwrap()
    }

    #[test]
    fn a_package_is_read_back_and_names_its_signer() {
        let package = open(&sealed()).unwrap();
        assert_eq!(package.manifest.name, "binary-reward");
        assert_eq!(package.component, bundled::BINARY_REWARD.component);
        assert_eq!(
            package.signer,
            hex::encode(key(1).verifying_key().as_bytes())
        );
    }

    #[test]
    fn no_changed_byte_goes_unnoticed_and_no_cut_panics() {
        let bytes = sealed();
        let component_at = bytes.len() - KEY - SIGNATURE - bundled::BINARY_REWARD.component.len();
        // Every byte but most of the component's: each open hashes all of it.
        let places = (0..component_at + 8).chain((component_at + 8..bytes.len()).step_by(1999));
        for at in places.chain(bytes.len() - KEY - SIGNATURE..bytes.len()) {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(open(&changed).is_err(), "byte {at}");
        }
        for len in (0..bytes.len()).step_by(97) {
            assert!(open(&bytes[..len]).is_err(), "cut to {len}");
        }
        assert!(open(&[bytes, vec![0]].concat()).is_err(), "a byte more");
    }

    #[test]
    fn lengths_that_promise_more_than_there_is_are_refused() {
        let mut bytes = sealed();
        bytes[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(format!("{:#}", open(&bytes).unwrap_err()).contains("too long"));
        let mut bytes = sealed();
        let at = 12 + bundled::BINARY_REWARD.manifest.len();
        bytes[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(format!("{:#}", open(&bytes).unwrap_err()).contains("cut off"));
    }

    #[test]
    fn a_component_with_a_language_s_runtime_inside_is_read_and_a_longer_file_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("large.nsplugin");
        let component = vec![7; plugin::Limits::default().component_bytes * 2];
        let bytes = seal(bundled::BINARY_REWARD.manifest, &component, &key(1)).unwrap();
        fs::write(&path, bytes).unwrap();
        assert_eq!(read(&path).unwrap().0.component.len(), component.len());
        fs::File::create(&path)
            .unwrap()
            .set_len(most_bytes() + 1)
            .unwrap();
        assert!(format!("{:#}", read(&path).unwrap_err()).contains("longer than a plugin"));
    }

    #[test]
    fn a_component_under_another_s_signature_is_refused() {
        let (mine, other) = (sealed(), bundled::COMBINED_REWARD);
        let theirs = seal(bundled::BINARY_REWARD.manifest, other.component, &key(2)).unwrap();
        let mut swapped = theirs[..theirs.len() - KEY - SIGNATURE].to_vec();
        swapped.extend(&mine[mine.len() - KEY - SIGNATURE..]);
        let error = format!("{:#}", open(&swapped).unwrap_err());
        assert!(error.contains("changed after it was signed"), "{error}");
    }
}
