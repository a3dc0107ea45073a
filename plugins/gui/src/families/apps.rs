//! Small applications: a shop's cart, an inbox, settings, a desk where values are copied, a list of things to do.

use serde_json::{Value, json};

use super::{
    forms::listed,
    words::{CITIES, KINDS, LETTERS, NAMES, SETTINGS, SURNAMES, THINGS, TOPICS},
};
use crate::draft::{Draft, Draw, Step, object};

/// A cart: things in, wrong things out, a voucher, and the order.
pub(super) fn cart(draw: &mut Draw, difficulty: u8) -> Draft {
    let things = draw.several(&THINGS, 4);
    let prices = draw.numbers(2, 30, 4);
    let products: Vec<_> = things
        .iter()
        .zip(prices)
        .map(|(name, price)| json!({"name": name, "price": price}))
        .collect();
    let mut order = draw.several(&things, 3);
    // At the third difficulty something wrong is in the cart already.
    let wrong = order.pop().filter(|_| difficulty == 3);
    order.truncate(if difficulty == 1 { 1 } else { 2 });
    let counts: Vec<_> = order
        .iter()
        .map(|_| {
            if difficulty == 1 {
                1
            } else {
                draw.between(1, 2)
            }
        })
        .collect();
    let voucher = if difficulty == 3 {
        draw.several(&LETTERS, 4).concat()
    } else {
        String::new()
    };
    let mut steps = Vec::new();
    let mut wants = Vec::new();
    for (name, count) in order.iter().zip(&counts) {
        steps.extend((0..*count).map(|_| Step::button(format!("Add {name}"))));
        wants.push(format!("{count} x {name}"));
    }
    let mut instruction = format!("Order {}", listed(&wants));
    if let Some(wrong) = wrong {
        steps.push(Step::button(format!("Remove one {wrong}")));
        steps.extend([
            Step::fill("Voucher", voucher.clone()),
            Step::button("Apply"),
        ]);
        instruction += &[" and nothing else, with the voucher \"", &voucher, "\""].concat();
    }
    steps.push(Step::button("Check out"));
    let count = |name: &str| {
        order
            .iter()
            .position(|one| *one == name)
            .map_or(0, |at| counts[at])
    };
    Draft::new(
        format!("{instruction}."),
        json!({
            "title": format!("{} shop", draw.brand()), "products": products, "voucher": voucher,
            "cart": object(wrong.map(|name| (name, 1))),
        }),
        json!({
            "cart": object(things.iter().map(|name| (*name, count(name)))), "voucher": voucher, "final": true,
        }),
        steps,
    )
}

/// Mails to star, to delete, to forward.
pub(super) fn inbox(draw: &mut Draw, difficulty: u8) -> Draft {
    let count = usize::from(difficulty) + 2;
    let (names, topics) = (draw.several(&NAMES, count), draw.several(&TOPICS, count));
    let things = draw.several(&THINGS, count);
    let mails: Vec<_> = (0..count)
        .map(|at| json!({"from": names[at], "subject": topics[at], "text": format!("It is about the {}.", things[at])}))
        .collect();
    let at = draw.below(count);
    let (name, topic) = (names[at], topics[at]);
    let address = format!("{}@example.org", draw.one(&SURNAMES).to_lowercase());
    let open = Step::button(format!("{name}: {topic}"));
    let (instruction, steps) = match difficulty {
        1 => (
            format!("Star the mail \"{topic}\"."),
            vec![Step::button(format!("Star {topic}"))],
        ),
        2 => (
            format!("Delete the mail from {name}."),
            vec![open, Step::button("Delete")],
        ),
        _ => (
            format!("Star the mail from {name}, then forward it to {address}."),
            vec![
                Step::button(format!("Star {topic}")),
                open,
                Step::button("Forward"),
                Step::fill("To", address.clone()),
                Step::button("Send"),
            ],
        ),
    };
    let only = |really: bool| {
        object(
            topics
                .iter()
                .map(move |one| (*one, really && *one == topic)),
        )
    };
    let to = |one: &str| {
        if difficulty == 3 && one == topic {
            json!(address)
        } else {
            Value::Null
        }
    };
    Draft::new(
        instruction,
        json!({"title": format!("Inbox of {}", draw.brand()), "mails": mails}),
        json!({
            "starred": only(difficulty != 2), "deleted": only(difficulty == 2),
            "forwarded": object(topics.iter().map(|one| (*one, to(one)))),
        }),
        steps,
    )
    .irreversible(&["/deleted", "/forwarded"])
}

