//! Requests over HTTP (capability `http`); see `wit/capabilities.wit` for what a request may be.
//!
//! ```no_run
//! # fn look() -> Result<(), sdk::Fault> {
//! use sdk::http::{self, Request};
//!
//! let page = http::fetch(&Request::get("https://api.example.com/v1/items").header("accept", "application/json"))?;
//! if page.is_success() {
//!     println!("{}", page.text());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Away from WebAssembly there is no network, and a call panics: keep what decides apart from what asks, and test the whole with
//! `nextstate plugin test`.

pub use crate::bindings::environment::nextstate::plugin::http::{
    Header, Method, Request, Response, fetch,
};

impl Request {
    /// A request without headers and body.
    pub fn new(method: Method, url: impl Into<String>) -> Self {
        Self {
            method,
            url: url.into(),
            headers: Vec::new(),
            body: None,
        }
    }

    /// A `GET`.
    pub fn get(url: impl Into<String>) -> Self {
        Self::new(Method::Get, url)
    }

    /// A `POST` of JSON.
    pub fn post_json(url: impl Into<String>, json: impl Into<Vec<u8>>) -> Self {
        let mut request = Self::new(Method::Post, url).header("content-type", "application/json");
        request.body = Some(json.into());
        request
    }

    /// The same with one more header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let (name, value) = (name.into(), value.into());
        self.headers.push(Header { name, value });
        self
    }
}

impl Response {
    /// Whether the status is one of success, 200 to 299.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The first header of this name, which is given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|header| header.name == name)?;
        Some(&header.value)
    }

    /// The body as text; bytes that are no UTF-8 are shown as U+FFFD.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}
