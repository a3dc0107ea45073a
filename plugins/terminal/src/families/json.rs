//! Reading and writing JSON with python3.

use super::{Family, bystander, written};
use crate::{draw::Draw, task::Task, world::quote};

pub(super) const FAMILIES: &[Family] = &[
    Family::new("json-field", "the value of a key", json_field),
    Family::new("json-edit", "another value for a key", json_edit),
    Family::new("json-list", "what a list of objects holds", json_list),
    Family::new("json-csv", "from JSON to CSV and back", json_csv),
];

/// A one-line program that has read a file into `d`.
fn python(path: &str, then: &str) -> String {
    format!(
        "python3 -c {}",
        quote(&format!(
            "import json; d = json.load(open(\"{path}\")); {then}"
        ))
    )
}

/// A program that writes `d` back.
fn rewrite(path: &str, change: &str) -> String {
    python(
        path,
        &format!("{change}; json.dump(d, open(\"{path}\", \"w\"))"),
    )
}

/// Prints a JSON file in the one way that the expectation is written in: sorted keys, no blanks.
fn canonical(path: &str) -> String {
    let program = "import json, sys; print(json.dumps(json.load(open(sys.argv[1])), sort_keys=True, separators=(\",\", \":\")))";
    format!("python3 -I -c '{program}' /work/{path}")
}

fn json_field(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let path = draw.file("json");
    let keys = draw.nouns(6);
    let values = draw.distinct(6, 10, 999);
    let pair = |at: usize| format!("\"{}\": {}", keys[at], values[at]);
    let inner = format!("{{{}, {}}}", pair(3), pair(4));
    let text = match level {
        1 => format!("{{\n  {},\n  {},\n  {}\n}}\n", pair(0), pair(1), pair(2)),
        2 => format!("{{{}, \"{}\": {inner}, {}}}\n", pair(0), keys[5], pair(1)),
        _ => format!(
            "{{\"{}\": [{{{}}}, {{{}, \"{}\": {inner}}}]}}\n",
            keys[0],
            pair(1),
            pair(2),
            keys[5]
        ),
    };
    world.file(&path, text);
    let print = |place: &str| {
        format!(
            "{} > answer.txt",
            python(&path, &format!("print(d{place})"))
        )
    };
    let (prompt, solution, answer) = match level {
        1 => (
            format!(
                "Write the value of {} in the file {path} to answer.txt.",
                keys[1]
            ),
            print(&format!("[\"{}\"]", keys[1])),
            values[1],
        ),
        2 => (
            format!(
                "The file {path} holds an object named {} in its object. Write the value of {} in it to answer.txt.",
                keys[5], keys[4]
            ),
            print(&format!("[\"{}\"][\"{}\"]", keys[5], keys[4])),
            values[4],
        ),
        _ => (
            format!(
                "In the file {path}, take the list {}, of it the second element, of it {}. Write the value of {} in that to answer.txt.",
                keys[0], keys[5], keys[3]
            ),
            print(&format!(
                "[\"{}\"][1][\"{}\"][\"{}\"]",
                keys[0], keys[5], keys[3]
            )),
            values[3],
        ),
    };
    Task::question(prompt, world, [solution]).answer(answer.to_string())
}

fn json_edit(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let path = draw.file("json");
    let mut keys = draw.nouns(3);
    keys.sort();
    let values = draw.distinct(4, 10, 999);
    let words = draw.nouns(3);
    let [a, b, c] = [&keys[0], &keys[1], &keys[2]];
    let list = |words: &[String]| {
        words
            .iter()
            .map(|word| format!("\"{word}\""))
            .collect::<Vec<_>>()
            .join(",")
    };
    let whole = |second: usize, items: &str| {
        format!(
            "{{\"{a}\":{},\"{b}\":{second},\"{c}\":[{items}]}}",
            values[0]
        )
    };
    let before = whole(values[1], &list(&words[..2]));
    world.file(
        &path,
        format!("{}\n", before.replace(',', ", ").replace(':', ": ")),
    );
    let (prompt, change, after) = match level {
        1 => (
            format!("Set {b} in the file {path} to {}.", values[2]),
            format!("d[\"{b}\"] = {}", values[2]),
            whole(values[2], &list(&words[..2])),
        ),
        2 => (
            format!(
                "Add the string {} at the end of the list {c} in the file {path}.",
                words[2]
            ),
            format!("d[\"{c}\"].append(\"{}\")", words[2]),
            whole(values[1], &list(&words)),
        ),
        _ => (
            format!(
                "In the file {path}, remove the key {a}, add 1 to the number of {b}, and remove the first element of the list {c}."
            ),
            format!("del d[\"{a}\"]; d[\"{b}\"] += 1; d[\"{c}\"].pop(0)"),
            format!(
                "{{\"{b}\":{},\"{c}\":[{}]}}",
                values[1] + 1,
                list(&words[1..2])
            ),
        ),
    };
    let solution = rewrite(&path, &change);
    Task::question(prompt, world, [solution])
        .ignore(&path)
        .part(canonical(&path), after)
}

