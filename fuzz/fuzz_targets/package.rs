//! A package's file: any bytes, and well-signed ones of any content.

#![no_main]

use app::plugins::package::{open, seal};
use ed25519_dalek::SigningKey;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], &str, &[u8], u16)| {
    let (bytes, manifest, component, at) = input;
    let _ = open(bytes);
    let Ok(mut sealed) = seal(manifest, component, &SigningKey::from_bytes(&[7; 32])) else {
        return;
    };
    let package = open(&sealed).expect("what was sealed can be opened");
    assert_eq!((&*package.text, &*package.component), (manifest, component));
    let at = usize::from(at) % sealed.len();
    sealed[at] ^= 1;
    assert!(open(&sealed).is_err(), "byte {at} is not signed");
});
