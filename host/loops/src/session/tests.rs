//! The behaviour list of sessions: each case is a conversation as clients really send it.

use rl::{FinishReason, PolicyVersion, Sampling, ToolCall};

use super::*;
use crate::history::strip;

/// `u:` user, `a:` assistant, `s:` system, `t:` tool; one message a line.
fn messages(text: &str) -> Vec<Message> {
    text.lines()
        .map(|line| {
            let (role, content) = line.trim().split_once(':').unwrap();
            let role = match role {
                "u" => Role::User,
                "a" => Role::Assistant,
                "s" => Role::System,
                "t" => Role::Tool,
                other => panic!("no role {other}"),
            };
            Message::new(role, content)
        })
        .collect()
}

fn request(tenant: &str, session: Option<&str>, text: &str) -> TurnRequest {
    TurnRequest {
        tenant: tenant.into(),
        key: "key".into(),
        adapter: Some("main".into()),
        session: session.map(SessionId::from),
        user: None,
        kind: None,
        session_done: false,
        messages: messages(text),
        tools: Vec::new(),
    }
}

struct World {
    sessions: Sessions,
    count: usize,
    now: Instant,
}

impl World {
    fn new() -> Self {
        Self {
            sessions: Sessions::default(),
            count: 0,
            now: Instant::now(),
        }
    }

    /// Serves a request; closes what it continues and orphans. The turn's id is `t1`, `t2`, …
    fn serve(&mut self, request: &TurnRequest, reply: Message) -> Found {
        self.count += 1;
        let id = TurnId::new(format!("t{}", self.count));
        let found = self.sessions.begin(request, &id, self.now);
        let closed = found
            .continued
            .iter()
            .map(|c| &c.turn)
            .chain(&found.orphaned);
        for turn in closed {
            self.sessions.closed(&found.key, turn);
        }
        let turn = Turn {
            id,
            tenant: request.tenant.clone(),
            session: found.key.session.clone(),
            user: None,
            parent: found.parent.clone(),
            kind: TurnKind::Main,
            adapter: request.adapter.clone(),
            version: PolicyVersion::BASE,
            adapter_digest: String::new(),
            messages: request.messages.clone(),
            tools: Vec::new(),
            prompt: vec![1],
            response: vec![2],
            logprobs: vec![-0.5],
            sampling: Sampling::default(),
            reply,
            finish: FinishReason::Stop,
        };
        self.sessions
            .served(&request.key, found.derived, &turn, true, self.now);
        found
    }

    fn say(&mut self, text: &str, reply: &str) -> String {
        let found = self.serve(
            &request("tenant", Some("s"), text),
            Message::assistant(reply),
        );
        summary(&found)
    }

    fn say_without_id(&mut self, text: &str, reply: &str) -> Found {
        self.serve(&request("tenant", None, text), Message::assistant(reply))
    }
}

/// `t1<-"text" | orphaned t2 | parent t1`, what there is of it.
fn summary(found: &Found) -> String {
    let mut parts = Vec::new();
    for continued in &found.continued {
        let texts: Vec<_> = continued
            .messages
            .iter()
            .map(|m| m.content.as_str())
            .collect();
        parts.push(format!("{}<-{}", continued.turn, texts.join("+")));
    }
    parts.extend(found.orphaned.iter().map(|turn| format!("orphaned {turn}")));
    parts.extend(found.parent.iter().map(|turn| format!("parent {turn}")));
    parts.join(" | ")
}

/// Each step is a request's messages, the reply, and what the request brings to earlier turns.
fn check(steps: &[(&str, &str, &str)]) {
    let mut world = World::new();
    for (index, (text, reply, expected)) in steps.iter().enumerate() {
        assert_eq!(world.say(text, reply), *expected, "step {}", index + 1);
    }
}

#[test]
fn a_conversation_that_goes_on_brings_each_turn_the_users_next_message() {
    check(&[
        ("u:hi", "hello", ""),
        (
            "u:hi\na:hello\nu:thanks",
            "welcome",
            "t1<-thanks | parent t1",
        ),
        (
            "u:hi\na:hello\nu:thanks\na:welcome\nu:bye",
            "bye",
            "t2<-bye | parent t2",
        ),
    ]);
}

