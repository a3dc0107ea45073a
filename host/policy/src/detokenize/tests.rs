//! What `detokenize` promises.
