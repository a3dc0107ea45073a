//! `plugin.toml` of anybody, and a section of a recipe that is checked by it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use plugin::Manifest;

/// What lies between the two in an input.
const BETWEEN: &str = "\n#---\n";

fuzz_target!(|text: &str| {
    let (manifest, section) = text.split_once(BETWEEN).unwrap_or((text, ""));
    let Ok(manifest) = Manifest::parse(manifest) else {
        return;
    };
    // As text, since a number may be none, which differs from itself.
    let written = toml::to_string(&manifest).expect("a manifest can be written");
    let again = Manifest::parse(&written).expect("and read again");
    assert_eq!(written, toml::to_string(&again).expect("as above"));
    let file = format!("{}-{}", manifest.name, manifest.version);
    assert!(!file.contains(['/', '\\', '\0']) && !file.starts_with('.'));
    if let Ok(section) = section.parse::<toml::Table>()
        && let Ok(checked) = manifest.check(&section)
    {
        for key in section.keys() {
            assert!(checked.contains_key(key), "{key} was lost");
        }
    }
});
