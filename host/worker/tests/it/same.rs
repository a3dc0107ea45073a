//! A guest in a worker is the guest in the host, by its suites and by its words.

use bundled::{
    BINARY_REWARD, Bundled, CONVERSATION, GRPO_REWARD, LENGTH_GUARDED_REWARD, REACTION_JUDGE,
    STEP_JUDGE, TOOL_CALL,
};
use plugin::{Capability, GuestEnvironment, GuestJudge, GuestReward, Plugin, PluginHost};
use rl::{
    Environment, Judge as _, JudgedTurn, Message, NextState, RewardRule as _, Seed,
    seam::conformance,
};
use worker::{SealedEnvironment, SealedJudge, SealedReward};

use crate::rig::{RUN, given, limits, reply, start, words};

fn in_the_host(guest: Bundled) -> Plugin {
    let host = PluginHost::new(limits()).unwrap();
    let section = toml::Table::new();
    host.load(guest.manifest, guest.component, &Capability::ALL, &section)
        .unwrap()
}

fn sealed(guest: Bundled) -> SealedEnvironment {
    SealedEnvironment::new(start(given(guest, ""))).unwrap()
}

/// All that an environment says in an episode with these replies.
fn played(environment: &dyn Environment) -> Vec<String> {
    let task = &environment.tasks("train").unwrap()[1];
    let mut episode = environment.start(task, Seed::new(7)).unwrap();
    let mut said = vec![
        format!("{:?}", environment.card()),
        format!("{:?}", episode.observe()),
    ];
    for text in [
        "Certainly. Here is a long answer.",
        "Yes.",
        "```tool\nnot json\n```",
    ] {
        said.push(format!("{:?}", episode.act(&reply(text))));
    }
    said.push(format!("{:?}", episode.outcome()));
    said.push(format!("{:?}", episode.snapshot()));
    said
}

#[test]
fn environments_conform_and_say_the_same() {
    for guest in [CONVERSATION, TOOL_CALL] {
        let apart = sealed(guest);
        conformance::environment(&apart, "train").unwrap();
        let here = GuestEnvironment::new(&in_the_host(guest), Seed::new(RUN)).unwrap();
        assert_eq!(played(&apart), played(&here), "{}", guest.name);
    }
}

#[test]
fn judges_conform_and_ask_the_same() {
    for guest in [REACTION_JUDGE, STEP_JUDGE] {
        let apart = SealedJudge::new(start(given(guest, ""))).unwrap();
        conformance::judge(&apart).unwrap();
        let here = GuestJudge::new(&in_the_host(guest)).unwrap();
        let turn = conformance::turn("How do I boil an egg?", "In water.");
        let next = NextState::of(vec![Message::user("No, shorter please.")]);
        let asked = apart.evaluate(&turn, &next, Seed::new(5)).unwrap();
        assert_eq!(asked, here.evaluate(&turn, &next, Seed::new(5)).unwrap());
        assert_eq!(apart.name(), here.name());
    }
}

#[test]
fn reward_rules_conform_and_pay_the_same() {
    for guest in [BINARY_REWARD, GRPO_REWARD, LENGTH_GUARDED_REWARD] {
        let apart = SealedReward::new(start(given(guest, ""))).unwrap();
        conformance::reward_rule(&apart).unwrap();
        let here = GuestReward::new(&in_the_host(guest)).unwrap();
        let turns = [JudgedTurn {
            process: Some(1.0),
            tokens: 40,
            ..JudgedTurn::default()
        }; 3];
        let paid = |rule: &dyn rl::RewardRule| rule.turn_rewards(&turns, Some(0.5)).unwrap();
        assert_eq!(paid(&apart), paid(&here), "{}", guest.name);
        assert_eq!(apart.sees(), here.sees());
    }
}

#[test]
fn another_kind_of_plugin_is_refused_by_name() {
    let error = SealedJudge::new(start(given(BINARY_REWARD, ""))).unwrap_err();
    let words = words(&error);
    assert!(
        words.contains("`reward-plugin`, and `judge-plugin` is wanted"),
        "{words}"
    );
}
