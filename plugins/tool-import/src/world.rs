//! What a session needs of the side that it plays against: tools over a jailed machine, and whether a request was done.
//!
//! Implemented by [`crate::imported`] and [`crate::interpreter`]. Knows no replies: [`crate::session`] reads those.

use calls::reader::Call;
use sdk::Fault;

use crate::driver::Tool;

/// A request of the user's.
#[derive(Clone, PartialEq, Debug)]
pub struct Request {
    /// What is said.
    pub words: String,
    /// Tools that are there from this request on.
    pub tools: Vec<Tool>,
}

/// How the user takes words without a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum User {
    /// They end the request; the next one follows.
    Asks,
    /// They are answered by a yes; only words after words end the request.
    Confirms,
}

/// What a model meets.
#[derive(Clone, PartialEq, Debug)]
pub struct Script {
    /// Rules for the agent; empty for none.
    pub policy: String,
    /// What the user asks, at least one.
    pub requests: Vec<Request>,
    /// How words are taken.
    pub user: User,
    /// What the model is told of how to end.
    pub ending: &'static str,
}

/// What came of a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// What the model is shown.
    pub text: String,
    /// Whether the call failed.
    pub failed: bool,
}

impl Answer {
    /// A call that was not made.
    pub fn refused(why: impl Into<String>) -> Self {
        Self {
            text: format!("Error: {}", why.into()),
            failed: true,
        }
    }
}

/// What came of the calls of one reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    /// An answer a call, in order.
    pub answers: Vec<Answer>,
    /// Whether the state is another one; none where that cannot be told.
    pub changed: Option<bool>,
}

/// Tools over a machine.
pub trait World: std::fmt::Debug {
    /// Makes calls of tools that are there, in order.
    ///
    /// # Errors
    /// Only where the machine itself is broken.
    fn make(&mut self, calls: &[Call]) -> Result<Batch, Fault>;

    /// Ends the request that is worked on, and says whether it was done. `said` is all that the model has said in words.
    fn end(&mut self, said: &[String]) -> bool;
}
