//! What the plugin stores from one episode to the next (capability `store`); see `wit/capabilities.wit` for who sees it when, and for its
//! limits.
//!
//! ```
//! # fn begin() -> Result<String, sdk::Fault> {
//! use sdk::store;
//!
//! let visits = store::text("visits")?.and_then(|text| text.parse::<u32>().ok());
//! let visits = visits.unwrap_or(0) + 1;
//! store::put("visits", visits.to_string())?;
//! # Ok(visits.to_string())
//! # }
//! # assert_eq!((begin().unwrap(), begin().unwrap()), ("1".into(), "2".into()));
//! ```
//!
//! Away from WebAssembly each thread has a store of its own, without limits.

use crate::{Fault, native};

use crate::bindings::environment::nextstate::plugin::store;

/// The value of a key; none where there is none.
pub fn get(key: &str) -> Result<Option<Vec<u8>>, Fault> {
    if cfg!(target_arch = "wasm32") {
        store::get(key)
    } else {
        Ok(native::stored(|kept| kept.get(key).cloned()))
    }
}

/// The same as text; bytes that are no UTF-8 are shown as U+FFFD.
pub fn text(key: &str) -> Result<Option<String>, Fault> {
    let value = get(key)?;
    Ok(value.map(|value| String::from_utf8_lossy(&value).into_owned()))
}

/// Stores a value under a key.
pub fn put(key: &str, value: impl AsRef<[u8]>) -> Result<(), Fault> {
    let value = value.as_ref();
    if cfg!(target_arch = "wasm32") {
        store::put(key, value)
    } else {
        native::stored(|kept| kept.insert(key.to_owned(), value.to_vec()));
        Ok(())
    }
}

/// Removes a key; one that is not there is no fault.
pub fn remove(key: &str) -> Result<(), Fault> {
    if cfg!(target_arch = "wasm32") {
        store::remove(key)
    } else {
        native::stored(|kept| kept.remove(key));
        Ok(())
    }
}

/// The keys that begin with this, in order.
pub fn keys(prefix: &str) -> Result<Vec<String>, Fault> {
    if cfg!(target_arch = "wasm32") {
        store::keys(prefix)
    } else {
        let begins = |key: &&String| key.starts_with(prefix);
        Ok(native::stored(|kept| {
            kept.keys().filter(begins).cloned().collect()
        }))
    }
}
