//! What `toolcalls` promises.
