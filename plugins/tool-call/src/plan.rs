//! A task in full: the world, what the user asks for one after the other, and a reference solution of each.
//!
//! Made by a family ([`crate::families`]), played by an episode, compared by the oracle. The model never sees it.

use serde_json::Value;

use crate::{apis::World, reader::Call};

/// What a final answer has to say.
#[derive(Clone, PartialEq, Debug)]
pub struct Expected {
    /// The value, for example `120` or `555-0142`.
    pub value: String,
    /// Values that it could be mixed up with; an answer that names one of them does not tell.
    pub rivals: Vec<String>,
}

/// One request of the user.
#[derive(Clone, PartialEq, Debug)]
pub struct Request {
    /// In the user's words.
    pub words: String,
    /// The calls of the reference solution.
    pub calls: Vec<Call>,
    /// How many of them change the state.
    pub changes: usize,
    /// What the final answer has to say, where something was asked.
    pub answer: Option<Expected>,
}

/// The world and the requests, at least one.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How the world is at the beginning.
    pub world: World,
    /// What is asked for, in order.
    pub requests: Vec<Request>,
}

impl Plan {
    /// A world in which nothing is asked for yet.
    pub fn new(world: World) -> Self {
        Self {
            world,
            requests: Vec::new(),
        }
    }

    /// The user asks for something.
    #[must_use]
    pub fn ask(mut self, words: String) -> Self {
        self.requests.push(Request {
            words,
            calls: Vec::new(),
            changes: 0,
            answer: None,
        });
        self
    }

    /// The next call of the last request's solution.
    #[must_use]
    pub fn call(mut self, name: &str, arguments: Value) -> Self {
        let functions = self.world.functions();
        let changes = functions
            .iter()
            .any(|function| function.name == name && function.changes);
        if let Some(request) = self.requests.last_mut() {
            request.calls.push(Call::new(name, arguments));
            request.changes += usize::from(changes);
        }
        self
    }

    /// What the final answer of the last request has to say.
    #[must_use]
    pub fn answer(mut self, value: impl ToString, rivals: Vec<String>) -> Self {
        if let Some(request) = self.requests.last_mut() {
            request.answer = Some(Expected {
                value: value.to_string(),
                rivals,
            });
        }
        self
    }

    /// The hash of the state after each request, when everything is done as the reference does it.
    pub fn goals(&self) -> Vec<u64> {
        let mut world = self.world.clone();
        let goal = |request: &Request| {
            for call in &request.calls {
                world.call(&call.name, &call.arguments);
            }
            world.hash()
        };
        self.requests.iter().map(goal).collect()
    }
}
