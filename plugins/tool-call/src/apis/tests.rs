//! What every API promises: named refusals, no change by a call that fails, one hash for one state.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::{
    draw::{Draw, Style},
    families,
    reader::Call,
    schema::Kind,
    task::Task,
};

/// The world of a family's first task.
fn world(family: &str, difficulty: u8) -> World {
    let id = format!("{family}/{difficulty}/1");
    let task = Task::read(&id).unwrap();
    (task.family.plan)(&mut Draw::new(&task, Style::Plain), difficulty).world
}

fn call(world: &mut World, name: &str, arguments: Value) -> Answer {
    let call = Call::new(name, arguments);
    world.call(&call.name, &call.arguments)
}

fn error(world: &mut World, name: &str, arguments: Value) -> String {
    let before = world.hash();
    let answer = call(world, name, arguments);
    assert!(answer.failed && !answer.changed && world.hash() == before);
    assert_eq!(answer.result["changed"], false);
    answer.result["error"].as_str().unwrap().to_owned()
}

#[test]
fn every_api_has_three_to_six_functions_with_names_of_their_own() {
    let mut names = BTreeSet::new();
    for (api, functions) in NAMES {
        assert!((3..=6).contains(&functions.len()), "{api}");
        assert!(functions.iter().any(|function| function.changes), "{api}");
        for function in functions {
            assert!(
                names.insert(function.name),
                "{} is there twice",
                function.name
            );
        }
        assert!(
            families::ALL.iter().any(|family| family.api == api),
            "{api} is not used"
        );
    }
    for family in families::ALL {
        let functions = NAMES
            .iter()
            .find(|(name, _)| *name == family.api)
            .unwrap()
            .1;
        assert_eq!(world(family.name, 1).functions(), functions);
    }
}

#[test]
fn a_call_of_no_tool_and_a_bad_argument_say_what_is_wrong() {
    let mut world = world("calendar-book", 1);
    assert_eq!(
        error(&mut world, "book", json!({})),
        "unknown-tool: there is no tool `book`; the tools are list_events, find_event, add_event, move_event, cancel_event"
    );
    assert!(error(&mut world, "add_event", json!({})).starts_with("missing-argument: `title`"));
    let long = "x".repeat(1_000);
    assert!(error(&mut world, &long, json!({})).len() < 200);
}

/// One refusal a line: the tool, its arguments, and how the error begins.
fn refuses(mut world: World, lines: &str) {
    for line in lines.lines() {
        let parts: Vec<_> = line.split(" | ").collect();
        let &[name, arguments, expected] = parts.as_slice() else {
            panic!("{line}");
        };
        let arguments = serde_json::from_str(arguments).unwrap();
        let error = error(&mut world, name, arguments);
        assert!(
            error.starts_with(&format!("precondition: {expected}")),
            "{line}: {error}"
        );
    }
}

#[test]
fn a_bank_and_a_calendar_name_their_preconditions() {
    let mut bank = bank::Bank::new(vec![("savings".into(), 100), ("joint".into(), 5)]);
    bank.bills.push(("gym".into(), "AC-1".into(), 30));
    refuses(
        World::Bank(bank),
        r#"get_balance | {"account": "saving"} | there is no account `saving`; there are savings, joint
transfer | {"from": "savings", "to": "joint", "amount": 101} | there are only 100 in savings
transfer | {"from": "savings", "to": "Savings", "amount": 1} | `from` and `to` are the same account
transfer | {"from": "AC-1", "to": "savings", "amount": 1} | there is no account `AC-1`
transfer | {"from": "savings", "to": "AC-2", "amount": 1} | there is no account `AC-2`
find_bill | {"name": "water"} | there is no bill `water`"#,
    );
    let mut calendar = calendar::Calendar::default();
    assert_eq!(calendar.add("Tea", "Monday", 9), 1);
    refuses(
        World::Calendar(calendar),
        r#"add_event | {"title": "Talk", "day": "Monday", "hour": 9} | Monday at 9 is taken by Tea
move_event | {"id": 1, "day": "Monday", "hour": 9} | Monday at 9 is taken by Tea
move_event | {"id": 2, "day": "Monday", "hour": 10} | there is no event 2
cancel_event | {"id": 2} | there is no event 2
find_event | {"title": "Dinner"} | there is no event `Dinner`"#,
    );
}

