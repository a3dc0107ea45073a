//! What opens and closes: dialogs, tabs, sections, trees, menus, a long text.

use serde_json::{Value, json};

use super::{
    forms::listed,
    words::{CITIES, LETTERS, NAMES, SETTINGS, SURNAMES, THINGS, TOPICS},
};
use crate::draft::{Draft, Draw, Step, object};

/// Deleting, which a dialog asks about.
pub(super) fn confirm(draw: &mut Draw, difficulty: u8) -> Draft {
    let items: Vec<_> = draw
        .several(&THINGS, 4)
        .into_iter()
        .map(|thing| format!("{thing}.txt"))
        .collect();
    let target = items[draw.below(items.len())].clone();
    let (copies, typed) = (difficulty >= 2, difficulty == 3);
    let mut steps = vec![Step::button(format!("Delete {target}"))];
    let mut instruction = format!("Delete the file {target}");
    if copies {
        instruction.push_str(" and its backup");
        steps.push(Step::click("checkbox", "Delete its backup too"));
    }
    if typed {
        steps.push(Step::fill("Name", target.clone()));
    }
    steps.push(Step::button("Delete"));
    let kept = |really: bool| object(items.iter().map(|name| (name, !really || *name != target)));
    Draft::new(
        format!("{instruction}."),
        json!({"title": format!("{} files", draw.brand()), "items": items, "copies": copies, "typed": typed}),
        json!({"kept": kept(true), "copies": kept(copies)}),
        steps,
    )
    .irreversible(&["/kept", "/copies"])
}

/// Contacts that are edited in a dialog.
pub(super) fn edit(draw: &mut Draw, difficulty: u8) -> Draft {
    let names = draw.several(&NAMES, usize::from(difficulty) + 1);
    let cities = draw.several(&CITIES, names.len() + 1);
    let phones = draw.numbers(2_000, 9_999, names.len() + 1);
    let contact = |at: usize| json!({"phone": format!("555-{}", phones[at]), "city": cities[at]});
    let contacts: Vec<(&str, Value)> = names
        .iter()
        .enumerate()
        .map(|(at, name)| (*name, contact(at)))
        .collect();
    let mut wanted = contacts.clone();
    let new = contact(names.len());
    let target = draw.below(names.len());
    let mut steps = vec![Step::button(format!("Edit {}", names[target]))];
    let mut wants = Vec::new();
    let fields = match difficulty {
        3 => vec![("phone", "Phone"), ("city", "City")],
        _ if draw.chance(0.5) => vec![("phone", "Phone")],
        _ => vec![("city", "City")],
    };
    for (at, (field, label)) in fields.into_iter().enumerate() {
        let text = new[field].as_str().unwrap_or("").to_owned();
        let whose = if at == 0 {
            format!(" of {}", names[target])
        } else {
            String::new()
        };
        wants.push(format!("the {field}{whose} to \"{text}\""));
        steps.push(Step::fill(label, text));
        wanted[target].1[field] = new[field].clone();
    }
    steps.push(Step::button("Save"));
    Draft::new(
        format!("Change {}.", listed(&wants)),
        json!({"title": format!("{} contacts", draw.brand()), "contacts": object(contacts)}),
        json!({"contacts": object(wanted)}),
        steps,
    )
}

/// Settings on several tabs.
pub(super) fn tabs(draw: &mut Draw, difficulty: u8) -> Draft {
    let count = [2, 3, 4][usize::from(difficulty) - 1];
    let names = draw.several(&TOPICS, count);
    let items = draw.several(&SETTINGS, 3 * count);
    let ticked = draw.several(&items, count);
    let of = |tab: usize| &items[3 * tab..3 * tab + 3];
    // One on a later tab; at the third difficulty one on each of two later tabs.
    let mut wants = vec![(1 + draw.below(count - 1), draw.below(3))];
    if difficulty == 3 {
        let other = if wants[0].0 == 1 { 2 } else { 1 };
        wants.push((other, draw.below(3)));
    }
    let mut state: Vec<_> = items
        .iter()
        .map(|name| (*name, ticked.contains(name)))
        .collect();
    let mut steps = Vec::new();
    let mut words = Vec::new();
    for (tab, at) in wants {
        let name = of(tab)[at];
        steps.extend([
            Step::click("tab", names[tab]),
            Step::click("checkbox", name),
        ]);
        let was = ticked.contains(&name);
        state[3 * tab + at].1 = !was;
        let verb = if was { "off" } else { "on" };
        words.push(format!("{verb} \"{name}\" on the tab \"{}\"", names[tab]));
    }
    let shown: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(tab, name)| json!({"name": name, "items": of(tab)}))
        .collect();
    Draft::new(
        format!("Turn {}.", listed(&words)),
        json!({"title": format!("{} settings", draw.brand()), "tabs": shown, "ticked": ticked}),
        json!({"ticked": object(state)}),
        steps,
    )
}

/// Sections that open; the right one is named, or is known by its text.
pub(super) fn accordion(draw: &mut Draw, difficulty: u8) -> Draft {
    let count = usize::from(difficulty) + 2;
    let titles = draw.several(&TOPICS, count);
    let things = draw.several(&THINGS, count);
    let target = draw.below(count);
    let sections: Vec<_> = titles
        .iter()
        .zip(&things)
        .map(|(title, thing)| json!({"title": title, "text": format!("This section is about the {thing}.")}))
        .collect();
    let instruction = match difficulty {
        1 => format!("Open \"{}\" and mark it as helpful.", titles[target]),
        _ => format!(
            "Find the section about the {} and mark it as helpful.",
            things[target]
        ),
    };
    let mut steps = Vec::new();
    if difficulty > 1 {
        // Every section before the right one has to be looked into.
        steps.extend(titles[..target].iter().map(|title| Step::button(*title)));
    }
    steps.push(Step::button(titles[target]));
    steps.push(Step::button(format!("Helpful: {}", titles[target])));
    Draft::new(
        instruction,
        json!({"title": format!("Questions of {}", draw.brand()), "sections": sections}),
        json!({"helpful": object(titles.iter().map(|title| (*title, *title == titles[target])))}),
        steps,
    )
}

