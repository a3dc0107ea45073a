//! A jailed machine.
