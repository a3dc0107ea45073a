//! What is moved: sliders, lists in order by buttons or by dragging, boxes, counters, a calendar.

use serde_json::json;

use super::{
    forms::listed,
    words::{FRUITS, MONTHS, THINGS, TOOLS},
};
use crate::draft::{Draft, Draw, Step, object};

/// No two begin alike: the marks of a slider begin with its letter.
const LEVELS: [&str; 8] = [
    "Volume", "Light", "Contrast", "Speed", "Bass", "Treble", "Warmth", "Zoom",
];

/// A slider with marks; beyond the first difficulty some values have no mark and need a key.
pub(super) fn slider(draw: &mut Draw, difficulty: u8) -> Draft {
    let labels = draw.several(&LEVELS, if difficulty == 3 { 2 } else { 1 });
    let step = if difficulty == 1 { 10 } else { 5 };
    let mut steps = Vec::new();
    let mut sliders = Vec::new();
    let mut wants = Vec::new();
    let mut state = Vec::new();
    for label in labels {
        let places = draw.numbers(1, 9, 2);
        let (from, mark) = (places[0] * 10, places[1] * 10);
        let target = if difficulty == 1 { mark } else { mark + 5 };
        let initial = label.chars().next().unwrap_or(' ');
        let marked = ("text", format!("{initial}{mark}"));
        steps.push(Step::Drag([("slider", label.to_owned()), marked]));
        if target > mark {
            steps.push(Step::click("slider", label));
            steps.push(Step::Press("ArrowRight"));
        }
        sliders.push(json!({"label": label, "value": from}));
        wants.push(format!("{label} to {target}"));
        state.push((label, target));
    }
    Draft::new(
        format!("Set {}.", listed(&wants)),
        json!({
            "title": format!("{} settings", draw.brand()),
            "sliders": sliders, "step": step, "ticks": 10,
        }),
        json!({"values": object(state)}),
        steps,
    )
}

/// A list that buttons bring into order.
pub(super) fn reorder(draw: &mut Draw, difficulty: u8) -> Draft {
    let mut items = draw.several(&THINGS, [3, 4, 4][usize::from(difficulty) - 1]);
    if items.is_sorted() {
        items.reverse();
    }
    let mut order = items.clone();
    let mut steps = Vec::new();
    let instruction = if difficulty == 3 {
        order.sort_unstable();
        // Bubble sort, as somebody would do it with the buttons.
        let mut now = items.clone();
        for end in (1..now.len()).rev() {
            for at in 0..end {
                if now[at] > now[at + 1] {
                    steps.push(Step::button(format!("Move {} down", now[at])));
                    now.swap(at, at + 1);
                }
            }
        }
        "Put the list into alphabetical order.".to_owned()
    } else {
        let at = if difficulty == 1 { 1 } else { items.len() - 1 };
        let name = order.remove(at);
        order.insert(0, name);
        steps = vec![Step::button(format!("Move {name} up")); at];
        format!("Move \"{name}\" to the top.")
    };
    Draft::new(
        instruction,
        json!({"title": format!("{} list", draw.brand()), "items": items}),
        json!({"order": order}),
        steps,
    )
}

/// A list that dragging brings into order.
pub(super) fn drag_list(draw: &mut Draw, difficulty: u8) -> Draft {
    let items = draw.several(&THINGS, [3, 5, 5][usize::from(difficulty) - 1]);
    let mut order = items.clone();
    let mut steps = Vec::new();
    let mut wants = Vec::new();
    let mut drag = |order: &mut Vec<&'static str>, from: usize, to: usize, word: &str| {
        let item = |name: &str| ("listitem", name.to_owned());
        steps.push(Step::Drag([item(order[from]), item(order[to])]));
        wants.push(format!("\"{}\" to the {word}", order[from]));
        let name = order.remove(from);
        order.insert(to, name);
    };
    let last = items.len() - 1;
    let inner = 1 + draw.below(last - 1);
    if difficulty == 2 {
        drag(&mut order, inner, last, "bottom of the list");
    } else {
        drag(&mut order, last, 0, "top of the list");
    }
    if difficulty == 3 {
        drag(&mut order, inner, last, "bottom");
    }
    Draft::new(
        format!("Drag {}.", wants.join(", then ")),
        json!({"title": format!("{} list", draw.brand()), "items": items}),
        json!({"order": order}),
        steps,
    )
}

