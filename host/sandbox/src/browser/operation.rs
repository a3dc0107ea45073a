//! One operation on one page, with the time that it has: the requests that all operations are made of.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    connection::{Connection, Deadline, Outcome, Trouble, Waiting},
    session::Session,
};

/// How long a navigation that a page only asked for is waited for: mostly it begins within milliseconds, or comes to nothing.
const PATIENCE: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operation<'a> {
    pub(super) connection: &'a Connection,
    pub(super) session: &'a Session,
    pub(super) deadline: Deadline,
}

impl Operation<'_> {
    pub(super) fn call(&self, method: &str, params: Value) -> Outcome {
        self.wait(self.begin(method, params))
    }

    /// Sends now, for [`Operation::wait`] later: many requests cost one round trip.
    pub(super) fn begin(&self, method: &str, params: Value) -> Waiting {
        self.connection
            .begin(Some(&self.session.id), method, params)
    }

    pub(super) fn wait(&self, waiting: Waiting) -> Outcome {
        self.connection.wait(waiting, self.deadline)
    }

    /// The value of a script of ours.
    pub(super) fn evaluate(&self, script: &str) -> Outcome {
        let asked = json!({ "expression": script, "returnByValue": true, "awaitPromise": true });
        let mut answer = self.call("Runtime.evaluate", asked)?;
        Ok(answer["result"]["value"].take())
    }

    /// Calls a function of ours with a node of the document as `this`.
    pub(super) fn on_node(&self, node: i64, function: &str, arguments: &[&str]) -> Outcome {
        let resolved = self
            .call("DOM.resolveNode", json!({ "backendNodeId": node }))
            .map_err(no_node)?;
        let arguments: Vec<Value> = arguments.iter().map(|a| json!({ "value": a })).collect();
        let asked = json!({
            "objectId": resolved["object"]["objectId"],
            "functionDeclaration": function,
            "arguments": arguments,
            "returnByValue": true,
        });
        let mut answer = self.call("Runtime.callFunctionOn", asked)?;
        Ok(answer["result"]["value"].take())
    }

    /// Waits until the page has drawn what it shows now.
    pub(super) fn until_drawn(&self) -> Outcome<()> {
        let frames = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(0))))";
        unless_navigated(self.evaluate(frames))
    }

    /// After something was done to the page: waits for what it leads to, and says so if it led out.
    pub(super) fn settle(&self) -> Outcome<()> {
        // The answer comes after every event that the page caused until now.
        unless_navigated(self.evaluate("0"))?;
        self.session
            .until_still(Deadline::after(PATIENCE), self.deadline)?;
        match self.session.take_blocked() {
            Some(url) => Err(Trouble::Refused(format!(
                "it leads to {url}, which this page cannot reach; the page stays as it was"
            ))),
            None => Ok(()),
        }
    }
}

/// A script that a navigation ended has done its work.
fn unless_navigated(outcome: Outcome) -> Outcome<()> {
    match outcome {
        Ok(_) | Err(Trouble::Said(_)) => Ok(()),
        Err(trouble) => Err(trouble),
    }
}

/// Chromium does not know the node any more.
pub(super) fn no_node(trouble: Trouble) -> Trouble {
    match trouble {
        Trouble::Said(_) => {
            Trouble::Refused("the node is no longer on the page; read the tree again".to_owned())
        }
        other => other,
    }
}
