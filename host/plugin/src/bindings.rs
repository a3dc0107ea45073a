//! What wasmtime makes of the contract, one module a world; the plain data and the capabilities are shared.
//!
//! Generated: read `wit/` instead.

pub(crate) mod environment {
    wasmtime::component::bindgen!({
        world: "environment-plugin",
        path: "../../wit",
        imports: { default: trappable },
        with: {
            "nextstate:plugin/shell.machine": crate::shell::Held,
            "nextstate:plugin/browser.page": crate::browser::Held,
        },
    });
}

pub(crate) mod judge {
    wasmtime::component::bindgen!({
        world: "judge-plugin",
        path: "../../wit",
        imports: { default: trappable },
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

pub(crate) mod reward {
    wasmtime::component::bindgen!({
        world: "reward-plugin",
        path: "../../wit",
        imports: { default: trappable },
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

pub(crate) use environment::nextstate::plugin::{
    browser, clock, config, http, log, metric, model, random, shell, store, types,
};
