//! Dates, checksums, codes, and small programs in Python.

use super::{Family, bystander, written};
use crate::{
    draw::{Draw, lines},
    task::Task,
    world::quote,
};

pub(super) const FAMILIES: &[Family] = &[
    Family::new(
        "date-compute",
        "weekdays and days between dates",
        date_compute,
    ),
    Family::new("set-time", "when a file was modified", set_time),
    Family::new("checksum-make", "SHA-256 sums of files", checksum_make),
    Family::new(
        "checksum-find",
        "the file that does not match its sum",
        checksum_find,
    ),
    Family::new("base64-text", "text to Base64 and back", base64_text),
    Family::new(
        "python-compute",
        "arithmetic that a shell cannot do",
        python_compute,
    ),
    Family::new(
        "python-run",
        "running scripts and keeping what they print",
        python_run,
    ),
];

/// Year, month and day of a day's number since 1970-01-01, and its weekday.
fn date(day: usize) -> (String, &'static str) {
    let (mut year, mut rest) = (1970, day);
    let leap = |year: usize| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    while rest >= 365 + usize::from(leap(year)) {
        rest -= 365 + usize::from(leap(year));
        year += 1;
    }
    let lengths = [
        31,
        28 + usize::from(leap(year)),
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ];
    let mut month = 0;
    while rest >= lengths[month] {
        rest -= lengths[month];
        month += 1;
    }
    let names = [
        "Thursday",
        "Friday",
        "Saturday",
        "Sunday",
        "Monday",
        "Tuesday",
        "Wednesday",
    ];
    (
        format!("{year}-{:02}-{:02}", month + 1, rest + 1),
        names[day % 7],
    )
}

fn date_compute(draw: &mut Draw, level: usize) -> Task {
    let world = bystander(draw);
    // From 2000 to 2040; the parity of the day keeps the dates of held-out tasks apart.
    let first = 2 * draw.between(5479, 12_780) + usize::from(draw.held_out());
    let gap = draw.between(20, 900);
    let ((one, weekday), (two, _)) = (date(first), date(first + gap));
    let (prompt, solution, answer) = match level {
        1 => (
            format!("Which day of the week is {one}? Write its English name to answer.txt."),
            format!("date -d {one} +%A > answer.txt"),
            weekday.to_owned(),
        ),
        2 => (
            format!(
                "Which date is {gap} days after {one}? Write it in the form YYYY-MM-DD to answer.txt."
            ),
            format!("date -d '{one} + {gap} days' +%F > answer.txt"),
            two,
        ),
        _ => (
            format!("How many days are there from {one} to {two}? Write the number to answer.txt."),
            format!(
                "echo $(( ($(date -d {two} +%s) - $(date -d {one} +%s)) / 86400 )) > answer.txt"
            ),
            gap.to_string(),
        ),
    };
    Task::question(prompt, world, [solution]).answer(answer)
}

fn set_time(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let [top, name, other] = [draw.name(), draw.file("txt"), draw.file("txt")];
    let names = draw.files(3, "txt");
    for path in names
        .iter()
        .map(|name| format!("{top}/{name}"))
        .chain([name.clone(), other.clone()])
    {
        world.file(path, draw.lines(1));
    }
    let when = |day: usize, clock: usize| {
        format!("{} {:02}:{:02}:00", date(day).0, clock / 60, clock % 60)
    };
    let time = when(draw.between(18_000, 19_500), draw.between(0, 1439));
    let mut goal = world.clone();
    let (prompt, solution) = match level {
        1 => {
            goal.time(&name, &time);
            let prompt = format!("Set the time of modification of the file {name} to {time}.");
            (prompt, format!("touch -d '{time}' {name}"))
        }
        2 => {
            world.time(&other, &time);
            goal.time(&name, &time);
            let prompt =
                format!("Give the file {name} the same time of modification as the file {other}.");
            (prompt, format!("touch -r {other} {name}"))
        }
        _ => {
            for name in &names {
                goal.time(format!("{top}/{name}"), &time);
            }
            let prompt = format!(
                "Set the time of modification of every file in the folder {top} to {time}, and of no other file."
            );
            (prompt, format!("touch -d '{time}' {top}/*"))
        }
    };
    Task::new(prompt, world, goal, [solution]).guard(
        format!(
            "[ $(stat -c %Y /work/{other}) = $(date -u -d '{}' +%s) ] && echo same",
            if level == 2 {
                &time
            } else {
                "2024-03-01 12:00:00"
            }
        ),
        "same",
    )
}

/// Says whether the words that a snippet prints begin with the sum of a text that is known beforehand. (The model has the same text in a file.)
fn has_sum(print: &str, text: &str) -> String {
    format!(
        "sum=$(printf %s {} | sha256sum | cut -c1-64); [ \"$({print} | tr -s ' \\t' '\\n' | head -1)\" = \"$sum\" ] && echo right",
        quote(text)
    )
}

