//! Every abuse is contained, is named in its error, and leaves the host serving.

use std::time::{Duration, Instant};

use plugin::{GuestEnvironment, GuestJudge, GuestReward, PluginHost};
use rl::{
    Action, Answer, Environment, Hint, Judge, JudgedTurn, Message, RewardRule, Seed, VoteValue,
};

use crate::support::{faulty, host, load, next, turn, vote, words};

/// An honest guest of the same host still answers.
fn still_serves(host: &PluginHost) {
    let honest = GuestReward::new(&load(host, bundled::BINARY_REWARD, "").unwrap()).unwrap();
    let verdict = honest.verdict(&[vote(Some(VoteValue::Positive))]).unwrap();
    assert_eq!(
        verdict.map(|verdict| verdict.value),
        Some(VoteValue::Positive)
    );
}

fn reward_says(abuse: &str, size: i64, expected: &[&str]) {
    let host = host();
    let rule = GuestReward::new(&faulty(&host, "reward-plugin", abuse, size)).unwrap();
    let started = Instant::now();
    let said = words(rule.turn_rewards(&[JudgedTurn::default(); 2], None));
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "{abuse} held the host"
    );
    for part in ["faulty", "turn-rewards"].iter().chain(expected) {
        assert!(
            said.contains(part),
            "{abuse}: `{said}` does not name {part}"
        );
    }
    // The next call meets a fresh instance, and fails in the same way.
    let again = words(rule.turn_rewards(&[JudgedTurn::default(); 2], None));
    assert_eq!(
        said.split("; its last").next(),
        again.split("; its last").next(),
        "{abuse}"
    );
    still_serves(&host);
}

#[test]
fn a_guest_that_spins_runs_out_of_fuel() {
    reward_says("spin", 0, &["stopped", "fuel: 50000000 of 50000000"]);
}

#[test]
fn a_guest_that_panics_is_a_trap_that_shows_the_panic() {
    reward_says(
        "trap",
        0,
        &["broke", "unreachable", "the guest broke on purpose"],
    );
}

/// A lower bound, which no busy machine can break: 64 endings are free, and each one more has its price of 5 ms.
#[test]
fn a_guest_that_breaks_again_and_again_waits_and_nobody_waits_with_it() {
    let host = host();
    let rule = GuestReward::new(&faulty(&host, "reward-plugin", "trap", 0)).unwrap();
    let started = Instant::now();
    for _ in 0..104 {
        words(rule.verdict(&[]));
    }
    let elapsed = started.elapsed();
    assert!(elapsed.as_millis() >= 150, "{elapsed:?}");
    still_serves(&host);
}

#[test]
fn a_guest_that_hoards_memory_is_stopped_at_its_limit() {
    reward_says("hoard", 0, &["stopped", "memory (bytes)", "of 16777216"]);
}

#[test]
fn a_guest_that_recurses_is_stopped_by_its_stack() {
    reward_says("recurse", 1, &["stopped", "stack (bytes)"]);
}

#[test]
fn a_guest_that_says_no_is_a_fault_and_keeps_its_instance() {
    reward_says("fault", 0, &["said no", "the guest says no"]);
}

#[test]
fn a_fault_of_a_megabyte_is_cut() {
    let host = host();
    let rule = GuestReward::new(&faulty(&host, "reward-plugin", "long-fault", 1 << 20)).unwrap();
    assert!(words(rule.verdict(&[])).len() < 2_300);
}

#[test]
fn text_that_is_no_text_is_refused_before_the_host_reads_it() {
    reward_says("invalid-utf8", 0, &["broke", "utf-8"]);
}

#[test]
fn numbers_that_the_contract_rules_out_are_refused() {
    reward_says("nan", 0, &["NaN, which is not finite"]);
    reward_says("infinite", 0, &["inf, which is not finite"]);
    reward_says(
        "out-of-range",
        0,
        &["1000000000, which is not in [-100, 100]"],
    );
    reward_says("negative", 0, &["weight -1, which is not in [0, 100]"]);
    reward_says("too-short", 0, &["1 rewards where 2 are due"]);
    reward_says("too-long", 0, &["3 rewards where 2 are due"]);
}

#[test]
fn an_answer_of_millions_of_entries_is_stopped_before_the_host_holds_it() {
    reward_says(
        "flood",
        200_000,
        &["stopped", "output (bytes)", "of 4194304"],
    );
}

#[test]
fn advantages_of_another_shape_are_refused() {
    let host = host();
    let rule = |abuse| GuestReward::new(&faulty(&host, "reward-plugin", abuse, 0)).unwrap();
    let group = [vec![Some(1.0), None], vec![Some(-1.0)]];
    let said = words(rule("none").advantages(&group));
    assert!(
        said.contains("an advantage for a turn that has no reward"),
        "{said}"
    );
    let said = words(rule("too-long").advantages(&group));
    assert!(said.contains("3 trajectories where 2 are due"), "{said}");
    let said = words(rule("nan").advantages(&[vec![Some(1.0)]]));
    assert!(said.contains("NaN"), "{said}");
}

