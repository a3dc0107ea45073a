//! Editing text with sed, awk, tr and their like.

use super::{Family, bystander, written};
use crate::{
    draw::{Draw, lines},
    task::Task,
};

pub(super) const FAMILIES: &[Family] = &[
    Family::new("replace-word", "one word for another", replace_word),
    Family::new("delete-lines", "lines away by what they hold", delete_lines),
    Family::new("upper-case", "capital and small letters", upper_case),
    Family::new("line-range", "some lines out of many", line_range),
    Family::new(
        "reverse-lines",
        "lines backwards, or numbered",
        reverse_lines,
    ),
    Family::new("extract-column", "columns of plain text", extract_column),
    Family::new("trim-blanks", "blanks that are too many", trim_blanks),
    Family::new("split-line", "a list in one line, and back", split_line),
    Family::new(
        "filter-lines",
        "lines that hold a word, elsewhere",
        filter_lines,
    ),
];

fn replace_word(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let (top, names) = (draw.name(), draw.files(3, "txt"));
    let [old, new, key] = [draw.noun(), draw.noun(), draw.noun()];
    for name in &names {
        let mut rows = draw.list(3);
        for row in &mut rows {
            *row = format!("{row} {old} {} {old}", draw.words(1));
        }
        rows.push(format!("{key} {old} {}", draw.words(2)));
        draw.shuffle(&mut rows);
        world.file(format!("{top}/{name}"), lines(&rows));
    }
    world.file(format!("{top}/{}", draw.file("csv")), format!("{old}\n"));
    let mut goal = world.clone();
    let path = format!("{top}/{}", names[0]);
    let (prompt, solution) = match level {
        1 => {
            goal.file(&path, world.text(&path).replace(&old, &new));
            let prompt = format!("Replace every {old} with {new} in the file {path}.");
            (prompt, format!("sed -i 's/{old}/{new}/g' {path}"))
        }
        2 => {
            for name in &names {
                let path = format!("{top}/{name}");
                goal.file(&path, world.text(&path).replace(&old, &new));
            }
            let prompt =
                format!("Replace every {old} with {new} in all .txt files in the folder {top}.");
            (prompt, format!("sed -i 's/{old}/{new}/g' {top}/*.txt"))
        }
        _ => {
            for name in &names {
                let path = format!("{top}/{name}");
                let rows = world.text(&path).lines();
                let rows: Vec<_> = rows
                    .map(|row| {
                        if row.starts_with(&key) {
                            row.replace(&old, &new)
                        } else {
                            row.to_owned()
                        }
                    })
                    .collect();
                goal.file(&path, lines(&rows));
            }
            let prompt = format!(
                "In all .txt files in the folder {top}, replace {old} with {new}, but only on lines that start with {key}."
            );
            (
                prompt,
                format!("sed -i '/^{key}/s/{old}/{new}/g' {top}/*.txt"),
            )
        }
    };
    Task::new(prompt, world, goal, [solution])
}

fn delete_lines(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let (path, word) = (draw.file("txt"), draw.noun());
    let mut rows = draw.list(8);
    for at in draw.distinct(3, 0, 7) {
        rows[at] = format!("{} {word} {}", draw.words(1), draw.words(2));
    }
    for at in [2, 5, 6] {
        rows.insert(at, String::new());
    }
    for at in [1, 7] {
        rows.insert(at, format!("# {}", draw.words(3)));
    }
    world.file(&path, lines(&rows));
    let keep = |wanted: &dyn Fn(&str) -> bool| {
        let kept: Vec<_> = rows.iter().filter(|row| wanted(row)).collect();
        lines(&kept)
    };
    let (prompt, text, solution) = match level {
        1 => (
            format!("Delete every line that contains {word} from the file {path}."),
            keep(&|row| !row.contains(&word)),
            format!("sed -i '/{word}/d' {path}"),
        ),
        2 => (
            format!(
                "Delete every empty line and every line that starts with # from the file {path}."
            ),
            keep(&|row| !row.is_empty() && !row.starts_with('#')),
            format!("sed -i '/^$/d; /^#/d' {path}"),
        ),
        _ => (
            format!(
                "Delete every line from the file {path} that neither contains {word} nor starts with #."
            ),
            keep(&|row| row.contains(&word) || row.starts_with('#')),
            format!("sed -i -n '/{word}/p; /^#/p' {path}"),
        ),
    };
    written(prompt, world, &path, &text, solution)
}