/// Folders in folders.
pub(super) fn tree(draw: &mut Draw, difficulty: u8) -> Draft {
    let depth = usize::from(difficulty);
    let topics = draw.several(&TOPICS, 3 * depth);
    let file = format!("{}.txt", draw.one(&THINGS));
    let decoy = format!("{}.pdf", draw.one(&THINGS));
    let path: Vec<_> = (0..depth)
        .map(|level| topics[3 * level + draw.below(3)])
        .collect();
    // Every folder holds the file's namesake or a decoy; the right folder of each level holds the next level.
    let mut entries = vec![json!({"name": file}), json!({"name": decoy})];
    for level in (0..depth).rev() {
        let folder = |name: &&str| {
            let inside = if *name == path[level] {
                entries.clone()
            } else {
                vec![
                    json!({"name": file}),
                    json!({"name": format!("{name}.doc")}),
                ]
            };
            json!({"name": name, "entries": inside})
        };
        entries = topics[3 * level..3 * level + 3]
            .iter()
            .map(folder)
            .collect();
    }
    let mut steps: Vec<_> = path
        .iter()
        .map(|name| Step::click("treeitem", *name))
        .collect();
    steps.push(Step::click("treeitem", file.clone()));
    let place = path.join(" / ");
    Draft::new(
        format!("Select the file {file} in the folder \"{place}\"."),
        json!({"title": format!("Files of {}", draw.brand()), "entries": entries}),
        json!({"selected": [format!("{place} / {file}")]}),
        steps,
    )
}

/// Menus in menus.
pub(super) fn menu(draw: &mut Draw, difficulty: u8) -> Draft {
    let tops = draw.several(&TOPICS, 3);
    let (inner, leaves) = (draw.several(&THINGS, 6), draw.several(&CITIES, 6));
    let leaf = |name: &str| json!({"name": name});
    let entries: Vec<_> = tops
        .iter()
        .enumerate()
        .map(|(top, name)| {
            let inside: Vec<_> = inner[2 * top..2 * top + 2]
                .iter()
                .enumerate()
                .map(|(at, name)| match (difficulty, at) {
                    (1, _) | (_, 0) => leaf(name),
                    _ => json!({"name": name, "entries": [leaf(leaves[2 * top]), leaf(leaves[2 * top + 1])]}),
                })
                .collect();
            json!({"name": name, "entries": inside})
        })
        .collect();
    let mut chosen = Vec::new();
    let mut steps = Vec::new();
    let order = draw.several(&tops, if difficulty == 3 { 2 } else { 1 });
    for name in order {
        let top = tops.iter().position(|one| *one == name).unwrap_or(0);
        let path = match difficulty {
            1 => vec![name, inner[2 * top + draw.below(2)]],
            _ => vec![name, inner[2 * top + 1], leaves[2 * top + draw.below(2)]],
        };
        steps.extend(path.iter().map(|name| Step::click("menuitem", *name)));
        chosen.push(path.join(" / "));
    }
    let quoted: Vec<_> = chosen.iter().map(|path| format!("\"{path}\"")).collect();
    Draft::new(
        format!("Choose {} in the menu.", quoted.join(", then ")),
        json!({"title": format!("Menu of {}", draw.brand()), "entries": entries}),
        json!({"chosen": chosen}),
        steps,
    )
}

/// A long text; its end has to be reached, and read at the higher difficulties.
pub(super) fn read_to_end(draw: &mut Draw, difficulty: u8) -> Draft {
    let sections = [3, 4, 5][usize::from(difficulty) - 1];
    let code: String = draw.several(&LETTERS, 5).concat();
    let host = format!("{} {}", draw.one(&NAMES), draw.one(&SURNAMES));
    let things = draw.several(&THINGS, sections);
    let mut texts: Vec<_> = things
        .iter()
        .map(|thing| {
            format!("The {thing} belongs to {host}. Treat it with care and bring it back in time.")
        })
        .collect();
    let asks_code = difficulty >= 2;
    let mut steps = vec![Step::ScrollDown];
    if asks_code {
        texts[sections - 1] += &[" The code is ", &code, "."].concat();
        steps.push(Step::fill("Code", code.clone()));
    }
    // A condition that the text answers.
    let asked = draw.one(&THINGS);
    let answer = if difficulty == 3 && things.contains(&asked) {
        "Decline"
    } else {
        "Accept"
    };
    steps.push(Step::button(answer));
    let instruction = match difficulty {
        1 => "Scroll to the end of the terms and accept them.".to_owned(),
        2 => "Read the terms to the end, enter the code that is there, and accept them.".to_owned(),
        _ => format!(
            "Read the terms to the end and enter the code that is there. Decline them if they mention a {asked}; else accept them."
        ),
    };
    Draft::new(
        instruction,
        json!({"title": format!("{} terms", draw.brand()), "sections": texts, "code": asks_code}),
        json!({"code": if asks_code { code.as_str() } else { "" }, "answer": answer, "final": true}),
        steps,
    )
}
