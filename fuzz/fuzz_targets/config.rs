//! A host's configuration, and what `--set` says on a command line.

#![no_main]

use app::{config::Config, plugins::source::section};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = section(&[text.to_owned()]);
    let Ok(config) = Config::parse(text) else {
        return;
    };
    config.validate().expect("what was parsed was validated");
    let written = toml::to_string(&config).expect("a configuration can be written");
    let again = Config::parse(&written).expect("and read again");
    assert_eq!(written, toml::to_string(&again).expect("as above"));
});