#[test]
fn contacts_and_files_name_their_preconditions() {
    let person = contacts::Person {
        name: "Anna".into(),
        number: "555-0001".into(),
        message: None,
    };
    refuses(
        World::Contacts(contacts::Contacts::new(vec![person])),
        r#"find_contact | {"name": "Ann"} | there is no contact `Ann`
read_message | {"name": "anna"} | there is no message from Anna
send_message | {"number": "Anna", "text": "Hi"} | `Anna` is no number; one is written like 555-0100
add_contact | {"name": "Anna", "number": "555-0002"} | Anna is there already, with 555-0001"#,
    );
    let files = [("notes/plan.txt".to_owned(), "tea".to_owned())].into();
    refuses(
        World::Files(files::Files { files }),
        r#"read_file | {"path": "plan.txt"} | there is no file `plan.txt`
read_file | {"path": "../plan.txt"} | `../plan.txt` is no path
write_file | {"path": "notes", "text": "x"} | `notes` is a folder
write_file | {"path": "/", "text": "x"} | `` is no path
write_file | {"path": "notes/plan.txt/a", "text": "x"} | `notes/plan.txt` is a file and no folder
move_file | {"path": "notes/plan.txt", "to": "/notes/plan.txt"} | `notes/plan.txt` is there already
list_files | {"folder": "note"} | there is no folder `note`"#,
    );
}

#[test]
fn a_home_a_shop_todos_and_units_name_their_preconditions() {
    let home = home::Home {
        rooms: vec![("hall".into(), 0, 20)],
        doors: vec![("back".into(), false)],
    };
    refuses(
        World::Home(home),
        r#"read_room | {"room": "attic"} | there is no room `attic`; there are hall
set_lock | {"door": "front", "locked": true} | there is no door `front`; there are back"#,
    );
    let product = shop::Product {
        id: "P1".into(),
        name: "red lamp".into(),
        price: 5,
        stock: 3,
    };
    refuses(
        World::Shop(shop::Shop::new(vec![product])),
        r#"search | {"word": "vase"} | no product's name has `vase` in it
get_product | {"product": "lamp"} | there is no product `lamp`; an id is like P12
set_in_cart | {"product": "p1", "count": 4} | there are only 3 of P1
place_order | {} | the cart is empty"#,
    );
    refuses(
        World::Todo(todo::Todo::new(&["home"])),
        r#"add_todo | {"list": "work", "text": "x"} | there is no list `work`; there are home
complete_todo | {"id": 1} | there is no todo 1
find_todo | {"text": "x"} | there is no todo `x`"#,
    );
    refuses(
        World::Units(units::Units::default()),
        r#"convert | {"value": 1, "from": "km", "to": "hours"} | km cannot be converted to hours
recall | {"name": "trip"} | nothing is saved as `trip`"#,
    );
}

#[test]
fn every_way_to_the_same_end_has_the_same_hash() {
    let start = World::Calendar(calendar::Calendar::default());
    let (mut moved, mut made_anew) = (start.clone(), start.clone());
    let tea = |title: &str, hour: i32| json!({"title": title, "day": "Sunday", "hour": hour});
    for world in [&mut moved, &mut made_anew] {
        assert_eq!(
            call(world, "add_event", tea("Tea", 9)).result,
            json!({"id": 1, "changed": true})
        );
    }
    call(
        &mut moved,
        "move_event",
        json!({"id": 1, "day": "Sunday", "hour": 12}),
    );
    call(&mut made_anew, "cancel_event", json!({"id": 1}));
    assert_eq!(made_anew.hash(), start.hash());
    call(&mut made_anew, "add_event", tea("tea.", 12));
    assert_eq!(moved.hash(), made_anew.hash());
    assert_ne!(moved.hash(), start.hash());
}

