//! The shipped guests behind their seams run the suites that every implementation runs.

use bundled::{BINARY_REWARD, COMBINED_REWARD, CONVERSATION, REACTION_JUDGE};
use plugin::{GuestEnvironment, GuestJudge, GuestReward};
use rl::Seed;
use rl::seam::conformance;

use crate::support::{host, load};

#[test]
fn every_persona_of_the_conversation_conforms() {
    let plain = ["brief", "warm", "metric", "student", "ta", "teacher"];
    let plain = plain.map(|persona| format!("persona = '{persona}'"));
    let changing = ["drift", "switch"]
        .map(|change| format!("persona = 'student'\nchange = '{change}'\nchange-to = 'ta'"));
    for section in plain.iter().chain(&changing) {
        let plugin = load(&host(), CONVERSATION, section).unwrap();
        let environment = GuestEnvironment::new(&plugin, Seed::new(3)).unwrap();
        for split in ["train", "held-out"] {
            conformance::environment(&environment, split).unwrap();
        }
    }
}

#[test]
fn the_reaction_judge_conforms_in_every_mode() {
    for mode in ["choose", "quote", "write", "off"] {
        let plugin = load(&host(), REACTION_JUDGE, &format!("hint-mode = '{mode}'")).unwrap();
        conformance::judge(&GuestJudge::new(&plugin).unwrap()).unwrap();
    }
}

#[test]
fn both_reward_rules_conform() {
    for guest in [BINARY_REWARD, COMBINED_REWARD] {
        let plugin = load(&host(), guest, "").unwrap();
        conformance::reward_rule(&GuestReward::new(&plugin).unwrap()).unwrap();
    }
}
