//! Things to do, and things done.

use serde_json::json;

use super::words::{CHORES, LISTS};
use crate::{
    apis::{World, todo::Todo},
    draw::Draw,
    plan::Plan,
    schema::WEEKDAYS,
};

/// Four things to do; the first is what the task is about.
fn things(draw: &mut Draw) -> Vec<String> {
    let first = draw.noun(&CHORES);
    let others = draw.others(&CHORES, &[first], 3);
    let things = [first].into_iter().chain(others);
    things
        .map(|thing| format!("{thing} by {}", draw.pick(&WEEKDAYS)))
        .collect()
}

/// Lists with these things on them; their ids in the order given.
fn lists(draw: &mut Draw, lists: &[&str], texts: &[String]) -> (Todo, Vec<i32>) {
    let mut todo = Todo::new(lists);
    // Ids are not in the order of the texts, so that none can be guessed.
    let order = draw.shuffled((0..texts.len()).collect());
    let mut ids = vec![0; texts.len()];
    for place in order {
        let list = lists[place % lists.len()];
        ids[place] = todo.add(list, &texts[place], "");
    }
    (todo, ids)
}

/// `todo-add`.
pub(super) fn add(draw: &mut Draw, difficulty: u8) -> Plan {
    let things = things(draw);
    let (text, others) = (&things[0], &things[1..]);
    let names = draw.others(&LISTS, &[], 3);
    let (todo, _) = lists(draw, &names, others);
    let (list, other_list) = (names[0], names[1]);
    let plan = Plan::new(World::Todo(todo));
    if difficulty == 2 {
        let beside = &others[0];
        return plan
            .ask(draw.say([
                format!("Add \"{text}\" to the list that \"{beside}\" is on."),
                format!("\"{text}\" belongs on the same list as \"{beside}\". Add it there."),
            ]))
            .call("find_todo", json!({"text": beside}))
            .call("add_todo", json!({"list": list, "text": text}));
    }
    let mut arguments = json!({"list": list, "text": text});
    let urgent = draw.whole(0, 2) == 0;
    let how = if urgent {
        arguments["priority"] = "high".into();
        " with high priority"
    } else {
        ""
    };
    let plan = plan
        .ask(draw.say([
            format!("Add \"{text}\" to the list {list}{how}."),
            format!("Put \"{text}\" on my list {list}{how}."),
            format!("I have to \"{text}\". Write it on the list {list}{how}."),
        ]))
        .call("add_todo", arguments);
    if difficulty == 1 {
        return plan;
    }
    plan.ask(draw.say([
        format!("Sorry, that belongs on the list {other_list}. Move it."),
        format!("No, on the list {other_list}, please."),
    ]))
    .call(
        "move_todo",
        json!({"id": others.len() + 1, "list": other_list}),
    )
}

/// `todo-done`.
pub(super) fn done(draw: &mut Draw, difficulty: u8) -> Plan {
    let texts = things(draw);
    let text = &texts[0];
    let names = draw.others(&LISTS, &[], 2);
    let (todo, ids) = lists(draw, &names, &texts);
    let plan = Plan::new(World::Todo(todo));
    let id = ids[0];
    if difficulty == 1 {
        return plan
            .ask(draw.say([
                format!("Mark todo {id} (\"{text}\") as done."),
                format!("I have done todo {id}, \"{text}\"."),
            ]))
            .call("complete_todo", json!({"id": id}));
    }
    let plan = plan
        .ask(draw.say([
            format!("Mark \"{text}\" as done."),
            format!("\"{text}\" is done. Please say so in my todos."),
        ]))
        .call("find_todo", json!({"text": text}))
        .call("complete_todo", json!({"id": id}));
    if difficulty == 2 {
        return plan;
    }
    let other = &texts[1];
    plan.ask(draw.say([
        format!("And delete \"{other}\"."),
        format!("I do not have to \"{other}\" any more. Delete it."),
    ]))
    .call("find_todo", json!({"text": other}))
    .call("delete_todo", json!({"id": ids[1]}))
}
