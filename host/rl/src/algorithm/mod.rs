//! How a judged turn becomes per-token advantages: one algorithm a file.
//!
//! Pure arithmetic on slices. Does not judge, store or train.
