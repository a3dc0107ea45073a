//! Requests over HTTP to listed hosts: what stands behind the contract's interface `http` (`wit/capabilities.wit`).
//!
//! The guest writes the request, the operator's list decides. What meets which attack:
//!
//! | attack | what meets it |
//! |---|---|
//! | a URL that two parsers read differently (userinfo, backslashes, tabs, octal addresses, Unicode dots) | one parser, WHATWG's; what it read is compared with the list by scheme, host and port, and only its path and query are sent, to the list's own authority (`target`) |
//! | a listed name that resolves to this machine or its network, at once or only the second time | one resolution a request; every address of it is checked, and those are the addresses that are connected to (`address`, `exchange`) |
//! | a redirect to elsewhere | none is followed: the guest sees it and may ask again, which is checked again |
//! | a path that leaves the prefix only at the server (`..%2f`, `..;`) | every segment is decoded to the end before it is looked at (`target`) |
//! | headers that split the request, choose another host, path, method or connection, or take a secret's place | listed in `headers`, `_` read as `-` |
//! | a server that echoes a secret | masked in the answers of every host, however JSON, URLs, forms or base64 spell it, and in pieces that headers could ask for (`secret`); a body that is compressed is refused, since nothing can be masked in it |
//! | a body without end, a byte a second, a bomb | a cap that is counted while it is read, one time-out over everything, no decompression |
//!
//! Cookies are neither sent nor kept nor shown, proxies of the environment are not used, and each request has a connection of its own.
//! A secret that a listed host gives back in a form of its own making (encrypted, reversed) is not masked: list no host that does.
//!
//! Start at [`Client::session`] and [`Session::fetch`].

mod address;
mod client;
mod config;
mod exchange;
mod headers;
mod secret;
mod target;

pub use client::{Client, Request, Resolve, Response, Session, Surroundings};
pub use config::{Config, Host, Method};
