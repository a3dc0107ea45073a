//! Lists and tables: searching, pressing in order, picking a row, sorting, turning pages.

use serde_json::json;

use super::{
    forms::listed,
    words::{CITIES, KINDS, THINGS},
};
use crate::draft::{Draft, Draw, Step, object};

/// A list that shows only what is searched for.
pub(super) fn search(draw: &mut Draw, difficulty: u8) -> Draft {
    let things = draw.several(&THINGS, 3);
    let thing = things[0];
    let matches = usize::from(difficulty) + 2;
    let kinds = draw.several(&KINDS, matches);
    let prices = draw.numbers(5, 90, matches);
    // The cheapest is sold out where the stock matters; at least one is there.
    let mut ranked: Vec<usize> = (0..matches).collect();
    ranked.sort_by_key(|at| prices[*at]);
    let deep = difficulty == 3;
    let sold_out = |at: usize| deep && at == ranked[0];
    let note = |at: usize| {
        let stock = if sold_out(at) { "sold out" } else { "in stock" };
        format!("{} euro, {stock}", prices[at])
    };
    let name = |at: usize| format!("{} {thing}", kinds[at]);
    let target = match difficulty {
        1 => draw.below(matches),
        2 => ranked[0],
        _ => ranked[1],
    };
    let mut items: Vec<_> = (0..matches)
        .map(|at| json!({"name": name(at), "note": note(at)}))
        .collect();
    for other in &things[1..] {
        let name = format!("{} {other}", draw.one(&KINDS));
        items.insert(
            draw.below(items.len()),
            json!({"name": name, "note": "3 euro, in stock"}),
        );
    }
    let which = match difficulty {
        1 => format!("the result \"{}\"", name(target)),
        2 => "the cheapest result".to_owned(),
        _ => "the cheapest result that is in stock".to_owned(),
    };
    Draft::new(
        format!("Search for \"{thing}\" and open {which}."),
        json!({"title": format!("{} shop", draw.brand()), "items": items}),
        json!({"opened": name(target)}),
        vec![
            Step::fill("Search", thing),
            Step::button("Find"),
            Step::button(name(target)),
        ],
    )
}

/// Buttons to be pressed, one or several in order.
pub(super) fn press(draw: &mut Draw, difficulty: u8) -> Draft {
    let (shown, asked) = [(4, 1), (6, 2), (8, 4)][usize::from(difficulty) - 1];
    let things = draw.several(&THINGS, if difficulty == 3 { 4 } else { shown });
    let buttons: Vec<String> = if difficulty == 3 {
        // Two kinds of each thing, which are easily mistaken for each other.
        let kinds = draw.several(&KINDS, 2);
        let pair = |thing: &&str| {
            kinds
                .clone()
                .into_iter()
                .map(move |kind| format!("{kind} {}", *thing))
                .collect::<Vec<_>>()
        };
        things.iter().flat_map(pair).collect()
    } else {
        things.iter().map(|thing| (*thing).to_owned()).collect()
    };
    let places = draw.numbers(0, buttons.len() as i64 - 1, asked);
    let wanted: Vec<_> = places
        .into_iter()
        .filter_map(|at| buttons.get(usize::try_from(at).ok()?))
        .cloned()
        .collect();
    let quoted: Vec<_> = wanted.iter().map(|name| format!("\"{name}\"")).collect();
    let instruction = match difficulty {
        1 => format!("Press the button {}.", quoted[0]),
        _ => format!("Press the buttons {} in this order.", listed(&quoted)),
    };
    Draft::new(
        instruction,
        json!({"title": draw.brand(), "buttons": buttons}),
        json!({"pressed": wanted}),
        wanted.iter().map(Step::button).collect(),
    )
}

struct Table {
    parameters: serde_json::Value,
    rows: Vec<(&'static str, &'static str, i64)>,
    city: &'static str,
}

