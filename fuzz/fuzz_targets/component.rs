//! Foreign bytes as a component: any at all, and shipped guests that were spoiled. What loads is called.

#![no_main]

use arbitrary::Unstructured;
use fuzz::{call, edit, load};
use libfuzzer_sys::{Corpus, fuzz_target};
use plugin::World;

fuzz_target!(|data: &[u8]| -> Corpus {
    if data.starts_with(b"\0asm") {
        let _ = load(World::RewardPlugin, data);
        return Corpus::Keep;
    }
    let mut u = Unstructured::new(data);
    let Ok((world, bytes)) = edit::guest(&mut u) else {
        return Corpus::Reject;
    };
    if let Ok(plugin) = load(world, &bytes) {
        call(&plugin);
    }
    Corpus::Keep
});
