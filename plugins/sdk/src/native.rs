//! Stand-ins for the host's capabilities away from WebAssembly, so that a plugin's own unit tests run natively.
//!
//! State is per thread, as unit tests are. Not a host: no limits, and a generator of its own.

use std::{cell::RefCell, collections::BTreeMap};

use crate::{
    Fault,
    config::Value,
    log::Level,
    model::{Completion, Request},
    random::Stream,
};

type Model = Box<dyn FnMut(Request) -> Result<Completion, Fault>>;

thread_local! {
    static STORE: RefCell<BTreeMap<String, Vec<u8>>> = const { RefCell::new(BTreeMap::new()) };
    static MODEL: RefCell<Option<Model>> = const { RefCell::new(None) };
    static CONFIG: RefCell<BTreeMap<String, Value>> = const { RefCell::new(BTreeMap::new()) };
    static STATE: RefCell<Stream> = const { RefCell::new(Stream(0)) };
}

/// Sets a config value for this thread.
pub fn set_config(key: &str, value: Value) {
    CONFIG.with_borrow_mut(|config| config.insert(key.to_owned(), value));
}

/// Restarts this thread's random numbers.
pub fn seed(seed: u64) {
    STATE.set(Stream(seed));
}

/// What answers this thread's [`crate::model::complete`].
pub fn set_model(model: impl FnMut(Request) -> Result<Completion, Fault> + 'static) {
    MODEL.set(Some(Box::new(model)));
}

pub(crate) fn complete(request: Request) -> Result<Completion, Fault> {
    let no_model = || Fault::Unsupported("there is no model; `native::set_model` gives one".into());
    MODEL.with_borrow_mut(|model| model.as_mut().ok_or_else(no_model)?(request))
}

/// What this thread has stored.
pub(crate) fn stored<T>(call: impl FnOnce(&mut BTreeMap<String, Vec<u8>>) -> T) -> T {
    STORE.with_borrow_mut(call)
}

pub(crate) fn config(key: &str) -> Option<Value> {
    CONFIG.with_borrow(|config| config.get(key).cloned())
}

pub(crate) fn bits() -> u32 {
    STATE.with_borrow_mut(Stream::bits)
}

pub(crate) fn print(level: Level, message: &str) {
    eprintln!("{level:?}: {message}");
}
