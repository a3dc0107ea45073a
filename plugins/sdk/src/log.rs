//! Lines and numbers for the host (always granted), and the panic hook that makes a trap readable.

use std::sync::Once;

use crate::native;

pub use crate::bindings::environment::nextstate::plugin::log::Level;

/// Writes one line to the host's log.
pub fn write(level: Level, message: &str) {
    if cfg!(target_arch = "wasm32") {
        crate::bindings::environment::nextstate::plugin::log::write(level, message);
    } else {
        native::print(level, message);
    }
}

/// What a developer would want to know.
pub fn debug(message: &str) {
    write(Level::Debug, message);
}

/// What an operator would want to know.
pub fn info(message: &str) {
    write(Level::Info, message);
}

/// What should not have happened, and did no harm.
pub fn warn(message: &str) {
    write(Level::Warn, message);
}

/// What did harm.
pub fn error(message: &str) {
    write(Level::Error, message);
}

/// Records one value under a name in the host's metrics.
pub fn metric(name: &str, value: f64) {
    if cfg!(target_arch = "wasm32") {
        crate::bindings::environment::nextstate::plugin::metric::record_value(name, value);
    }
}

/// Makes a panic log its message and place: without it the host sees only `unreachable`.
pub(crate) fn install_panic_hook() {
    static ONCE: Once = Once::new();
    if cfg!(target_arch = "wasm32") {
        ONCE.call_once(|| std::panic::set_hook(Box::new(|panic| error(&panic.to_string()))));
    }
}
