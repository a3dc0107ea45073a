//! Episodes as a list, and one turn by turn: what the policy saw, what it did, what came next, and what was made of it.

use std::fmt::Write as _;

use rl::{Message, Verdict};

use super::super::response::{EpisodeRow, Told, ToldTurn};
use super::count;
use crate::transcript::{Cut, ended, field, message, numbers, outcome};
use crate::visible;

pub(super) fn list(episodes: &[EpisodeRow]) -> String {
    if episodes.is_empty() {
        return "no episode yet: `nextstate rollout` plays them, and `nextstate episode SESSION` tells a conversation\n"
            .to_owned();
    }
    let id = episodes.iter().map(|one| one.id.chars().count()).max();
    let id = id.unwrap_or_default();
    let mut out = format!("{:<id$}  outcome  turns  ended       task\n", "episode");
    for one in episodes {
        let outcome = one.outcome.as_ref();
        let outcome = outcome.map_or_else(|| "–".to_owned(), |o| format!("{:.2}", o.score));
        let _ = writeln!(
            out,
            "{:<id$}  {outcome:>7}  {:>5}  {:<10}  {}",
            visible::word(&one.id),
            one.turns,
            ended(one.done),
            visible::word(&one.task)
        );
    }
    out
}

/// An episode or a conversation, turn by turn.
pub fn page(told: &Told, cut: Cut) -> String {
    let mut out = String::new();
    match &told.episode {
        Some(episode) => {
            let EpisodeRow {
                id,
                environment,
                task,
                ..
            } = episode;
            let head = format!("episode {id} · {environment} · task {task}");
            let _ = writeln!(out, "{}", visible::word(&head));
            let group = told.group.as_ref();
            let group = group.map_or_else(String::new, |group| format!(" · group {group}"));
            let _ = writeln!(
                out,
                "{} · {} · {}{}",
                outcome(episode.outcome.as_ref()),
                ended(episode.done),
                count(episode.turns, "turn"),
                visible::word(&group)
            );
        }
        None => {
            let whose = told.turns.first().map(|turn| &turn.sample);
            let whose = whose.map_or_else(String::new, |sample| {
                format!(" · tenant {} · user {}", sample.tenant, sample.user)
            });
            let head = format!("session {}{whose}", told.session);
            let _ = writeln!(out, "{}", visible::word(&head));
        }
    }
    let mut known: &[Message] = &[];
    for (at, turn) in told.turns.iter().enumerate() {
        out.push('\n');
        // What came back is what the next turn is shown: it is not said twice.
        if turn.forked {
            out.push_str("the conversation went on from another past:\n");
        }
        if turn.seen != known {
            for one in &turn.seen {
                message(&mut out, one.role.as_str(), one, cut);
            }
            if !turn.seen.is_empty() {
                out.push('\n');
            }
        }
        known = turn.next.as_ref().map_or(&[], |next| &next.messages);
        self::one(&mut out, at + 1, turn, cut, told.episode.is_some());
    }
    out
}

fn one(out: &mut String, number: usize, turn: &ToldTurn, cut: Cut, is_hosted: bool) {
    let sample = &turn.sample;
    let cut_off = if turn.cut { ", cut off" } else { "" };
    let tokens = count(turn.tokens, "token");
    let _ = writeln!(
        out,
        "turn {number} · v{} · {tokens}{cut_off} · {}",
        sample.version,
        visible::word(&sample.turn)
    );
    let Some(reply) = &turn.reply else {
        field(out, "reply", "its text is erased", cut);
        return;
    };
    message(out, "reply", reply, cut);
    if let Some(next) = &turn.next {
        let text = match next.text.trim() {
            "" => "(nothing was said)",
            _ => &next.text,
        };
        field(out, "next", text, cut);
        if !next.evidence.is_empty() {
            field(out, "evidence", &numbers(&next.evidence), cut);
        }
    }
    field(out, "verdict", &verdict(turn), cut);
    if let Some(feedback) = &sample.feedback {
        field(out, "feedback", feedback, cut);
    }
    for hint in &sample.hints {
        field(out, "hint", hint, cut);
    }
    for note in &turn.notes {
        field(out, "note", note, cut);
    }
    if let Some(why) = turn.not_trainable.filter(|_| turn.trained.is_none()) {
        let why = match why {
            // Not a title or a heartbeat, here.
            rl::NotTrainable::Side if is_hosted => "a turn of an exam: served, never trained",
            other => other.explain(),
        };
        field(out, "untrained", why, cut);
    }
}