/// Switches that count when they are saved.
pub(super) fn settings(draw: &mut Draw, difficulty: u8) -> Draft {
    let switches = draw.several(&SETTINGS, usize::from(difficulty) + 2);
    let on = draw.several(&switches, switches.len() / 2);
    let turned = draw.several(&switches, usize::from(difficulty));
    let languages = ["English", "French", "German", "Spanish"];
    let language = draw.one(&languages[1..]);
    let mut steps = Vec::new();
    let mut wants = Vec::new();
    for name in &turned {
        let verb = if on.contains(name) { "off" } else { "on" };
        wants.push(format!("turn {verb} \"{name}\""));
        steps.push(Step::click("switch", *name));
    }
    let state = |name: &&'static str| {
        (
            *name,
            Value::Bool(on.contains(name) != turned.contains(name)),
        )
    };
    let mut now: Vec<_> = switches.iter().map(state).collect();
    if difficulty == 3 {
        wants.push(format!("choose the language \"{language}\""));
        steps.push(Step::select("Language", language));
        now.push(("Language", json!(language)));
    }
    steps.push(Step::button("Save"));
    let instruction = format!("{}, and save.", listed(&wants).replace(" and ", ", "));
    let now = object(now);
    Draft::new(
        capital(&instruction),
        json!({
            "title": format!("Settings of {}", draw.brand()), "switches": switches, "on": on,
            "language": difficulty == 3, "languages": languages,
        }),
        json!({"now": now, "saved": now}),
        steps,
    )
}

/// Values that stand in one place of the page and belong into another.
pub(super) fn copy(draw: &mut Draw, difficulty: u8) -> Draft {
    let count = [1, 3, 3][usize::from(difficulty) - 1];
    let names = draw.several(&NAMES, count);
    let cities = draw.several(&CITIES, count);
    let numbers = draw.numbers(1_000, 9_999, count);
    let number = |at: usize| format!("{}{}", LETTERS[at], numbers[at]);
    let target = draw.below(count);
    let cards: Vec<_> = (0..count)
        .map(|at| {
            let lines = [
                format!("Order number: {}", number(at)),
                format!("City: {}", cities[at]),
            ];
            json!({"title": names[at], "lines": lines})
        })
        .collect();
    let folded = difficulty == 3;
    let mut fields = vec![("Order number", number(target))];
    let mut steps = Vec::new();
    if folded {
        fields.push(("City", cities[target].to_owned()));
        steps.push(Step::button(format!("Show {}", names[target])));
    }
    steps.extend(
        fields
            .iter()
            .map(|(label, text)| Step::fill(*label, text.clone())),
    );
    steps.push(Step::button("Check in"));
    let what = if folded {
        "order number and the city"
    } else {
        "order number"
    };
    let labels: Vec<_> = fields.iter().map(|(label, _)| *label).collect();
    Draft::new(
        format!(
            "Enter the {what} of {}, then press \"Check in\".",
            names[target]
        ),
        json!({
            "title": format!("{} {} desk", draw.brand(), draw.one(&KINDS).to_lowercase()),
            "fields": labels, "cards": cards, "folded": folded,
        }),
        json!({"fields": object(fields), "final": true}),
        steps,
    )
}

/// A list of things to do: add, tick, remove.
pub(super) fn todo(draw: &mut Draw, difficulty: u8) -> Draft {
    let mut things = draw.several(&THINGS, 5);
    let new = things.pop().unwrap_or("bread");
    let mut items: Vec<_> = things.iter().map(|name| (*name, false)).collect();
    let mut wants = vec![format!("add \"{new}\"")];
    let mut steps = vec![Step::fill("New item", new), Step::button("Add")];
    let places = draw.numbers(0, 3, 2);
    let place = |at: usize| usize::try_from(places[at]).unwrap_or(0);
    if difficulty >= 2 {
        let name = things[place(0)];
        items[place(0)].1 = true;
        wants.push(format!("tick \"{name}\""));
        steps.push(Step::click("checkbox", name));
    }
    if difficulty >= 3 {
        let name = things[place(1)];
        items.retain(|(one, _)| *one != name);
        wants.push(format!("remove \"{name}\""));
        steps.push(Step::button(format!("Remove {name}")));
    }
    items.push((new, false));
    Draft::new(
        format!("{}.", capital(&listed(&wants))),
        json!({"title": format!("{} list of {}", draw.brand(), draw.one(&NAMES)), "items": things}),
        json!({"items": object(items)}),
        steps,
    )
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(char::to_uppercase);
    first.into_iter().flatten().chain(letters).collect()
}
