//! Nothing: this crate is its two test binaries, `tidy` (the structure's own rules) and `e2e` (the host as
//! an operator sees it).
