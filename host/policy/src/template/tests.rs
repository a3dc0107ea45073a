//! What chat templates promise.
