//! Forms: fields, choices, dates, steps with validation, a login, controls that must be enabled first.

use serde_json::{Value, json};

use super::words::{CITIES, LETTERS, MONTHS, NAMES, SETTINGS, SURNAMES, THINGS, TOPICS};
use crate::draft::{Draft, Draw, Step, object};

/// Text fields, of which some are to be filled.
pub(super) fn fill(draw: &mut Draw, difficulty: u8) -> Draft {
    let name = format!("{} {}", draw.one(&NAMES), draw.one(&SURNAMES));
    let mail = format!("{}@example.org", name.to_lowercase().replace(' ', "."));
    let about = format!("Please send me one {}.", draw.one(&THINGS));
    let phone = format!("0{}", draw.between(200_000, 999_999));
    let mut fields = vec![
        ("Name", name),
        ("City", draw.one(&CITIES).to_owned()),
        ("Email", mail),
        ("Phone", phone),
        ("Message", about),
    ];
    let (shown, asked) = [(2, 1), (4, 2), (5, 4)][usize::from(difficulty) - 1];
    fields.truncate(shown);
    let filled: Vec<usize> = draw
        .numbers(0, shown as i64 - 1, asked)
        .into_iter()
        .filter_map(|at| usize::try_from(at).ok())
        .collect();
    let wants: Vec<_> = filled
        .iter()
        .map(|at| format!("\"{}\" as the {}", fields[*at].1, fields[*at].0))
        .collect();
    let state = fields.iter().enumerate().map(|(at, (label, text))| {
        let text = if filled.contains(&at) { text } else { "" };
        (*label, text)
    });
    let mut steps: Vec<_> = filled
        .iter()
        .map(|at| Step::fill(fields[*at].0, fields[*at].1.clone()))
        .collect();
    steps.push(Step::button("Send"));
    let labels: Vec<_> = fields
        .iter()
        .map(|(label, _)| json!({"label": label, "long": *label == "Message"}))
        .collect();
    Draft::new(
        format!("Enter {}, then press \"Send\".", listed(&wants)),
        json!({"title": format!("{} form", draw.brand()), "fields": labels}),
        json!({"fields": object(state), "final": true}),
        steps,
    )
}

/// A list of choices, radio buttons and checkboxes.
pub(super) fn choose(draw: &mut Draw, difficulty: u8) -> Draft {
    let cities = draw.several(&CITIES, 4);
    let things = draw.several(&THINGS, 3);
    let extras = draw.several(&SETTINGS, 4);
    let (city, thing) = (draw.one(&cities), draw.one(&things));
    let ticked = draw.several(&extras, 2);
    let mut fields = vec![json!({"label": "City", "kind": "select", "options": cities})];
    let mut wants = vec![format!("\"{city}\" as the City")];
    let mut state = vec![("City", json!(city))];
    let mut steps = vec![Step::select("City", city)];
    if difficulty >= 2 {
        fields.push(json!({"label": "Gift", "kind": "radio", "options": things}));
        wants.push(format!("\"{thing}\" as the Gift"));
        state.push(("Gift", json!(thing)));
        steps.push(Step::click("radio", thing));
    }
    let mut extra = String::new();
    if difficulty >= 3 {
        fields.push(json!({"label": "Extras", "kind": "check", "options": extras}));
        extra = format!(", tick \"{}\" and \"{}\"", ticked[0], ticked[1]);
        let boxes = extras.iter().map(|name| (*name, ticked.contains(name)));
        state.push(("Extras", object(boxes)));
        steps.extend(ticked.iter().map(|name| Step::click("checkbox", *name)));
    }
    steps.push(Step::button("Save"));
    Draft::new(
        format!("Choose {}{extra}, then press \"Save\".", listed(&wants)),
        json!({"title": format!("{} order", draw.brand()), "fields": fields}),
        json!({"fields": object(state), "final": true}),
        steps,
    )
}

/// One date as it is to be written, one in words, or two in words.
pub(super) fn date(draw: &mut Draw, difficulty: u8) -> Draft {
    let labels = if difficulty >= 3 {
        &["From", "To"][..]
    } else {
        &["Date"]
    };
    let year = draw.between(2025, 2031);
    let months = {
        let mut months = draw.numbers(1, 12, labels.len());
        months.sort_unstable();
        months
    };
    let mut wants = Vec::new();
    let mut dates = Vec::new();
    for (label, month) in labels.iter().zip(months) {
        let day = draw.between(1, 28);
        let date = format!("{year}-{month:02}-{day:02}");
        let name = usize::try_from(month - 1).map_or("", |at| MONTHS[at]);
        wants.push(match difficulty {
            1 => date.clone(),
            _ => format!("{day} {name} {year} as \"{label}\""),
        });
        dates.push((*label, date));
    }
    let mut steps: Vec<_> = dates
        .iter()
        .map(|(label, date)| Step::fill(*label, date.clone()))
        .collect();
    steps.push(Step::button("Book"));
    Draft::new(
        format!(
            "Enter the date {}, then press \"Book\".",
            wants.join(" and ")
        ),
        json!({"title": format!("{} booking", draw.brand()), "fields": labels}),
        json!({"dates": object(dates), "final": true}),
        steps,
    )
}

