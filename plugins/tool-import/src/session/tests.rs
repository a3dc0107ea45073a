//! What a session does with replies, over a world without a machine.

use std::{cell::RefCell, rc::Rc};

use sdk::Role;
use serde_json::json;

use super::*;
use crate::{driver::Tool, world::Request};

/// What the world saw: calls, and what was said at each end.
type Seen = Rc<RefCell<Vec<String>>>;

/// Every call succeeds but those of `fail`; a request is done when something was called for it.
#[derive(Debug)]
struct Double {
    seen: Seen,
    made: usize,
}

impl World for Double {
    fn make(&mut self, calls: &[Call]) -> Result<Batch, Fault> {
        self.made += calls.len();
        let answer = |call: &Call| {
            self.seen.borrow_mut().push(call.to_json());
            Answer {
                text: format!("did {}", call.name),
                failed: call.name == "fail",
            }
        };
        let answers = calls.iter().map(answer).collect();
        let changed = Some(calls.iter().any(|call| call.name == "set"));
        Ok(Batch { answers, changed })
    }

    fn end(&mut self, said: &[String]) -> bool {
        self.seen.borrow_mut().push(said.join("|"));
        std::mem::take(&mut self.made) > 0
    }
}

fn tool(name: &str) -> Tool {
    Tool {
        name: name.into(),
        description: String::new(),
        parameters: json!({}),
    }
}

fn session(user: User) -> (Session, Seen) {
    let request = |words: &str, names: &[&str]| Request {
        words: words.into(),
        tools: names.iter().map(|name| tool(name)).collect(),
    };
    let mut requests = vec![request("First.", &["set", "fail"])];
    if user == User::Asks {
        requests.push(request("", &["late"]));
    }
    let script = Script {
        policy: String::new(),
        requests,
        user,
        ending: "",
    };
    let rules = Rules {
        tools_in: ToolsIn::System,
        max_turns: 8,
        max_calls: 5,
        calls_per_reply: 2,
        patience: 2,
        output_chars: 200,
    };
    let seen = Seen::default();
    let world = Double {
        seen: Rc::clone(&seen),
        made: 0,
    };
    (Session::new(script, Box::new(world), rules), seen)
}

fn say(session: &mut Session, reply: &str) -> Step {
    let reply = Message::new(Role::Assistant, reply);
    let finish = Finish::Stop;
    session.act(Action { reply, finish }).unwrap()
}

fn value(session: &mut Session) -> f64 {
    session.outcome().unwrap().unwrap().value
}

const SET: &str = r#"{"name": "set", "arguments": {"a": 1}}"#;
const LATE: &str = r#"{"name": "late", "arguments": {}}"#;

#[test]
fn an_episode_is_worth_one_when_every_request_was_done_and_ended() {
    let (mut session, seen) = session(User::Asks);
    assert_eq!(session.outcome().unwrap(), None);
    let next = say(&mut session, SET).next;
    assert_eq!(
        next.messages[0].content,
        "Result of set: {\"result\":\"did set\"}"
    );
    for (name, is) in [("error", 0.0), ("repeated", 0.0), ("changed", 1.0)] {
        assert_eq!(next.evidence(name), Some(is), "{name}");
    }
    let next = say(&mut session, "Done.").next;
    assert!(next.messages[0].content.contains("\"name\":\"late\""));
    assert_eq!(value(&mut session), 0.0);
    say(&mut session, LATE);
    let step = say(&mut session, "Done as well.");
    assert_eq!(
        (step.done, value(&mut session)),
        (Some(Done::Finished), 1.0)
    );
    assert_eq!(seen.borrow().last().unwrap(), "Done.|Done as well.");
    let reply = Message::new(Role::Assistant, "More.");
    let finish = Finish::Stop;
    assert!(session.act(Action { reply, finish }).is_err());
}

#[test]
fn a_tool_is_there_only_from_its_request_on_and_an_unknown_one_never() {
    let (mut session, seen) = session(User::Asks);
    for call in [LATE, r#"{"name": "__class__", "arguments": {}}"#] {
        let next = say(&mut session, call).next;
        assert!(next.messages[0].content.contains("there is no tool"));
        assert_eq!(next.evidence("error"), Some(1.0));
    }
    assert!(seen.borrow().is_empty());
}

#[test]
fn a_user_who_confirms_takes_only_words_after_words_as_the_end() {
    let (mut session, _) = session(User::Confirms);
    assert_eq!(say(&mut session, "Shall I?").next.messages[0].content, YES);
    say(&mut session, SET);
    assert_eq!(say(&mut session, "I did.").done, None);
    assert_eq!(say(&mut session, "All done.").done, Some(Done::Finished));
    assert_eq!(value(&mut session), 1.0);
}

#[test]
fn idleness_and_endless_work_are_worth_nothing() {
    for user in [User::Asks, User::Confirms] {
        let (mut idle, _) = session(user);
        say(&mut idle, "No.");
        assert_eq!(say(&mut idle, "No.").done, Some(Done::Finished));
        assert_eq!(value(&mut idle), 0.0);
    }
    let (mut busy, _) = session(User::Asks);
    let mut ended = None;
    while ended.is_none() {
        ended = say(&mut busy, SET).done;
    }
    assert_eq!((ended, value(&mut busy)), (Some(Done::Truncated), 0.0));
}

#[test]
fn replies_that_cannot_be_read_say_why_and_end_an_episode_that_goes_on_like_that() {
    let (mut session, seen) = session(User::Asks);
    let many = format!("{SET}{SET}{SET}");
    assert!(
        say(&mut session, &many).next.messages[0]
            .content
            .contains("3 calls")
    );
    assert_eq!(say(&mut session, "{").done, Some(Done::Abandoned));
    assert!(seen.borrow().is_empty());
}

#[test]
fn real_calls_are_answered_each_by_its_id() {
    let (mut session, _) = session(User::Asks);
    let call = |id: &str, name: &str, arguments: &str| ToolCall {
        id: id.into(),
        name: name.into(),
        arguments_json: arguments.into(),
    };
    let mut reply = Message::new(Role::Assistant, "");
    reply.tool_calls = vec![call("a", "set", "{}"), call("b", "gone", "{}")];
    let finish = Finish::Stop;
    let step = session.act(Action { reply, finish }).unwrap();
    let ids: Vec<_> = step.next.messages.iter().map(|m| &m.tool_call_id).collect();
    assert_eq!(ids, [&Some("a".to_owned()), &Some("b".to_owned())]);
    assert_eq!(step.next.messages[0].content, "did set");
    let mut reply = Message::new(Role::Assistant, "");
    reply.tool_calls = vec![call("c", "set", "{")];
    let step = session.act(Action { reply, finish }).unwrap();
    assert!(step.next.messages[0].content.starts_with("Error: "));
}

#[test]
fn a_call_again_is_repeated_until_the_user_spoke_and_long_arguments_stay_here() {
    let (mut session, seen) = session(User::Asks);
    say(&mut session, SET);
    assert_eq!(say(&mut session, SET).next.evidence("repeated"), Some(1.0));
    say(&mut session, "Done.");
    assert_eq!(say(&mut session, SET).next.evidence("repeated"), Some(0.0));
    let long = json!({"name": "set", "arguments": {"a": "x".repeat(5_000)}}).to_string();
    let next = say(&mut session, &long).next;
    assert!(next.messages[0].content.contains("too long"));
    assert_eq!(seen.borrow().len(), 4);
}