#[test]
fn all_results_of_parallel_tool_calls_are_the_next_state() {
    check(&[
        ("u:do it", "calling", ""),
        (
            "u:do it\na:calling\nt:first\nt:second\nt:third",
            "done",
            "t1<-first+second+third | parent t1",
        ),
        (
            "u:do it\na:calling\nt:first\nt:second\nt:third\na:done\nu:good",
            "ok",
            "t2<-good | parent t2",
        ),
    ]);
}

#[test]
fn an_edited_message_starts_a_branch_and_the_turn_that_answered_it_has_no_next_state() {
    check(&[
        ("u:hi", "hello", ""),
        (
            "u:hi\na:hello\nu:draft",
            "about the draft",
            "t1<-draft | parent t1",
        ),
        ("u:hi\na:hello\nu:edited", "about the edit", "parent t1"),
        (
            "u:hi\na:hello\nu:edited\na:about the edit\nu:good",
            "ok",
            "t3<-good | orphaned t2 | parent t3",
        ),
    ]);
}

#[test]
fn of_a_retried_reply_only_the_one_that_the_user_went_on_with_is_reacted_to() {
    check(&[
        ("u:hi", "hello", ""),
        ("u:hi\na:hello\nu:more", "first try", "t1<-more | parent t1"),
        ("u:hi\na:hello\nu:more", "second try", "parent t1"),
        (
            "u:hi\na:hello\nu:more\na:second try\nu:better",
            "ok",
            "t3<-better | orphaned t2 | parent t3",
        ),
    ]);
}

#[test]
fn a_branch_can_be_gone_back_to_before_the_other_was_continued() {
    check(&[
        ("u:hi", "hello", ""),
        ("u:hi\na:hello\nu:one", "r1", "t1<-one | parent t1"),
        ("u:hi\na:hello\nu:two", "r2", "parent t1"),
        (
            "u:hi\na:hello\nu:one\na:r1\nu:back",
            "r3",
            "t2<-back | orphaned t3 | parent t2",
        ),
    ]);
}

#[test]
fn a_compacted_conversation_starts_a_branch() {
    check(&[
        ("u:a\na:b\nu:long story", "reply", ""),
        ("u:summary of all that\na:reply\nu:go on", "next", ""),
    ]);
    let mut world = World::new();
    world.say("u:long", "reply");
    world.say("u:summary", "next");
    let key = SessionKey {
        tenant: "tenant".into(),
        session: "s".into(),
    };
    let ended = world.sessions.end(&key);
    assert_eq!(
        ended,
        [
            (TurnId::from("t1"), NotTrainable::Orphaned),
            (TurnId::from("t2"), NotTrainable::NoNextState)
        ]
    );
    assert!(world.sessions.is_empty());
}

#[test]
fn a_history_whose_oldest_messages_were_trimmed_still_continues() {
    check(&[
        ("u:one\na:x\nu:two", "reply", ""),
        ("u:two\na:reply\nu:three", "next", "t1<-three | parent t1"),
    ]);
}

#[test]
fn a_history_that_begins_with_the_reply_itself_proves_nothing() {
    check(&[("u:one", "ok", ""), ("a:ok\nu:two", "ok", "")]);
}

#[test]
fn a_system_prompt_that_is_rendered_anew_does_not_fork_the_conversation() {
    check(&[
        ("s:It is 10:00.\nu:hi", "hello", ""),
        (
            "s:It is 10:01.\nu:hi\na:hello\nu:thanks",
            "welcome",
            "t1<-thanks | parent t1",
        ),
    ]);
}

#[test]
fn a_synthetic_trailing_message_is_neither_history_nor_next_state() {
    let block = "<<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>> cwd=/ <<<END_OPENCLAW_INTERNAL_CONTEXT>>>";
    check(&[
        (&format!("u:hi\nu:{block}"), "hello", ""),
        (&format!("u:hi\na:hello\nu:{block}"), "again", "parent t1"),
        (
            &format!("u:hi\na:hello\nu:thanks {block}\nu:{block}"),
            "welcome",
            "t1<-thanks  | parent t1",
        ),
        (
            "u:hi\na:hello\nu:thanks\na:welcome\nu:bye",
            "bye",
            "t3<-bye | orphaned t2 | parent t3",
        ),
    ]);
}

#[test]
fn a_synthetic_block_without_an_end_goes_to_the_end_of_its_message() {
    assert_eq!(
        strip("keep <<<BEGIN_OPENCLAW_INTERNAL_CONTEXT>>> drop"),
        "keep "
    );
    assert_eq!(strip("no block"), "no block");
}

