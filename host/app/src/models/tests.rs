//! What the model store promises.
