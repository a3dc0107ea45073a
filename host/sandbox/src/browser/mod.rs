//! A headless page.