fn checksum_make(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let (top, out) = (draw.name(), draw.file("sums"));
    let names = draw.files(4, "dat");
    for name in &names {
        world.file(format!("{top}/{name}"), draw.lines(3));
    }
    let path = format!("{top}/{}", names[0]);
    let (prompt, solution, count) = match level {
        1 => (
            format!("Write the SHA-256 sum of the file {path} to answer.txt."),
            format!("sha256sum {path} > answer.txt"),
            1,
        ),
        2 => (
            format!(
                "Write the SHA-256 sums of all files in the folder {top} to {out}, in the format of sha256sum, with paths that begin with {top}."
            ),
            format!("sha256sum {top}/* > {out}"),
            4,
        ),
        _ => (
            format!(
                "In the folder {top}, write the SHA-256 sums of its files to the new file SHA256SUMS, so that sha256sum -c SHA256SUMS works in that folder. SHA256SUMS must not list itself."
            ),
            format!("cd {top} && sha256sum *.dat > /tmp/sums && mv /tmp/sums SHA256SUMS"),
            4,
        ),
    };
    let texts: Vec<_> = names
        .iter()
        .map(|name| world.text(&format!("{top}/{name}")).to_owned())
        .collect();
    let mut task = Task::question(prompt, world, [solution]);
    for (name, text) in names.iter().zip(&texts).take(count) {
        let print = match level {
            1 => "plain answer.txt".to_owned(),
            2 => format!("plain {out} | grep '  {top}/{name}$'"),
            _ => format!("plain {top}/SHA256SUMS | grep '  {name}$'"),
        };
        task = task.part(has_sum(&print, text), "right");
    }
    let sums = [String::from("answer.txt"), out, format!("{top}/SHA256SUMS")];
    task.need(
        format!("plain {} | grep -c .", sums[level - 1]),
        count.to_string(),
    )
}

fn checksum_find(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let top = draw.name();
    let names = draw.files(8, "dat");
    for name in &names {
        world.file(format!("{top}/{name}"), draw.lines(2));
    }
    let bad = draw.distinct([1, 3, 2][level - 1], 0, 7);
    let originals = world.clone();
    let mut spoil = Vec::new();
    for at in &bad {
        let path = format!("{top}/{}", names[*at]);
        let text = draw.lines(2);
        spoil.push(format!("printf %s {} >{path}", quote(&text)));
        world.file(path, text);
    }
    // The sums are made of the files as they were, which are then overwritten.
    let sums = format!("cd {top} && sha256sum *.dat >SUMS && cd ..");
    let found: Vec<_> = bad.iter().map(|at| &names[*at]).collect();
    let failed = format!("cd {top} && sha256sum -c SUMS 2>/dev/null | grep FAILED | cut -d: -f1");
    if level == 3 {
        let mut goal = world.clone();
        let names: Vec<_> = found.iter().map(|name| format!("{top}/{name}")).collect();
        names.iter().for_each(|path| {
            goal.rename(
                path,
                path.replace(&format!("{top}/"), &format!("{top}/bad/")),
            )
        });
        let prompt = format!(
            "The file {top}/SUMS has the SHA-256 sums of the files in {top}. Create the folder {top}/bad and move the files that do not match their sums into it."
        );
        let solution = format!("mkdir {top}/bad && {failed} | xargs mv -t bad");
        let task = Task::new(prompt, world, goal, [solution]).built(originals);
        return spoil.into_iter().fold(task.prepare(sums), Task::prepare);
    }
    let (which, list) = if level == 1 {
        ("One file does", "its name")
    } else {
        ("Some files do", "their names")
    };
    let prompt = format!(
        "The file {top}/SUMS has the SHA-256 sums of the files in {top}. {which} not match. Write {list} to answer.txt{}",
        if level == 1 {
            "."
        } else {
            ", one on each line."
        }
    );
    let task = Task::question(prompt, world, [format!("({failed}) > answer.txt")]).built(originals);
    spoil
        .into_iter()
        .fold(task.prepare(sums), Task::prepare)
        .answer_names(&found)
}

fn base64_text(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let [path, out] = [draw.file("txt"), draw.file("txt")];
    let rows = draw.list(if level == 3 { 5 } else { 2 });
    let text = lines(&rows);
    let code = base64(&text);
    match level {
        1 => {
            world.file(&path, format!("{code}\n"));
            let prompt = format!("The file {path} is text in Base64. Decode it to {out}.");
            written(
                prompt,
                world,
                &out,
                &text,
                format!("base64 -d {path} > {out}"),
            )
        }
        2 => {
            world.file(&path, &text);
            let prompt = format!("Write the content of {path} in Base64 to {out}.");
            // Whether the code is in one line or in several does not matter.
            Task::question(prompt, world, [format!("base64 {path} > {out}")])
                .part(format!("plain {out} | tr -d '\\n'"), code)
        }
        _ => {
            let codes: Vec<_> = rows.iter().map(|row| base64(row)).collect();
            world.file(&path, lines(&codes));
            let prompt = format!(
                "Each line of the file {path} is a text in Base64. Decode each and write it on a line of its own to {out}."
            );
            let solution =
                format!("while read -r l; do echo $l | base64 -d; echo; done < {path} > {out}");
            written(prompt, world, &out, &text, solution)
        }
    }
}