/// Names and amounts, and the list of objects that holds them.
fn people(draw: &mut Draw) -> (Vec<(String, usize)>, String) {
    let amounts = draw.distinct(9, 10, 99);
    let rows: Vec<_> = draw.nouns(9).into_iter().zip(amounts).collect();
    let objects: Vec<_> = rows
        .iter()
        .map(|(name, amount)| format!("  {{\"name\": \"{name}\", \"amount\": {amount}}}"))
        .collect();
    let text = format!("[\n{}\n]\n", objects.join(",\n"));
    (rows, text)
}

fn json_list(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let path = draw.file("json");
    let (mut rows, text) = people(draw);
    world.file(&path, text);
    let limit = rows[0].1 - 1;
    let to_answer = |then: &str| format!("{} > answer.txt", python(&path, then));
    let (prompt, solution, answer) = match level {
        1 => (
            format!(
                "The file {path} is a list of objects. Add up their amounts. Write the sum to answer.txt."
            ),
            to_answer("print(sum(x[\"amount\"] for x in d))"),
            rows.iter().map(|row| row.1).sum::<usize>().to_string(),
        ),
        2 => (
            format!(
                "The file {path} is a list of objects. Write the names of those whose amount is larger than {limit} to answer.txt, one on each line, in the order of the file."
            ),
            to_answer(&format!(
                "[print(x[\"name\"]) for x in d if x[\"amount\"] > {limit}]"
            )),
            rows.iter()
                .filter(|row| row.1 > limit)
                .map(|row| row.0.clone())
                .collect::<Vec<_>>()
                .join("\n"),
        ),
        _ => {
            rows.sort_by_key(|row| std::cmp::Reverse(row.1));
            let top: Vec<_> = rows[..4]
                .iter()
                .map(|(name, amount)| format!("{name} {amount}"))
                .collect();
            (
                format!(
                    "The file {path} is a list of objects. Write the names of the four with the largest amounts, each with a space and its amount, to answer.txt, one on each line, the largest first."
                ),
                to_answer(
                    "d.sort(key=lambda x: -x[\"amount\"]); [print(x[\"name\"], x[\"amount\"]) for x in d[:4]]",
                ),
                top.join("\n"),
            )
        }
    };
    Task::question(prompt, world, [solution]).answer(answer)
}

fn json_csv(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let [json, csv] = [draw.file("json"), draw.file("csv")];
    let (rows, text) = people(draw);
    let table: String = rows
        .iter()
        .map(|(name, amount)| format!("{name},{amount}\n"))
        .collect();
    if level < 3 {
        world.file(&json, text);
        let (extra, text) = match level {
            1 => (String::new(), table),
            _ => (
                " below the header name,amount".to_owned(),
                format!("name,amount\n{table}"),
            ),
        };
        let prompt = format!(
            "The file {json} is a list of objects. Write a line name,amount for each of them{extra} to {csv}."
        );
        let header = if level == 1 {
            ""
        } else {
            "print(\"name,amount\"); "
        };
        let print = format!("{header}[print(x[\"name\"], x[\"amount\"], sep=\",\") for x in d]");
        let solution = format!("{} > {csv}", python(&json, &print));
        return written(prompt, world, &csv, &text, solution);
    }
    world.file(&csv, format!("name,amount\n{table}"));
    let prompt = format!(
        "The file {csv} has the columns name and amount. Write its rows to {json} as a JSON list of objects with the keys name (a string) and amount (a number), in the same order."
    );
    let program = format!(
        "import csv, json; json.dump([dict(name=r[\"name\"], amount=int(r[\"amount\"])) for r in csv.DictReader(open(\"{csv}\"))], open(\"{json}\", \"w\"))"
    );
    let objects: Vec<_> = rows
        .iter()
        .map(|(name, amount)| format!("{{\"amount\":{amount},\"name\":\"{name}\"}}"))
        .collect();
    Task::question(prompt, world, [format!("python3 -c {}", quote(&program))])
        .part(canonical(&json), format!("[{}]", objects.join(",")))
}
