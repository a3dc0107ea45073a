//! What `sample` promises.
