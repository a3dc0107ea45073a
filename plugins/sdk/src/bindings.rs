//! What `wit-bindgen` makes of the contract, one module a world; the plain data and the capabilities are shared.
//!
//! Generated: read `wit/` instead. The export macros in here expand to `unsafe` functions; the macros of this crate
//! fence them, so that a plugin is written without any.

#![expect(
    missing_docs,
    reason = "generated; the doc comments are those of `wit/`"
)]

/// World `environment-plugin`.
pub mod environment {
    wit_bindgen::generate!({
        world: "environment-plugin",
        path: "../../wit",
        pub_export_macro: true,
        export_macro_name: "export_world",
        additional_derives: [PartialEq],
        generate_all,
    });
}

/// World `judge-plugin`.
pub mod judge {
    wit_bindgen::generate!({
        world: "judge-plugin",
        path: "../../wit",
        pub_export_macro: true,
        export_macro_name: "export_world",
        additional_derives: [PartialEq],
        with: {
            "nextstate:plugin/types@0.1.0": crate::bindings::environment::nextstate::plugin::types,
            "nextstate:plugin/log@0.1.0": crate::bindings::environment::nextstate::plugin::log,
            "nextstate:plugin/metric@0.1.0": crate::bindings::environment::nextstate::plugin::metric,
            "nextstate:plugin/random@0.1.0": crate::bindings::environment::nextstate::plugin::random,
            "nextstate:plugin/clock@0.1.0": crate::bindings::environment::nextstate::plugin::clock,
            "nextstate:plugin/config@0.1.0": crate::bindings::environment::nextstate::plugin::config,
        },
    });
}

/// World `reward-plugin`.
pub mod reward {
    wit_bindgen::generate!({
        world: "reward-plugin",
        path: "../../wit",
        pub_export_macro: true,
        export_macro_name: "export_world",
        additional_derives: [PartialEq],
        with: {
            "nextstate:plugin/types@0.1.0": crate::bindings::environment::nextstate::plugin::types,
            "nextstate:plugin/log@0.1.0": crate::bindings::environment::nextstate::plugin::log,
            "nextstate:plugin/metric@0.1.0": crate::bindings::environment::nextstate::plugin::metric,
            "nextstate:plugin/random@0.1.0": crate::bindings::environment::nextstate::plugin::random,
            "nextstate:plugin/clock@0.1.0": crate::bindings::environment::nextstate::plugin::clock,
            "nextstate:plugin/config@0.1.0": crate::bindings::environment::nextstate::plugin::config,
        },
    });
}