fn upper_case(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let [path, out] = [draw.file("txt"), draw.file("txt")];
    let rows = draw.list(4);
    world.file(&path, lines(&rows));
    let text = lines(&rows);
    let (prompt, place, text, solution) = match level {
        1 => (
            format!("Write the content of {path} in capital letters to {out}."),
            &out,
            text.to_uppercase(),
            format!("tr a-z A-Z < {path} > {out}"),
        ),
        2 => (
            format!("Change all letters in the file {path} to capital letters."),
            &path,
            text.to_uppercase(),
            format!("sed -i 's/.*/\\U&/' {path}"),
        ),
        _ => {
            let capital = rows
                .iter()
                .map(|row| format!("{}{}", row[..1].to_uppercase(), &row[1..]));
            (
                format!(
                    "Change the first letter of each line of the file {path} to a capital letter."
                ),
                &path,
                lines(&capital.collect::<Vec<_>>()),
                format!("sed -i 's/^./\\U&/' {path}"),
            )
        }
    };
    written(prompt, world, place, &text, solution)
}

fn line_range(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let [path, out] = [draw.file("txt"), draw.file("txt")];
    let rows = draw.list(20);
    world.file(&path, lines(&rows));
    let (first, count) = (draw.between(3, 9), draw.between(3, 8));
    let last = first + count;
    let (prompt, text, solution) = match level {
        1 => (
            format!("Write the first {first} lines of {path} to {out}."),
            lines(&rows[..first]),
            format!("head -n {first} {path} > {out}"),
        ),
        2 => (
            format!("Write lines {first} to {last} of {path} to {out}."),
            lines(&rows[first - 1..last]),
            format!("sed -n '{first},{last}p' {path} > {out}"),
        ),
        _ => {
            let picked: Vec<_> = rows
                .iter()
                .skip(1)
                .step_by(2)
                .chain(&rows[20 - count..])
                .collect();
            (
                format!(
                    "Write every second line of {path}, beginning with line 2, to {out}, and after them its last {count} lines."
                ),
                lines(&picked),
                format!("(sed -n '2~2p' {path}; tail -n {count} {path}) > {out}"),
            )
        }
    };
    written(prompt, world, &out, &text, solution)
}

fn reverse_lines(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let [path, out] = [draw.file("txt"), draw.file("txt")];
    let mut rows = draw.list(7);
    world.file(&path, lines(&rows));
    let numbered = |rows: &[String]| {
        let rows = rows
            .iter()
            .enumerate()
            .map(|(at, row)| format!("{}: {row}", at + 1));
        lines(&rows.collect::<Vec<_>>())
    };
    let (prompt, text, solution) = match level {
        1 => {
            rows.reverse();
            let prompt = format!(
                "Write the lines of {path} in reverse order, the last line first, to {out}."
            );
            (prompt, lines(&rows), format!("tac {path} > {out}"))
        }
        2 => (
            format!(
                "Write the lines of {path} to {out}, each after its line number, a colon and a space, such as 1: for the first."
            ),
            numbered(&rows),
            format!("awk '{{print NR \": \" $0}}' {path} > {out}"),
        ),
        _ => {
            rows.reverse();
            (
                format!(
                    "Write the lines of {path} in reverse order to {out}, each after its new line number, a colon and a space, such as 1: for the first line of {out}."
                ),
                numbered(&rows),
                format!("tac {path} | awk '{{print NR \": \" $0}}' > {out}"),
            )
        }
    };
    written(prompt, world, &out, &text, solution)
}

fn extract_column(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let [path, out] = [draw.file("txt"), draw.file("txt")];
    let cells: Vec<[String; 3]> = draw
        .nouns(7)
        .into_iter()
        .map(|noun| [noun, draw.between(10, 99).to_string(), draw.words(1)])
        .collect();
    let mark = [" ", ":", " "][level - 1];
    world.file(
        &path,
        lines(&cells.iter().map(|row| row.join(mark)).collect::<Vec<_>>()),
    );
    let shown = |render: &dyn Fn(&[String; 3]) -> String| {
        lines(&cells.iter().map(render).collect::<Vec<_>>())
    };
    let (prompt, text, solution) = match level {
        1 => (
            format!("Write the second column of {path} to {out}."),
            shown(&|row| row[1].clone()),
            format!("awk '{{print $2}}' {path} > {out}"),
        ),
        2 => (
            format!(
                "The columns of {path} are separated by colons. Write its first and third column, with a space between them, to {out}."
            ),
            shown(&|row| format!("{} {}", row[0], row[2])),
            format!("awk -F: '{{print $1, $3}}' {path} > {out}"),
        ),
        _ => (
            format!(
                "Write the columns of {path} to {out} in the order third, first, second, separated by commas, and only for rows whose second column is 50 or more."
            ),
            lines(
                &cells
                    .iter()
                    .filter(|row| row[1].as_str() >= "50")
                    .map(|row| format!("{},{},{}", row[2], row[0], row[1]))
                    .collect::<Vec<_>>(),
            ),
            format!("awk '$2 >= 50 {{print $3 \",\" $1 \",\" $2}}' {path} > {out}"),
        ),
    };
    written(prompt, world, &out, &text, solution)
}

