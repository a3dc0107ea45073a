//! Looking into files: which one says something, how often, how much.

use super::{Family, bystander};
use crate::{draw::Draw, task::Task};

pub(super) const FAMILIES: &[Family] = &[
    Family::new("find-text", "which files hold a word", find_text),
    Family::new("count-lines", "how many lines files have", count_lines),
    Family::new("count-matches", "how many lines hold a word", count_matches),
    Family::new("line-number", "on which line a word stands", line_number),
    Family::new("word-count", "how many words, and which most", word_count),
    Family::new(
        "longest-line",
        "the longest and shortest lines",
        longest_line,
    ),
];

fn find_text(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let [top, target, inner] = [draw.name(), draw.name(), draw.noun()];
    let (word, names) = (draw.noun(), draw.files(8, "txt"));
    let mut found = draw.distinct([1, 3, 3][level - 1], 0, 7);
    found.sort_unstable();
    let path = |at: usize| {
        let below = if level == 3 && at % 2 == 1 {
            format!("{inner}/")
        } else {
            String::new()
        };
        format!("{top}/{below}{}", names[at])
    };
    for at in 0..8 {
        let mut lines = draw.list(4);
        if found.contains(&at) {
            let place = draw.between(0, 3);
            lines[place] = format!("{} {word} {}", draw.words(2), draw.words(1));
        }
        world.file(path(at), crate::draw::lines(&lines));
    }
    let answer: Vec<_> = found.iter().map(|at| &names[*at]).collect();
    match level {
        1 => {
            let prompt = format!(
                "Find the file in the folder {top} that contains the word {word}. Write its name to answer.txt."
            );
            let solution = format!("grep -l {word} {top}/* > answer.txt");
            Task::question(prompt, world, [solution]).answer_names(&answer)
        }
        2 => {
            let prompt = format!(
                "Find all files in the folder {top} that contain the word {word}. Write their names to answer.txt, one on each line."
            );
            let solution = format!("cd {top} && grep -l {word} * > ../answer.txt");
            Task::question(prompt, world, [solution]).answer_names(&answer)
        }
        _ => {
            let mut goal = world.clone();
            for at in &found {
                goal.rename(&path(*at), format!("{target}/{}", names[*at]));
            }
            let prompt = format!(
                "Create the folder {target}. Move every file in the folder {top}, and in all folders below it, that contains the word {word} into {target}."
            );
            let solution =
                format!("mkdir {target} && grep -rl {word} {top} | xargs mv -t {target}");
            Task::new(prompt, world, goal, [solution])
        }
    }
}

fn count_lines(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let (top, names) = (draw.name(), draw.files(5, "txt"));
    let counts = draw.distinct(5, 5, 30);
    for (name, count) in names.iter().zip(&counts) {
        world.file(format!("{top}/{name}"), draw.lines(*count));
    }
    world.file(format!("{top}/{}", draw.file("log")), draw.lines(31));
    let most = (0..5).max_by_key(|at| counts[*at]).unwrap_or(0);
    let (prompt, solution, answer) = match level {
        1 => (
            format!(
                "Count the lines in the file {top}/{}. Write the number to answer.txt.",
                names[0]
            ),
            format!("wc -l < {top}/{} > answer.txt", names[0]),
            counts[0].to_string(),
        ),
        2 => (
            format!(
                "Count the lines in all .txt files in the folder {top} together. Write the number to answer.txt."
            ),
            format!("cat {top}/*.txt | wc -l > answer.txt"),
            counts.iter().sum::<usize>().to_string(),
        ),
        _ => (
            format!(
                "Which .txt file in the folder {top} has the most lines? Write its name without the folder, a space and its number of lines to answer.txt."
            ),
            format!(
                "cd {top} && wc -l *.txt | grep -v total | sort -n | tail -1 | awk '{{print $2, $1}}' > ../answer.txt"
            ),
            format!("{} {}", names[most], counts[most]),
        ),
    };
    Task::question(prompt, world, [solution]).answer(answer)
}

fn count_matches(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let (top, names) = (draw.name(), draw.files(3, "txt"));
    let (word, other) = (draw.noun(), draw.noun());
    let counts = draw.distinct(3, 4, 14);
    let capitals = draw.between(2, 5);
    for (name, count) in names.iter().zip(&counts) {
        let mut lines = draw.list(12);
        lines.extend((0..*count).map(|_| format!("{word} {}", draw.words(3))));
        lines.extend((0..capitals).map(|_| format!("{} {}", word.to_uppercase(), draw.words(3))));
        lines.push(other.clone());
        draw.shuffle(&mut lines);
        world.file(format!("{top}/{name}"), crate::draw::lines(&lines));
    }
    let path = format!("{top}/{}", names[0]);
    let (prompt, solution, answer) = match level {
        1 => (
            format!(
                "Count the lines in the file {path} that contain {word}. Write the number to answer.txt."
            ),
            format!("grep -c {word} {path} > answer.txt"),
            counts[0].to_string(),
        ),
        2 => (
            format!(
                "Count the lines in the file {path} that contain {word}, in capital or small letters. Write the number to answer.txt."
            ),
            format!("grep -ci {word} {path} > answer.txt"),
            (counts[0] + capitals).to_string(),
        ),
        _ => {
            let mut rows: Vec<_> = names.iter().zip(&counts).collect();
            rows.sort();
            let rows: Vec<_> = rows
                .iter()
                .map(|(name, count)| format!("{name} {count}"))
                .collect();
            (
                format!(
                    "For each file in the folder {top}, in the order of their names, write a line to answer.txt: its name without the folder, a space and the number of its lines that contain {word} in small letters."
                ),
                format!(
                    "cd {top} && for f in *; do echo $f $(grep -c {word} $f); done > ../answer.txt"
                ),
                rows.join("\n"),
            )
        }
    };
    Task::question(prompt, world, [solution]).answer(answer)
}