/// Steps, one after another; each is checked before the next.
pub(super) fn wizard(draw: &mut Draw, difficulty: u8) -> Draft {
    let name = draw.one(&NAMES);
    let count = draw.between(1, 9).to_string();
    let code: String = draw.several(&LETTERS, 4).concat();
    let cities = draw.several(&CITIES, 3);
    let city = draw.one(&cities);
    let mut pages = vec![
        json!({"label": "Name", "rule": "any"}),
        json!({"label": "Guests", "rule": "number"}),
        json!({"label": "City", "rule": "choice", "options": cities}),
        json!({"label": "Code", "rule": "code"}),
    ];
    // The code is asked for in capital letters and given in small ones.
    let given = code.to_lowercase();
    let mut wants = vec![
        ("Name", name),
        ("Guests", &count),
        ("City", city),
        ("Code", &given),
    ];
    let shown = usize::from(difficulty) + 1;
    pages.truncate(shown);
    wants.truncate(shown);
    let mut steps = Vec::new();
    let mut state = Vec::new();
    for (label, text) in &wants {
        let text = if *label == "Code" {
            code.as_str()
        } else {
            text
        };
        steps.push(match *label {
            "City" => Step::click("radio", text),
            label => Step::fill(label, text),
        });
        steps.push(Step::button("Next"));
        state.push((*label, json!(text)));
    }
    steps.push(Step::button("Finish"));
    let told: Vec<_> = wants
        .iter()
        .map(|(label, text)| format!("{label} \"{text}\""))
        .collect();
    let capitals = if difficulty == 3 {
        " Write the code in capital letters."
    } else {
        ""
    };
    Draft::new(
        format!(
            "Go through all steps with {} and finish.{capitals}",
            listed(&told)
        ),
        json!({"title": format!("{} registration", draw.brand()), "steps": pages}),
        json!({"data": object(state), "final": true}),
        steps,
    )
}

/// A login; a wrong password costs one of three tries.
pub(super) fn login(draw: &mut Draw, difficulty: u8) -> Draft {
    let user = draw.one(&NAMES).to_lowercase();
    let mut word = || format!("{}{}", draw.one(&THINGS), draw.between(10, 99));
    let (password, other) = (word(), format!("{}x", word()));
    let mut steps = vec![Step::fill("User name", user.clone())];
    let mut instruction = match difficulty {
        1 => format!("Log in as \"{user}\" with the password \"{password}\"."),
        _ => format!("Log in as \"{user}\". The password is \"{other}\" or \"{password}\"."),
    };
    if difficulty >= 3 {
        instruction.push_str(" Stay signed in, and then log out the other devices.");
        steps.push(Step::click("checkbox", "Stay signed in"));
    }
    if difficulty >= 2 {
        steps.extend([Step::fill("Password", other), Step::button("Log in")]);
    }
    steps.extend([
        Step::fill("Password", password.clone()),
        Step::button("Log in"),
    ]);
    if difficulty >= 3 {
        steps.push(Step::button("Log out other devices"));
    }
    let deep = difficulty >= 3;
    Draft::new(
        instruction,
        json!({
            "title": format!("{} login", draw.brand()),
            "user": user, "password": password, "stay": deep, "devices": deep,
        }),
        json!({"user": user, "stay": deep, "devicesOut": deep, "final": false}),
        steps,
    )
}

/// Buttons that sleep until something else is done.
pub(super) fn unlock(draw: &mut Draw, difficulty: u8) -> Draft {
    let topic = draw.one(&TOPICS);
    let thing = draw.one(&THINGS);
    let agree = format!("I know the {} rules", topic.to_lowercase());
    let go = format!("Order the {thing}");
    let reason = format!("for {}", draw.one(&NAMES));
    let options = [draw.one(&CITIES), "Other"];
    let (hidden, other) = (difficulty >= 2, difficulty >= 3);
    let mut steps = Vec::new();
    let mut instruction = format!("Order the {thing}. You know the rules.");
    if other {
        instruction = format!(
            "Order the {thing}. Choose \"Other\" as the Place and give \"{reason}\" as the Reason. You know the rules."
        );
        steps.extend([
            Step::select("Place", "Other"),
            Step::fill("Reason", reason.clone()),
        ]);
    }
    if hidden {
        steps.push(Step::button("Show more options"));
    }
    steps.extend([
        Step::click("checkbox", agree.clone()),
        Step::button(go.clone()),
    ]);
    let choice = if other { json!("Other") } else { Value::Null };
    Draft::new(
        instruction,
        json!({
            "title": format!("{} shop", draw.brand()), "agree": agree, "go": go, "options": options,
            "hidden": hidden, "other": other, "question": "Place",
        }),
        json!({
            "agreed": true, "choice": choice, "reason": if other { reason.as_str() } else { "" }, "final": true,
        }),
        steps,
    )
}

/// Words as people list them: `a, b and c`.
pub(super) fn listed(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