/// What was decided and what it was worth, in one line.
fn verdict(turn: &ToldTurn) -> String {
    let sample = &turn.sample;
    let mut parts = vec![sample.verdict.map_or_else(
        || "none".to_owned(),
        |Verdict { value, by }| format!("{value:?} by {by:?}").to_lowercase(),
    )];
    let votes = sample.votes;
    let counts = [
        (votes.positive, "for"),
        (votes.negative, "against"),
        (votes.ambiguous, "neither"),
        (votes.absent, "absent"),
    ];
    let counts: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if !counts.is_empty() {
        parts.push(format!("votes {}", counts.join(", ")));
    }
    parts.extend(sample.reward.map(|reward| format!("reward {reward:+.2}")));
    parts.extend(turn.advantage.map(|worth| format!("advantage {worth:+.2}")));
    parts.extend(
        turn.trained
            .map(|version| format!("trained into v{version}")),
    );
    parts.join(" · ")
}

#[cfg(test)]
mod tests {
    use rl::{NextState, Role, ToolCall};

    use super::super::super::response::Sample;
    use super::*;

    fn turn(seen: Vec<Message>, reply: Message, next: NextState) -> ToldTurn {
        ToldTurn {
            sample: Sample {
                turn: "turn-1".into(),
                ..Sample::default()
            },
            seen,
            forked: false,
            reply: Some(reply),
            cut: false,
            tokens: 1,
            next: Some(next),
            advantage: None,
            trained: None,
            not_trainable: None,
            notes: Vec::new(),
        }
    }

    fn told(turns: Vec<ToldTurn>) -> Told {
        Told {
            session: "s".into(),
            episode: None,
            group: None,
            turns,
        }
    }

    #[test]
    fn a_text_that_would_steer_the_terminal_or_flood_it_is_shown_harmless_and_cut() {
        let flood: String = (0..1_000).map(|at| format!("line {at}\n")).collect();
        let evil = "\u{1b}]0;owned\u{7}\u{202e}now\r\u{9b}2J";
        let mut reply = Message::assistant(evil);
        reply.reasoning = Some(evil.into());
        reply.tool_calls.push(ToolCall {
            id: String::new(),
            name: evil.into(),
            arguments: "x".repeat(10_000),
        });
        let mut next = NextState::of(vec![Message::new(Role::Tool, flood)]);
        next.evidence.push((evil.into(), 1.0));
        let mut turn = turn(vec![Message::user(evil)], reply, next);
        turn.sample.hints.push(evil.into());
        turn.sample.user = evil.into();
        turn.notes.push(evil.into());
        let whole = super::page(&told(Vec::new()), Cut::NOTHING);
        assert_eq!(whole, "session s\n");
        let page = page(&told(vec![turn]), Cut::default());
        let odd: Vec<char> = page
            .chars()
            .filter(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}')
            .collect();
        assert!(odd.is_empty(), "{odd:?} in {page}");
        assert!(
            page.contains("… 988 more lines") && page.len() < 4_000,
            "{page}"
        );
    }

    #[test]
    fn what_came_back_is_not_said_again_as_what_the_next_turn_saw() {
        let reaction = vec![Message::user("Shorter, please.")];
        let first = turn(
            vec![Message::system("Be kind."), Message::user("Hello?")],
            Message::assistant("Long."),
            NextState::of(reaction.clone()),
        );
        let second = turn(
            reaction,
            Message::assistant("Hi."),
            NextState::of(Vec::new()),
        );
        let page = page(&told(vec![first, second]), Cut::default());
        assert_eq!(page.matches("Shorter, please.").count(), 1, "{page}");
        let order = [
            "Be kind.", "Hello?", "turn 1", "Long.", "Shorter", "turn 2", "Hi.",
        ];
        let places = order.map(|text| page.find(text).unwrap());
        assert!(places.is_sorted(), "{page}");
        assert!(page.contains("(nothing was said)"), "{page}");
    }
}