fn line_number(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let (path, word) = (draw.file("txt"), draw.noun());
    let mut lines = draw.list(40);
    let mut places = match level {
        3 => vec![draw.between(3, 15), draw.between(18, 38)],
        _ => draw.distinct(3 * level - 2, 3, 38),
    };
    places.sort_unstable();
    for place in &places {
        lines[place - 1] = format!("{} {word}", draw.words(2));
    }
    world.file(&path, crate::draw::lines(&lines));
    let numbers: Vec<_> = places.iter().map(usize::to_string).collect();
    let (prompt, solution, answer) = match level {
        1 => (
            format!(
                "On which line of the file {path} is the word {word}? Write the line number to answer.txt."
            ),
            format!("grep -n {word} {path} | cut -d: -f1 > answer.txt"),
            numbers[0].clone(),
        ),
        2 => (
            format!(
                "On which lines of the file {path} is the word {word}? Write the line numbers to answer.txt, one on each line, the smallest first."
            ),
            format!("grep -n {word} {path} | cut -d: -f1 > answer.txt"),
            numbers.join("\n"),
        ),
        _ => (
            format!(
                "Two lines of the file {path} contain the word {word}. Write all lines between them, without these two, to answer.txt."
            ),
            format!("sed -n '/{word}/,/{word}/p' {path} | sed '1d;$d' > answer.txt"),
            lines[places[0]..places[1] - 1].join("\n"),
        ),
    };
    Task::question(prompt, world, [solution]).answer(answer)
}

fn word_count(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let path = draw.file("txt");
    let words = draw.nouns(5);
    let counts = draw.distinct(5, 3, 14);
    let mut all: Vec<&String> = Vec::new();
    for (word, count) in words.iter().zip(&counts) {
        all.extend((0..*count).map(|_| word));
    }
    draw.shuffle(&mut all);
    let rows: Vec<_> = all
        .chunks(6)
        .map(|row| {
            row.iter()
                .map(|word| word.as_str())
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    world.file(&path, crate::draw::lines(&rows));
    let mut order: Vec<_> = (0..5).collect();
    order.sort_by_key(|at| std::cmp::Reverse(counts[*at]));
    let split = format!("tr ' ' '\\n' < {path}");
    let (prompt, solution, answer) = match level {
        1 => (
            format!("Count the words in the file {path}. Write the number to answer.txt."),
            format!("wc -w < {path} > answer.txt"),
            all.len().to_string(),
        ),
        2 => (
            format!(
                "How many times does the word {} occur in the file {path}? A line may have it several times. Write the number to answer.txt.",
                words[0]
            ),
            format!("grep -o {} {path} | wc -l > answer.txt", words[0]),
            counts[0].to_string(),
        ),
        _ => {
            let rows: Vec<_> = order[..3]
                .iter()
                .map(|at| format!("{} {}", words[*at], counts[*at]))
                .collect();
            (
                format!(
                    "Find the three most frequent words in the file {path}. Write each with a space and how many times it occurs to answer.txt, one on each line, the most frequent first."
                ),
                format!(
                    "{split} | sort | uniq -c | sort -rn | head -3 | awk '{{print $2, $1}}' > answer.txt"
                ),
                rows.join("\n"),
            )
        }
    };
    Task::question(prompt, world, [solution]).answer(answer)
}

fn longest_line(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let path = draw.file("txt");
    let lengths = draw.distinct(12, 8, 70);
    let line = |length: &usize| draw.bytes(length + 1)[..*length].replace([' ', '\n'], "-");
    let lines: Vec<_> = lengths.iter().map(line).collect();
    world.file(&path, crate::draw::lines(&lines));
    let longest = (0..12).max_by_key(|at| lines[*at].len()).unwrap_or(0);
    let shortest = (0..12).min_by_key(|at| lines[*at].len()).unwrap_or(0);
    let ranked = format!("awk '{{print length, NR, $0}}' {path} | sort -n");
    let (prompt, solution, answer) = match level {
        1 => (
            format!(
                "How many characters has the longest line of the file {path}? Write the number to answer.txt."
            ),
            format!("wc -L < {path} > answer.txt"),
            lines[longest].len().to_string(),
        ),
        2 => (
            format!("Write the longest line of the file {path} to answer.txt."),
            format!("{ranked} | tail -1 | cut -d' ' -f3- > answer.txt"),
            lines[longest].clone(),
        ),
        _ => (
            format!(
                "Write the line number of the shortest line of the file {path}, a space, and the line number of its longest line to answer.txt."
            ),
            format!("echo $({ranked} | sed -n '1p;$p' | cut -d' ' -f2) > answer.txt"),
            format!("{} {}", shortest + 1, longest + 1),
        ),
    };
    Task::question(prompt, world, [solution]).answer(answer)
}
