//! The language runtimes that guests bring along and that this host knows, by the SHA-256 of their code.
//!
//! **Compile bombs.** Register allocation is superlinear in a function's size, so that a component of a few hundred KB with one
//! huge function keeps a compiler busy for a minute; a cap on function bodies takes that away. CPython's bytecode loop is such a
//! function, and honest. What is exempt is therefore not a size but one exact code section, whose compile time is known
//! (20 s on a core at most), and each only once a component: code that differs in a byte is anybody's code, and capped as such.
//! Data is not looked at, since it is not compiled: a guest's own Python lies in there.
//!
//! `cargo run -p plugin --example runtime -- plugin.wasm` prints what would have to stand here for another release.

use sha2::{Digest, Sha256};

/// CPython 3.14 as componentize-py links it: the code of `libpython3.14.so`, the same in every guest that a release makes.
/// QuickJS is not here: no function of it is over the cap.
const KNOWN: [&str; 2] = [
    // componentize-py 0.25.1
    "647b670b9a4c5a65170bfae4fa8719fc1e3f899884c81e0967cb913ed56cff8a",
    // componentize-py 0.25.0
    "47cf2105208d4013f5074a7321c43afa67f084a6de53ae590c77fef91202a743",
];

/// A known runtime that this code section is.
pub(crate) fn known(code: &[u8]) -> Option<&'static str> {
    let digest = hex::encode(Sha256::digest(code));
    KNOWN.into_iter().find(|known| *known == digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_of_digests_and_anybody_s_code_is_not_on_it() {
        for digest in KNOWN {
            assert_eq!(hex::encode(hex::decode(digest).unwrap()), digest);
            assert_eq!(digest.len(), 64);
        }
        assert_eq!(known(b""), None);
        assert_eq!(known(&[0; 1 << 17]), None);
    }
}
