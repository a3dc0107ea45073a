//! The body of a request for a reply.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serving::gateway::understand;

fuzz_target!(|body: &[u8]| {
    let _ = understand(body);
});
