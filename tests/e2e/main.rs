//! The real host, in process, over loopback.
