//! Log files and settings.

use super::{Family, bystander, written};
use crate::{
    draw::{Draw, lines},
    task::Task,
};

pub(super) const FAMILIES: &[Family] = &[
    Family::new("log-count", "how many lines of a level", log_count),
    Family::new(
        "log-extract",
        "lines of a level, a service or an hour",
        log_extract,
    ),
    Family::new("log-top", "who asked most", log_top),
    Family::new("log-rotate", "a full log aside and a new one", log_rotate),
    Family::new("settings", "keys of a settings file", settings),
];

const LEVELS: [&str; 3] = ["ERROR", "WARN", "INFO"];

/// A line of an application's log: time, level, service, words.
struct Entry {
    hour: usize,
    minute: usize,
    level: &'static str,
    service: String,
    words: String,
}

impl Entry {
    fn line(&self) -> String {
        let Self {
            hour,
            minute,
            level,
            service,
            words,
        } = self;
        format!("2024-05-01T{hour:02}:{minute:02}:00 {level} {service} {words}")
    }
}

fn log(draw: &mut Draw) -> Vec<Entry> {
    let services = draw.nouns(3);
    let minutes = draw.distinct(36, 0, 4 * 60 - 1);
    let mut minutes: Vec<_> = minutes.into_iter().chain([0, 60, 120, 180]).collect();
    minutes.sort_unstable();
    minutes.dedup();
    let entries = minutes.into_iter().enumerate().map(|(at, minute)| {
        let level = LEVELS[if at < 6 {
            at % 3
        } else {
            [0, 1, 2, 2][draw.between(0, 3)]
        }];
        let service = services[if at < 3 { at } else { draw.between(0, 2) }].clone();
        Entry {
            hour: 8 + minute / 60,
            minute: minute % 60,
            level,
            service,
            words: draw.words(3),
        }
    });
    entries.collect()
}

fn text(entries: &[Entry], wanted: impl Fn(&&Entry) -> bool) -> String {
    lines(
        &entries
            .iter()
            .filter(wanted)
            .map(Entry::line)
            .collect::<Vec<_>>(),
    )
}

fn log_count(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let path = draw.file("log");
    let entries = log(draw);
    world.file(&path, text(&entries, |_| true));
    let count =
        |wanted: &dyn Fn(&Entry) -> bool| entries.iter().filter(|entry| wanted(entry)).count();
    let (prompt, solution, answer) = match level {
        1 => (
            format!(
                "Count the lines with ERROR in the file {path}. Write the number to answer.txt."
            ),
            format!("grep -c ERROR {path} > answer.txt"),
            count(&|entry| entry.level == "ERROR").to_string(),
        ),
        2 => {
            let rows = ["ERROR", "INFO", "WARN"]
                .map(|level| format!("{level} {}", count(&|entry| entry.level == level)));
            (
                format!(
                    "For each of ERROR, INFO and WARN, in this order, write a line to answer.txt: the word, a space and the number of lines with it in the file {path}."
                ),
                format!(
                    "for l in ERROR INFO WARN; do echo $l $(grep -c $l {path}); done > answer.txt"
                ),
                rows.join("\n"),
            )
        }
        _ => {
            let rows = [8, 9, 10, 11]
                .map(|hour| format!("{hour:02} {}", count(&|entry| entry.hour == hour)));
            (
                format!(
                    "For each hour in the file {path}, write a line to answer.txt: the hour with two digits, a space and the number of lines of that hour, the earliest hour first."
                ),
                format!(
                    "cut -c12-13 {path} | sort | uniq -c | awk '{{print $2, $1}}' > answer.txt"
                ),
                rows.join("\n"),
            )
        }
    };
    Task::question(prompt, world, [solution]).answer(answer)
}

fn log_extract(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let [path, out] = [draw.file("log"), draw.file("log")];
    let entries = log(draw);
    let service = &entries[0].service;
    world.file(&path, text(&entries, |_| true));
    let (prompt, found, solution) = match level {
        1 => (
            format!("Write all lines with ERROR of the file {path} to {out}."),
            text(&entries, |entry| entry.level == "ERROR"),
            format!("grep ERROR {path} > {out}"),
        ),
        2 => (
            format!(
                "Write all lines of the file {path} with ERROR and the service {service} to {out}."
            ),
            text(&entries, |entry| {
                entry.level == "ERROR" && entry.service == *service
            }),
            format!("grep 'ERROR {service}' {path} > {out}"),
        ),
        _ => {
            let rows = entries
                .iter()
                .filter(|entry| entry.hour == 9 && entry.level != "INFO");
            let rows: Vec<_> = rows
                .map(|entry| format!("{} {}", entry.service, entry.words))
                .collect();
            (
                format!(
                    "Of all lines of the file {path} from 09:00 to 09:59 that have ERROR or WARN, write the service and the text after it to {out}, without the time and the level."
                ),
                lines(&rows),
                format!("grep T09: {path} | grep -v ' INFO ' | cut -d' ' -f3- > {out}"),
            )
        }
    };
    written(prompt, world, &out, &found, solution)
}

