//! A headless page: chromium behind the contract's interface `browser` (`wit/capabilities.wit`).
//!
//! One chromium process serves every page; each page has a browser context of its own, which is its profile. A page shows what it
//! is given ([`Page::show`]) or a file of a site of the operator's ([`Page::open`]), and every request of it is answered here, from
//! memory or from the site's folder: nothing that it asks for reaches a network, because chromium has none where `bwrap` is
//! there, and cannot resolve a name or pass a proxy where it is not.
//!
//! Chromium is driven over `--remote-debugging-pipe`: two pipes that nobody else can open, in place of a port that every process of the
//! machine could connect to, and messages that end with a NUL, in place of a WebSocket. No async, no generated bindings: each
//! message is a JSON value, in the one place that sends it.
//!
//! Pages are hostile. Every operation ends within [`Config::timeout`], plus about two seconds in which a page that hangs is closed;
//! a page that crashed or was closed says so, and begins anew with the next `show` or `open`.
//!
//! Start at [`Browser::page`]; `connection` and `session` are what a page is driven with, `request` is what it may reach.

mod chromium;
mod config;
mod connection;
mod evaluate;
mod frames;
mod gesture;
mod handle;
mod keys;
mod launch;
mod nodes;
mod operation;
mod page;
mod request;
mod session;
mod site;
mod tree;

pub use config::{Config, Jail};
pub use handle::Browser;
pub use page::Page;
pub use tree::Node;