fn python_compute(draw: &mut Draw, level: usize) -> Task {
    let world = bystander(draw);
    let parity = usize::from(draw.held_out());
    let (prompt, program, answer) = match level {
        1 => {
            let [a, b] = [
                draw.between(100_000, 999_999),
                2 * draw.between(50_000, 499_999) + parity,
            ];
            let product = u128::try_from(a).unwrap_or(0) * u128::try_from(b).unwrap_or(0);
            (
                format!("Use python3 to compute {a} * {b}. Write the result to answer.txt."),
                format!("print({a} * {b})"),
                product.to_string(),
            )
        }
        2 => {
            let (last, by) = (2 * draw.between(500, 4000) + parity, draw.between(3, 29));
            let sum: usize = (1..=last).filter(|number| number % by == 0).sum();
            (
                format!(
                    "Add up all whole numbers from 1 to {last} that are divisible by {by}. Write the sum to answer.txt."
                ),
                format!("print(sum(n for n in range(1, {last} + 1) if n % {by} == 0))"),
                sum.to_string(),
            )
        }
        _ => {
            let nth = 2 * draw.between(100, 900) + parity;
            let prime = (2_u32..)
                .filter(|n| (2..).take_while(|d| d * d <= *n).all(|d| n % d != 0))
                .nth(nth - 1);
            (
                format!(
                    "Prime number 1 is 2, prime number 2 is 3. Write prime number {nth} to answer.txt."
                ),
                format!(
                    "p = [n for n in range(2, 20000) if all(n % d for d in range(2, int(n ** 0.5) + 1))]; print(p[{nth} - 1])"
                ),
                prime.unwrap_or(0).to_string(),
            )
        }
    };
    Task::question(
        prompt,
        world,
        [format!("python3 -c '{program}' > answer.txt")],
    )
    .answer(answer)
}

fn python_run(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let (path, out) = (draw.file("py"), draw.file("txt"));
    let [a, b] = [draw.between(1000, 9999), draw.between(20, 99)];
    let number = draw.between(1000, 9999);
    let mixed = |x: usize| (x * a + b) % 10_007;
    let formula = format!("(x * {a} + {b}) % 10007");
    let (prompt, program, solution, text) = match level {
        1 => (
            format!("Run the script {path} with python3 and write what it prints to {out}."),
            format!("x = {number}\nprint({formula})\n"),
            format!("python3 {path} > {out}"),
            format!("{}\n", mixed(number)),
        ),
        2 => (
            format!(
                "Run the script {path} with python3 and the argument {number}, and write what it prints to {out}."
            ),
            format!("import sys\nx = int(sys.argv[1])\nprint({formula})\n"),
            format!("python3 {path} {number} > {out}"),
            format!("{}\n", mixed(number)),
        ),
        _ => (
            format!(
                "The script {path} takes a number as its argument. Run it with python3 for every number from {b} to {}, in this order, and write everything that it prints to {out}.",
                b + 9
            ),
            format!("import sys\nx = int(sys.argv[1])\nprint(x, {formula})\n"),
            format!(
                "for n in $(seq {b} {}); do python3 {path} $n; done > {out}",
                b + 9
            ),
            (b..b + 10).map(|x| format!("{x} {}\n", mixed(x))).collect(),
        ),
    };
    world.file(&path, program);
    written(prompt, world, &out, &text, solution)
}

/// A text in Base64.
fn base64(text: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut coded = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let letter = usize::try_from(bits >> (18 - 6 * place) & 63).unwrap_or(0);
            let padded = place > chunk.len();
            coded.push(if padded {
                '='
            } else {
                char::from(LETTERS[letter])
            });
        }
    }
    coded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_pads_what_does_not_fill_three_bytes() {
        for (text, code) in [
            ("", ""),
            ("a", "YQ=="),
            ("ab", "YWI="),
            ("abc", "YWJj"),
            ("abcd", "YWJjZA=="),
        ] {
            assert_eq!(base64(text), code);
        }
    }

    #[test]
    fn days_are_dates_and_weekdays() {
        for (day, written, weekday) in [
            (0, "1970-01-01", "Thursday"),
            (11_016, "2000-02-29", "Tuesday"),
            (19_782, "2024-02-29", "Thursday"),
            (20_088, "2024-12-31", "Tuesday"),
            (20_089, "2025-01-01", "Wednesday"),
        ] {
            assert_eq!(date(day), (written.to_owned(), weekday));
        }
    }
}
