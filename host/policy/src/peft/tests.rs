//! What adapter folders promise.
