//! The plugin as a whole, with a config.

use sdk::{Episode, config::Value, native};

use super::*;

/// The defaults of the manifest, which the host gives, with a few keys set otherwise.
fn configure(other: &[(&str, Value)]) {
    let texts = |list: &[&str]| Value::Texts(list.iter().map(|text| (*text).to_owned()).collect());
    let defaults = [
        ("families", texts(&[])),
        ("difficulty", Value::Integer(1)),
        ("tasks-per-family", Value::Integer(40)),
        ("held-out-tasks", Value::Integer(4)),
        ("style", Value::Text("plain".into())),
        ("tools-in", Value::Text("message".into())),
        ("max-turns", Value::Integer(12)),
        ("max-calls", Value::Integer(16)),
        ("calls-per-reply", Value::Integer(4)),
        ("patience", Value::Integer(3)),
        ("examples", Value::Integer(0)),
    ];
    for (key, value) in defaults.iter().chain(other) {
        native::set_config(key, value.clone());
    }
}

#[test]
fn the_card_lists_the_tools_of_the_chosen_families_where_the_config_wants_it() {
    configure(&[]);
    let card = Plugin::describe();
    assert_eq!((card.tools.len(), card.action), (0, ActionKind::Text));
    let families = Value::Texts(vec!["calendar-book".into(), "home".into()]);
    configure(&[
        ("tools-in", Value::Text("card".into())),
        ("families", families),
    ]);
    let card = Plugin::describe();
    assert_eq!((card.tools.len(), card.action), (9, ActionKind::ToolCalls));
    for tool in &card.tools {
        let schema: serde_json::Value = serde_json::from_str(&tool.parameters_json_schema).unwrap();
        assert_eq!(schema["type"], "object", "{}", tool.name);
    }
    let mut episode = Plugin::start("home-set/1/1".into(), 1).unwrap();
    assert!(
        !episode.observe().unwrap().messages[0]
            .content
            .contains("tools")
    );
}

#[test]
fn the_config_reaches_tasks_and_episodes() {
    configure(&[
        ("tasks-per-family", Value::Integer(3)),
        ("difficulty", Value::Integer(2)),
    ]);
    let count = Plugin::tasks(Split::Train).unwrap().len();
    assert_eq!(count, families::ALL.len() * 2 * 3);
    configure(&[
        ("max-turns", Value::Integer(1)),
        ("style", Value::Text("varied".into())),
    ]);
    let id = Plugin::tasks(Split::HeldOut).unwrap()[0].clone();
    let mut episode = Plugin::start(id, 1).unwrap();
    let action = sdk::Action {
        reply: Message::new(sdk::Role::Assistant, "{}"),
        finish: sdk::Finish::Stop,
    };
    assert_eq!(
        episode.act(action).unwrap().done,
        Some(sdk::Done::Truncated)
    );
    let snapshot = episode.snapshot().unwrap();
    assert!(Plugin::restore(snapshot).is_ok());
    configure(&[("style", Value::Text("loud".into()))]);
    assert!(matches!(
        Plugin::start("home-set/1/1".into(), 1),
        Err(Fault::InvalidConfig(_))
    ));
}

#[test]
fn the_manifest_names_every_key_that_is_read() {
    let manifest = include_str!("../plugin.toml");
    for key in [
        "families",
        "difficulty",
        "tasks-per-family",
        "held-out-tasks",
        "style",
        "tools-in",
        "max-turns",
        "max-calls",
        "calls-per-reply",
        "patience",
        "examples",
    ] {
        assert!(manifest.contains(&format!("\nname = \"{key}\"\n")), "{key}");
    }
}