/// Things to be dragged into boxes.
pub(super) fn drag_boxes(draw: &mut Draw, difficulty: u8) -> Draft {
    let boxes = ["Fruit", "Tools"];
    let (fruits, tools) = (draw.several(&FRUITS, 2), draw.several(&TOOLS, 2));
    let mut items = vec![fruits[0], tools[0], fruits[1], tools[1]];
    items.rotate_left(draw.below(4));
    let home = |name: &str| {
        if fruits.contains(&name) {
            boxes[0]
        } else {
            boxes[1]
        }
    };
    let moved = match difficulty {
        1 => draw.several(&items, 1),
        2 => draw.several(&items, 2),
        _ => items.clone(),
    };
    // The boxes are crossed at random where their names do not matter.
    let crossed = difficulty < 3 && draw.chance(0.5);
    let target = |name: &str| match (crossed, home(name)) {
        (true, "Fruit") => boxes[1],
        (true, _) => boxes[0],
        (false, home) => home,
    };
    let wants: Vec<_> = moved
        .iter()
        .map(|name| format!("the {name} into the box \"{}\"", target(name)))
        .collect();
    let instruction = match difficulty {
        3 => "Drag every thing into the box where it belongs.".to_owned(),
        _ => format!("Drag {}.", listed(&wants)),
    };
    let state = items.iter().map(|name| {
        let place = if moved.contains(name) {
            target(name)
        } else {
            ""
        };
        (*name, place)
    });
    let steps = moved
        .iter()
        .map(|name| {
            let (item, place) = (
                ("listitem", (*name).to_owned()),
                ("group", target(name).to_owned()),
            );
            Step::Drag([item, place])
        })
        .collect();
    Draft::new(
        instruction,
        json!({"title": format!("{} boxes", draw.brand()), "items": items, "boxes": boxes}),
        json!({"where": object(state)}),
        steps,
    )
}

/// Counters with buttons for more and less.
pub(super) fn counter(draw: &mut Draw, difficulty: u8) -> Draft {
    let labels = draw.several(&THINGS, usize::from(difficulty));
    let sizes: &[i64] = if difficulty == 3 { &[1, 5] } else { &[1] };
    let mut steps = Vec::new();
    let mut counters = Vec::new();
    let mut wants = Vec::new();
    let mut state = Vec::new();
    for (at, label) in labels.iter().enumerate() {
        let value = draw.between(5, 15);
        // At the third difficulty one counter is right already and must be left alone.
        let by = match difficulty {
            3 if at == 2 => 0,
            3 => [5, 6, -5, -6][draw.below(4)],
            _ => [1, 2, 3, -1, -2][draw.below(5)],
        };
        counters.push(json!({"label": label, "value": value}));
        state.push((*label, value + by));
        if by != 0 {
            wants.push(format!("\"{label}\" to {}", value + by));
        }
        let verb = if by < 0 { "Remove" } else { "Add" };
        let fives = if difficulty == 3 { by.abs() / 5 } else { 0 };
        let ones = by.abs() - 5 * fives;
        for (size, count) in [(5, fives), (1, ones)] {
            steps.extend((0..count).map(|_| Step::button(format!("{verb} {size} {label}"))));
        }
    }
    Draft::new(
        format!("Bring {}.", listed(&wants)),
        json!({"title": format!("{} counters", draw.brand()), "counters": counters, "steps": sizes}),
        json!({"counts": object(state)}),
        steps,
    )
}

/// A calendar: a day of the month that is shown, of another one, or two days.
pub(super) fn calendar(draw: &mut Draw, difficulty: u8) -> Draft {
    let fields = if difficulty == 3 {
        &["Arrival", "Departure"][..]
    } else {
        &["Day"]
    };
    let (year, month) = (draw.between(2025, 2031), draw.between(0, 11));
    let ahead = if difficulty == 1 {
        0
    } else {
        draw.between(1, 2)
    };
    let mut steps = vec![Step::button("Next month"); usize::try_from(ahead).unwrap_or(0)];
    let mut at = month + ahead;
    let mut wants = Vec::new();
    let mut picked = Vec::new();
    for (index, field) in fields.iter().enumerate() {
        if index == 1 {
            at += 1;
            steps.push(Step::button("Next month"));
        }
        let day = draw.between(1, 28);
        let (year, month) = (year + at / 12, at % 12);
        let name = usize::try_from(month).map_or("", |at| MONTHS[at]);
        wants.push(format!("{day} {name} {year} as the {field}"));
        picked.push((*field, format!("{year}-{:02}-{day:02}", month + 1)));
        steps.push(Step::button(day.to_string()));
    }
    Draft::new(
        format!("Pick {}.", listed(&wants)),
        json!({
            "title": format!("Visit to {}", draw.brand()),
            "year": year, "month": month, "months": MONTHS, "fields": fields,
        }),
        json!({"picked": object(picked)}),
        steps,
    )
}
