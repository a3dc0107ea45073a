//! Guests that abuse the host. For tests only: never in [`crate::ALL`].

use crate::{Bundled, bundled};

/// A reward rule whose abuse is chosen by its config.
pub const FAULTY: Bundled = bundled!("faulty");

/// An environment that misuses machines and pages, in the way that its task names.
pub const REACHING: Bundled = bundled!("reaching");
