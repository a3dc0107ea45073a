//! Guests that fit their world and mean no good: they ask for anything, and answer with any number and pointer.

#![no_main]

use arbitrary::Unstructured;
use fuzz::{call, contract, load};
use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|data: &[u8]| -> Corpus {
    let mut u = Unstructured::new(data);
    let Ok((world, shape)) = contract::world(&mut u) else {
        return Corpus::Reject;
    };
    let Ok(module) = shape.module(&mut u) else {
        return Corpus::Reject;
    };
    let component = shape.component(&module).expect("it has the world's shape");
    call(&load(world, &component).expect("such a guest loads"));
    Corpus::Keep
});