#[test]
fn the_same_reply_said_twice_is_told_apart_by_its_history() {
    check(&[
        ("u:run a", "Done.", ""),
        (
            "u:run a\na:Done.\nu:run b",
            "Done.",
            "t1<-run b | parent t1",
        ),
        (
            "u:run a\na:Done.\nu:run b\na:Done.\nu:thanks",
            "ok",
            "t2<-thanks | parent t2",
        ),
    ]);
}

#[test]
fn a_reply_inside_a_users_message_is_not_history() {
    check(&[("u:hi", "hello", ""), ("u:hi\nu:hello\nu:thanks", "?", "")]);
}

#[test]
fn tool_arguments_written_with_other_spaces_are_the_same_reply() {
    let mut world = World::new();
    let call = |arguments: &str| {
        let mut message = Message::assistant("");
        message.tool_calls = vec![ToolCall {
            id: "1".into(),
            name: "ls".into(),
            arguments: arguments.into(),
        }];
        message
    };
    world.serve(
        &request("tenant", Some("s"), "u:list"),
        call(r#"{"path": "/", "all": true}"#),
    );
    let mut next = request("tenant", Some("s"), "u:list");
    next.messages.push(call(r#"{"all":true,"path":"/"}"#));
    next.messages.push(Message::new(Role::Tool, "etc usr"));
    let found = world.serve(&next, Message::assistant("done"));
    assert_eq!(summary(&found), "t1<-etc usr | parent t1");
}

#[test]
fn two_tenants_with_the_same_session_id_and_words_are_never_merged() {
    let mut world = World::new();
    let first = world.serve(
        &request("one", Some("default"), "u:hi"),
        Message::assistant("hello"),
    );
    let history = "u:hi\na:hello\nu:bad";
    let other = world.serve(
        &request("two", Some("default"), history),
        Message::assistant("x"),
    );
    assert_ne!(first.key, other.key);
    assert_eq!(summary(&other), "");
}

#[test]
fn two_users_without_ids_who_begin_alike_are_two_sessions() {
    let mut world = World::new();
    let a = world.say_without_id("u:hi", "hello A");
    let b = world.say_without_id("u:hi", "hello B");
    assert_ne!(a.key.session, b.key.session);
    let b2 = world.say_without_id("u:hi\na:hello B\nu:bad", "sorry");
    assert_eq!((b2.key.session, b2.derived), (b.key.session, true));
    assert_eq!(b2.continued[0].turn, TurnId::from("t2"));
    let a2 = world.say_without_id("u:hi\na:hello A\nu:good", "glad");
    assert_eq!(a2.key.session, a.key.session);
    assert_eq!(a2.continued[0].turn, TurnId::from("t1"));
}

#[test]
fn without_ids_another_key_is_another_user() {
    let mut world = World::new();
    let a = world.say_without_id("u:hi", "hello");
    let mut request = request("tenant", None, "u:hi\na:hello\nu:bad");
    request.key = "another key".into();
    let b = world.serve(&request, Message::assistant("?"));
    assert_ne!(a.key.session, b.key.session);
    assert_eq!(summary(&b), "");
}

#[test]
fn an_idle_session_is_forgotten_and_a_busy_or_used_one_is_not() {
    let mut world = World::new();
    let key = |name: &str| SessionKey {
        tenant: "tenant".into(),
        session: name.into(),
    };
    for name in ["idle", "busy", "used"] {
        world.serve(
            &request("tenant", Some(name), "u:hi"),
            Message::assistant("hello"),
        );
    }
    world.now += Duration::from_secs(100);
    world.serve(
        &request("tenant", Some("used"), "u:hi"),
        Message::assistant("hello"),
    );
    let busy = HashSet::from([key("busy")]);
    let idle = Duration::from_secs(60);
    assert_eq!(
        world.sessions.expired(world.now, idle, 10, &busy),
        [key("idle")]
    );
    let surplus = world
        .sessions
        .expired(world.now, Duration::from_secs(1_000), 2, &busy);
    assert_eq!(
        surplus,
        [key("idle")],
        "the one that was idle longest makes room"
    );
    let ended = world.sessions.end(&key("idle"));
    assert_eq!(ended, [(TurnId::from("t1"), NotTrainable::NoNextState)]);
    assert_eq!(world.sessions.len(), 2);
}