fn table(draw: &mut Draw, count: usize, filter: bool) -> Table {
    let things = draw.several(&THINGS, count);
    let cities = draw.several(&CITIES, 3);
    let prices = draw.numbers(10, 99, count);
    let rows: Vec<_> = things
        .iter()
        .zip(prices)
        .enumerate()
        .map(|(at, (thing, price))| (*thing, cities[at % 3], price))
        .collect();
    let parameters = json!({
        "title": format!("{} prices", draw.brand()),
        "columns": ["Item", "City", "Price"],
        "rows": rows.iter().map(|(thing, city, price)| json!([thing, city, price])).collect::<Vec<_>>(),
        "groups": cities,
        "filter": filter,
    });
    let city = draw.one(&cities);
    Table {
        parameters,
        rows,
        city,
    }
}

/// A row of a table: by name, by its price, by its price among some.
pub(super) fn pick(draw: &mut Draw, difficulty: u8) -> Draft {
    let count = [4, 7, 12][usize::from(difficulty) - 1];
    let table = table(draw, count, difficulty == 3);
    let cheapest = draw.chance(0.5);
    let word = if cheapest { "lowest" } else { "highest" };
    let fits = |row: &&(&str, &str, i64)| difficulty < 3 || row.1 == table.city;
    let by_price = |row: &&(&str, &str, i64)| if cheapest { row.2 } else { -row.2 };
    let best = table.rows.iter().filter(fits).min_by_key(by_price);
    let named = table.rows[draw.below(count)].0;
    let target = match best {
        Some(best) if difficulty > 1 => best.0,
        _ => named,
    };
    let instruction = match difficulty {
        1 => format!("Choose the row of the {target}."),
        2 => format!("Choose the item with the {word} price."),
        _ => format!("Choose the item with the {word} price in {}.", table.city),
    };
    Draft::new(
        instruction,
        table.parameters,
        json!({"chosen": target}),
        vec![Step::button(format!("Choose {target}"))],
    )
}

/// A table to be sorted, and filtered.
pub(super) fn sort(draw: &mut Draw, difficulty: u8) -> Draft {
    let table = table(draw, 6, difficulty == 3);
    let by = draw.one(&["Item", "Price"]);
    let down = difficulty > 1;
    let mut instruction = format!("Sort the table by {by}");
    let mut steps = Vec::new();
    if down {
        instruction.push_str(if by == "Price" {
            ", from high to low"
        } else {
            ", from Z to A"
        });
        steps.push(Step::button(by));
    }
    steps.push(Step::button(by));
    let mut only = "All";
    if difficulty == 3 {
        only = table.city;
        instruction = format!(
            "Show only {only}, and sort by {by}{}",
            &instruction[instruction.find(',').unwrap_or(0)..]
        );
        steps.insert(0, Step::select("Show City", only));
    }
    Draft::new(
        format!("{instruction}."),
        table.parameters,
        json!({"by": by, "down": down, "only": only}),
        steps,
    )
}

/// A list on several pages.
pub(super) fn pages(draw: &mut Draw, difficulty: u8) -> Draft {
    let each = 5;
    let page_count = [2, 4, 6][usize::from(difficulty) - 1];
    let things = draw.several(&THINGS, each * page_count);
    // None on the first page: a page has to be turned.
    let later = &things[each..];
    let wanted = draw.several(later, if difficulty == 3 { 2 } else { 1 });
    let place = |name: &str| things.iter().position(|thing| *thing == name).unwrap_or(0) / each;
    let mut ordered = wanted.clone();
    ordered.sort_by_key(|name| place(name));
    let mut steps = Vec::new();
    let mut at = 0;
    for name in &ordered {
        while at < place(name) {
            steps.push(Step::button("Next"));
            at += 1;
        }
        steps.push(Step::button(*name));
    }
    let quoted: Vec<_> = wanted.iter().map(|name| format!("\"{name}\"")).collect();
    Draft::new(
        format!("Find and choose {}.", listed(&quoted)),
        json!({"title": format!("{} list", draw.brand()), "items": things, "each": each}),
        json!({"chosen": object(things.iter().map(|name| (*name, wanted.contains(name))))}),
        steps,
    )
}