#[test]
fn coins_that_were_sent_and_sent_back_leave_a_trace_and_none_are_lost() {
    let mut world = World::Bank(bank::Bank::new(vec![("a".into(), 10), ("b".into(), 0)]));
    let before = world.hash();
    call(
        &mut world,
        "transfer",
        json!({"from": "a", "to": "b", "amount": 4}),
    );
    call(
        &mut world,
        "transfer",
        json!({"from": "b", "to": "a", "amount": 4}),
    );
    assert_ne!(world.hash(), before);
    let balance = |world: &mut World, account: &str| {
        call(world, "get_balance", json!({"account": account})).result
    };
    assert_eq!(
        balance(&mut world, "A"),
        json!({"account": "a", "balance": 10})
    );
    assert_eq!(
        balance(&mut world, "b"),
        json!({"account": "b", "balance": 0})
    );
}

#[test]
fn a_call_that_sets_what_is_set_changes_nothing_and_reading_says_nothing_about_it() {
    let mut world = World::Home(home::Home {
        rooms: vec![("hall".into(), 20, 20)],
        doors: Vec::new(),
    });
    let light = |level: i32| json!({"room": "the Hall", "level": level});
    assert_eq!(
        call(&mut world, "set_light", light(30)).result["changed"],
        true
    );
    assert_eq!(
        call(&mut world, "set_light", light(30)).result["changed"],
        false
    );
    assert_eq!(
        call(&mut world, "read_room", json!({"room": "hall"}))
            .result
            .get("changed"),
        None
    );
}

#[test]
fn numbers_are_written_without_needless_places() {
    let check = |value: f64, expected: &str| assert_eq!(number(value).to_string(), expected);
    check(12_000.0, "12000");
    check(-0.5, "-0.5");
    check(1.0 / 3.0, "0.333333");
    check(1e12, "1000000000000");
    check(0.0, "0");
    check(f64::NAN, "null");
}

/// Arguments for a function that are mostly of the right types.
fn arguments(function: &'static Function) -> impl Strategy<Value = Value> {
    let one = |kind: Kind| match kind {
        Kind::Text => prop_oneof![
            "savings|kitchen|Anna|P19|home|notes/plan.txt",
            any::<String>()
        ]
        .prop_map(Value::from)
        .boxed(),
        Kind::Whole(least, most) => (least - 1..=most + 1).prop_map(Value::from).boxed(),
        Kind::Number => any::<f64>().prop_map(Value::from).boxed(),
        Kind::Flag => any::<bool>().prop_map(Value::from).boxed(),
        Kind::Choice(_, options) => proptest::sample::select(options)
            .prop_map(Value::from)
            .boxed(),
    };
    let values: Vec<_> = function
        .parameters
        .iter()
        .map(|parameter| one(parameter.kind))
        .collect();
    values.prop_map(|values| {
        let names = function
            .parameters
            .iter()
            .map(|parameter| parameter.name.to_owned());
        Value::Object(names.zip(values).collect())
    })
}

fn any_call() -> impl Strategy<Value = (usize, &'static str, Value)> {
    let functions = NAMES
        .iter()
        .enumerate()
        .flat_map(|(api, (_, functions))| functions.iter().map(move |function| (api, function)));
    proptest::sample::select(functions.collect::<Vec<_>>()).prop_flat_map(|(api, function)| {
        arguments(function).prop_map(move |given| (api, function.name, given))
    })
}

proptest! {
    #[test]
    fn calls_never_panic_and_one_that_fails_or_only_reads_changes_nothing(
        calls in proptest::collection::vec(any_call(), 1..30),
        task in 0..families::ALL.len(),
    ) {
        let family = families::ALL[task];
        let mut world = world(family.name, 1);
        for (api, name, given) in calls {
            let before = world.hash();
            let function = NAMES[api].1.iter().find(|function| function.name == name).unwrap();
            let answer = call(&mut world, name, given);
            prop_assert_eq!(answer.changed, world.hash() != before);
            if answer.failed || !function.changes {
                prop_assert_eq!(world.hash(), before);
            }
            prop_assert_eq!(answer.known, NAMES[api].0 == family.api);
        }
    }
}