fn log_top(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let path = draw.file("log");
    let hosts: Vec<_> = draw
        .distinct(5, 2, 250)
        .iter()
        .map(|host| format!("10.0.0.{host}"))
        .collect();
    let counts = draw.distinct(5, 2, 12);
    let mut rows = Vec::new();
    let mut bytes = [0; 5];
    for (at, count) in counts.iter().enumerate() {
        for _ in 0..*count {
            let (page, size) = (draw.pick(&["home", "cart", "help"]), draw.between(100, 999));
            bytes[at] += size;
            rows.push(format!("{} GET /{page} 200 {size}", hosts[at]));
        }
    }
    draw.shuffle(&mut rows);
    world.file(&path, lines(&rows));
    let mut order: Vec<_> = (0..5).collect();
    order.sort_by_key(|at| std::cmp::Reverse(counts[*at]));
    let ranked = format!("cut -d' ' -f1 {path} | sort | uniq -c | sort -rn");
    let (prompt, solution, answer) = match level {
        1 => (
            format!(
                "The first column of {path} is an address. Which address has the most lines? Write it to answer.txt."
            ),
            format!("{ranked} | head -1 | awk '{{print $2}}' > answer.txt"),
            hosts[order[0]].clone(),
        ),
        2 => (
            format!(
                "The first column of {path} is an address. Write the three addresses with the most lines to answer.txt, each with a space and its number of lines, the most first."
            ),
            format!("{ranked} | head -3 | awk '{{print $2, $1}}' > answer.txt"),
            order[..3]
                .iter()
                .map(|at| format!("{} {}", hosts[*at], counts[*at]))
                .collect::<Vec<_>>()
                .join("\n"),
        ),
        _ => {
            let mut rows: Vec<_> = (0..5)
                .map(|at| format!("{} {}", hosts[at], bytes[at]))
                .collect();
            rows.sort();
            (
                format!(
                    "The first column of {path} is an address, the last a number of bytes. For each address write a line to answer.txt: the address, a space and the sum of its bytes. Sort the lines."
                ),
                format!(
                    "awk '{{b[$1] += $5}} END {{for (a in b) print a, b[a]}}' {path} | sort > answer.txt"
                ),
                rows.join("\n"),
            )
        }
    };
    Task::question(prompt, world, [solution]).answer(answer)
}

fn log_rotate(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let name = draw.name();
    let path = |number: usize| match number {
        0 => format!("{name}.log"),
        number => format!("{name}.log.{number}"),
    };
    for number in 0..level {
        world.file(path(number), draw.lines(4));
    }
    let mut goal = world.clone();
    for number in (0..level).rev() {
        goal.rename(&path(number), path(number + 1));
    }
    goal.file(path(0), "");
    let moves: Vec<_> = (0..level)
        .rev()
        .map(|number| format!("mv {} {}", path(number), path(number + 1)))
        .collect();
    let renames: Vec<_> = (0..level)
        .rev()
        .map(|number| format!("{} to {}", path(number), path(number + 1)))
        .collect();
    let prompt = format!(
        "Rename {}, then create {} again as an empty file.",
        renames.join(", then "),
        path(0)
    );
    Task::new(
        prompt,
        world,
        goal,
        [format!("{} && touch {}", moves.join(" && "), path(0))],
    )
}

fn settings(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let (path, keys) = (draw.file("conf"), draw.nouns(5));
    let values = draw.distinct(6, 10, 999);
    let rows: Vec<_> = keys
        .iter()
        .zip(&values)
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    world.file(&path, lines(&rows));
    let key = &keys[2];
    let mut after = rows.clone();
    let (prompt, solution) = match level {
        1 => {
            after[2] = format!("{key}={}", values[5]);
            let prompt = format!("Set {key} to {} in the file {path}.", values[5]);
            (
                prompt,
                format!("sed -i 's/^{key}=.*/{key}={}/' {path}", values[5]),
            )
        }
        2 => {
            after[2] = format!("# {}", rows[2]);
            let prompt = format!(
                "In the file {path}, turn the line of {key} into a comment: put # and a space before it."
            );
            (prompt, format!("sed -i 's/^{key}=/# &/' {path}"))
        }
        _ => {
            after[0] = format!("{}={}", keys[0], values[5]);
            after.remove(2);
            after.push("debug=true".to_owned());
            let prompt = format!(
                "In the file {path}, set {} to {}, delete the line of {key}, and add the line debug=true at the end.",
                keys[0], values[5]
            );
            (
                prompt,
                format!(
                    "sed -i 's/^{}=.*/{}={}/; /^{key}=/d; $a debug=true' {path}",
                    keys[0], keys[0], values[5]
                ),
            )
        }
    };
    written(prompt, world, &path, &lines(&after), solution)
}