#[test]
fn a_flood_of_log_lines_is_dropped_and_one_of_host_calls_is_stopped() {
    let host = host();
    let rule = |size| GuestReward::new(&faulty(&host, "reward-plugin", "log", size)).unwrap();
    assert_eq!(
        rule(1_000)
            .turn_rewards(&[JudgedTurn::default()], None)
            .map(|rewards| rewards.len()),
        Ok(1)
    );
    let said = words(rule(20_000).turn_rewards(&[JudgedTurn::default()], None));
    assert!(said.contains("host calls: 10001 of 10000"), "{said}");
    let said = words(
        GuestReward::new(&faulty(&host, "reward-plugin", "long-log", 5 << 20))
            .unwrap()
            .verdict(&[]),
    );
    assert!(said.contains("output (bytes)"), "{said}");
    still_serves(&host);
}

#[test]
fn metrics_that_are_not_finite_or_too_many_are_dropped_and_counted() {
    let host = host();
    let plugin = faulty(&host, "reward-plugin", "metric", 1_000);
    GuestReward::new(&plugin)
        .unwrap()
        .turn_rewards(&[JudgedTurn::default()], None)
        .unwrap();
    let metrics = plugin.metrics();
    assert_eq!(metrics.len(), 1);
    assert_eq!(
        (metrics[0].0.as_str(), metrics[0].1.count),
        ("dropped", 1_000)
    );
}

#[test]
fn an_environment_that_spins_meets_its_deadline() {
    let host = host();
    let environment = GuestEnvironment::new(
        &faulty(&host, "environment-plugin", "spin", 0),
        Seed::new(1),
    )
    .unwrap();
    let started = Instant::now();
    let said = words(environment.tasks("train"));
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "the deadline of 100 ms did not hold"
    );
    assert!(
        said.contains("faulty") && said.contains("tasks") && said.contains("time (ms)"),
        "{said}"
    );
    assert!(environment.start(&"0".into(), Seed::new(1)).is_err());
    still_serves(&host);
}

#[test]
fn a_reply_of_a_hundred_megabytes_is_stopped() {
    let host = host();
    let plugin = faulty(&host, "environment-plugin", "flood", 5 << 20);
    let environment = GuestEnvironment::new(&plugin, Seed::new(1)).unwrap();
    let said = words(environment.next_state(&turn("Hi", "Hello"), &[Message::user("more")]));
    assert!(said.contains("output (bytes)"), "{said}");
    // Larger than its memory: the memory limit speaks first.
    let plugin = faulty(&host, "environment-plugin", "flood", 100 << 20);
    let environment = GuestEnvironment::new(&plugin, Seed::new(1)).unwrap();
    let said = words(environment.next_state(&turn("Hi", "Hello"), &[Message::user("more")]));
    assert!(said.contains("memory (bytes)"), "{said}");
    still_serves(&host);
}

#[test]
fn an_episode_that_breaks_ends_alone() {
    let host = host();
    let plugin = faulty(&host, "environment-plugin", "trap", 0);
    let environment = GuestEnvironment::new(&plugin, Seed::new(1)).unwrap();
    let mut broken = environment.start(&"lazy".into(), Seed::new(1)).unwrap();
    let mut other = environment.start(&"lazy".into(), Seed::new(2)).unwrap();
    let action = Action {
        message: Message::assistant("Hi"),
        truncated: false,
    };
    assert!(words(broken.act(&action)).contains("broke"));
    assert!(words(broken.act(&action)).contains("has ended"));
    assert_eq!(other.observe().unwrap().messages.len(), 1);
    still_serves(&host);
}

#[test]
fn an_outcome_out_of_range_is_refused() {
    let host = host();
    for abuse in ["nan", "out-of-range", "negative"] {
        let plugin = faulty(&host, "environment-plugin", abuse, 0);
        let environment = GuestEnvironment::new(&plugin, Seed::new(1)).unwrap();
        let mut episode = environment.start(&"lazy".into(), Seed::new(1)).unwrap();
        assert!(words(episode.outcome()).contains("the score"), "{abuse}");
    }
}

#[test]
fn a_judge_that_repeats_a_choice_scores_nan_or_rewrites_the_request_is_refused() {
    let host = host();
    let judge = |abuse| GuestJudge::new(&faulty(&host, "judge-plugin", abuse, 0)).unwrap();
    let (turn, next) = (turn("Hi", "Hello"), next("Thanks"));
    let said = words(judge("none").evaluate(&turn, &next, Seed::new(1)));
    assert!(said.contains("2 choices"), "{said}");
    let answer = Answer {
        text: "yes".into(),
        choices: Vec::new(),
        finish: rl::FinishReason::Stop,
    };
    let said = words(judge("nan").read_vote(&turn, &next, &answer));
    assert!(said.contains("a score NaN"), "{said}");
    let said = words(judge("none").place_hint(
        &turn.messages,
        &Hint {
            text: "Be brief, please.".into(),
        },
    ));
    assert!(said.contains("0 messages where 1 are due"), "{said}");
}

#[test]
fn random_numbers_and_the_clock_replay() {
    let host = host();
    let said = |seed| {
        let plugin = faulty(&host, "environment-plugin", "random", 0);
        let environment = GuestEnvironment::new(&plugin, Seed::new(seed)).unwrap();
        let mut episode = environment.start(&"lazy".into(), Seed::new(seed)).unwrap();
        let action = Action {
            message: Message::assistant("Hi"),
            truncated: false,
        };
        episode.act(&action).unwrap();
        plugin.metrics()
    };
    let (first, again, other) = (said(1), said(1), said(2));
    assert_eq!(first, again);
    assert_ne!(first, other);
    assert_eq!(
        first
            .iter()
            .map(|(name, _)| name.as_str())
            .collect::<Vec<_>>(),
        ["bits", "now-ms"]
    );
}
