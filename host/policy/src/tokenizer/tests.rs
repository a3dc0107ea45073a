//! What the tokenizer promises.
