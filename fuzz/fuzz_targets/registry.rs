//! What a registry says: its challenges and its manifests; and what a person calls a place in one.

#![no_main]

use app::plugins::oci::{Artifact, Reference, challenges};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(artifact) = Artifact::read(data) {
        let _ = artifact.layer();
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    challenges(text);
    if let Ok(reference) = text.parse::<Reference>() {
        let written = reference.to_string();
        assert_eq!(written.parse::<Reference>().expect("it is one"), reference);
        let path = format!("{}/{}", reference.repository, reference.wanted());
        let leaves = path
            .split('/')
            .any(|part| part.is_empty() || part == "." || part == "..");
        assert!(
            !leaves && !path.contains(['%', '?', '#', '\\', ' ']),
            "{path}"
        );
    }
});
