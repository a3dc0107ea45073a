//! What a checkpoint's readers promise.
