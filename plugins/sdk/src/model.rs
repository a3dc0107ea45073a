//! Words of a model, for simulated users (capability `model`); see `wit/capabilities.wit` for what the function promises.
//!
//! Away from WebAssembly whatever [`crate::native::set_model`] was given answers; without it there is no model, as on a host that offers none.

use crate::{Fault, native};

pub use crate::bindings::environment::nextstate::plugin::model::{Completion, Request};

/// Completes a conversation with a model that the operator named.
pub fn complete(request: Request) -> Result<Completion, Fault> {
    if cfg!(target_arch = "wasm32") {
        crate::bindings::environment::nextstate::plugin::model::complete(&request)
    } else {
        native::complete(request)
    }
}