fn trim_blanks(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let path = draw.file("txt");
    let clean = draw.list(6);
    let mut rows = clean.clone();
    for row in &mut rows {
        let blanks = " ".repeat(draw.between(2, 4));
        *row = match level {
            1 => format!("{row}{blanks}"),
            2 => row.replace(' ', &blanks),
            _ => format!("{blanks}{}\t", row.replace(' ', "\t")),
        };
    }
    world.file(&path, lines(&rows));
    let (prompt, solution) = match level {
        1 => (
            format!("Remove the spaces at the end of each line of the file {path}."),
            format!("sed -i 's/ *$//' {path}"),
        ),
        2 => (
            format!("Replace each run of several spaces in the file {path} with a single space."),
            format!("sed -i 's/  */ /g' {path}"),
        ),
        _ => (
            format!(
                "In the file {path}, remove spaces and tabs at the start and the end of each line, and replace every other tab with a single space."
            ),
            format!("sed -i 's/^[ \\t]*//; s/[ \\t]*$//; s/\\t/ /g' {path}"),
        ),
    };
    written(prompt, world, &path, &lines(&clean), solution)
}

fn split_line(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let [path, out] = [draw.file("txt"), draw.file("txt")];
    let mut words = draw.nouns(8);
    let (prompt, source, text, solution) = match level {
        1 => (
            format!(
                "The file {path} is one line of words with commas between them. Write each word on a line of its own to {out}."
            ),
            format!("{}\n", words.join(",")),
            lines(&words),
            format!("tr ',' '\\n' < {path} > {out}"),
        ),
        2 => (
            format!("Write all lines of {path} as one line, with commas between them, to {out}."),
            lines(&words),
            format!("{}\n", words.join(",")),
            format!("paste -sd, {path} > {out}"),
        ),
        _ => {
            let source = format!("{}\n", words.join(";"));
            words.sort();
            (
                format!(
                    "The file {path} is one line of words with semicolons between them. Write the words in alphabetical order as one line, with a comma and a space between them, to {out}."
                ),
                source,
                format!("{}\n", words.join(", ")),
                format!("tr ';' '\\n' < {path} | sort | paste -sd, | sed 's/,/, /g' > {out}"),
            )
        }
    };
    world.file(&path, source);
    written(prompt, world, &out, &text, solution)
}

fn filter_lines(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let [path, out] = [draw.file("txt"), draw.file("txt")];
    let [word, other] = [draw.noun(), draw.noun()];
    let mut rows = draw.list(6);
    for _ in 0..3 {
        rows.push(format!("{word} {}", draw.words(3)));
        rows.push(format!("{} {word}", draw.words(2)));
        rows.push(format!(
            "{} {word} {} {other}",
            draw.words(1),
            draw.words(1)
        ));
    }
    draw.shuffle(&mut rows);
    world.file(&path, lines(&rows));
    let keep = |wanted: &dyn Fn(&str) -> bool| {
        lines(&rows.iter().filter(|row| wanted(row)).collect::<Vec<_>>())
    };
    let (prompt, text, solution) = match level {
        1 => (
            format!("Write all lines of {path} that contain {word} to {out}."),
            keep(&|row| row.contains(&word)),
            format!("grep {word} {path} > {out}"),
        ),
        2 => (
            format!("Write all lines of {path} that start with {word} to {out}."),
            keep(&|row| row.starts_with(&word)),
            format!("grep '^{word}' {path} > {out}"),
        ),
        _ => (
            format!(
                "Write all lines of {path} that contain {word} but not {other} and do not start with {word} to {out}."
            ),
            keep(&|row| row.contains(&word) && !row.contains(&other) && !row.starts_with(&word)),
            format!("grep {word} {path} | grep -v {other} | grep -v '^{word}' > {out}"),
        ),
    };
    written(prompt, world, &out, &text, solution)
}
