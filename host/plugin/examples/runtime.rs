//! `cargo run -p plugin --example runtime -- plugin.wasm…`: the code of a component that no host compiles unless it is known.
//!
//! Build a plugin with the release of the language's tool in question, look at what it says here, and put the digests of its runtime
//! into `src/runtimes.rs`: only a digest that is the same for two different plugins, and for the tool of every platform.
#![expect(clippy::print_stdout, reason = "a command")]

use std::{error::Error, fs};

use plugin::Limits;
use sha2::{Digest as _, Sha256};
use wasmparser::{Parser, Payload};

fn main() -> Result<(), Box<dyn Error>> {
    let cap = Limits::default().function_bytes;
    for path in std::env::args().skip(1) {
        let component = fs::read(&path)?;
        let (mut section, mut largest) = (0..0, 0);
        for payload in Parser::new(0).parse_all(&component) {
            match payload? {
                Payload::CodeSectionStart { range, .. } => {
                    (section, largest) = (range, 0);
                }
                Payload::CodeSectionEntry(body) => {
                    let bytes = body.range().len();
                    if bytes > cap && bytes > largest {
                        largest = bytes;
                        let code = component.get(section.clone()).unwrap_or_default();
                        let digest = hex::encode(Sha256::digest(code));
                        let all = code.len();
                        println!("{path}: {digest}: a function of {bytes} bytes in {all} of code");
                    }
                }
                _ => {}
            }
        }
    }
    Ok(())
}
