//! Sorting, comparing and joining lists and tables.

use super::{Family, bystander, written};
use crate::{
    draw::{Draw, lines},
    task::Task,
};

pub(super) const FAMILIES: &[Family] = &[
    Family::new("sort-lines", "lines in order", sort_lines),
    Family::new(
        "unique-lines",
        "lines that occur once or often",
        unique_lines,
    ),
    Family::new(
        "compare-lists",
        "what one list has and another not",
        compare_lists,
    ),
    Family::new("join-tables", "two tables by a common column", join_tables),
    Family::new("csv-columns", "columns of a CSV file", csv_columns),
    Family::new("csv-filter", "rows of a CSV file", csv_filter),
    Family::new("csv-sum", "sums over a CSV file", csv_sum),
    Family::new(
        "sum-numbers",
        "sums, least and greatest of a list",
        sum_numbers,
    ),
];

fn sort_lines(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let [path, out] = [draw.file("txt"), draw.file("txt")];
    let numbers = draw.distinct(9, 2, 1500);
    let rows: Vec<_> = draw.nouns(9).into_iter().zip(numbers).collect();
    let (mut sorted, full) = (rows.clone(), |(noun, number): &(String, usize)| {
        format!("{noun} {number}")
    });
    let (prompt, source, text, solution) = match level {
        1 => {
            sorted.sort();
            let bare = |rows: &[(String, usize)]| {
                lines(&rows.iter().map(|(noun, _)| noun).collect::<Vec<_>>())
            };
            let prompt = format!("Sort the lines of {path} and write them to {out}.");
            (
                prompt,
                bare(&rows),
                bare(&sorted),
                format!("sort {path} > {out}"),
            )
        }
        2 => {
            sorted.sort_by_key(|(_, number)| *number);
            let bare = |rows: &[(String, usize)]| {
                lines(
                    &rows
                        .iter()
                        .map(|(_, number)| number.to_string())
                        .collect::<Vec<_>>(),
                )
            };
            let prompt =
                format!("Sort the numbers in {path}, the smallest first, and write them to {out}.");
            (
                prompt,
                bare(&rows),
                bare(&sorted),
                format!("sort -n {path} > {out}"),
            )
        }
        _ => {
            sorted.sort_by_key(|(_, number)| std::cmp::Reverse(*number));
            let prompt = format!(
                "Sort the lines of {path} by the number in the second column, the largest first, and write the first five of them to {out}."
            );
            (
                prompt,
                lines(&rows.iter().map(full).collect::<Vec<_>>()),
                lines(&sorted[..5].iter().map(full).collect::<Vec<_>>()),
                format!("sort -k2,2nr {path} | head -5 > {out}"),
            )
        }
    };
    world.file(&path, source);
    written(prompt, world, &out, &text, solution)
}

fn unique_lines(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let [path, out] = [draw.file("txt"), draw.file("txt")];
    let mut words = draw.nouns(9);
    words.sort();
    let counts: Vec<_> = (0..9)
        .map(|at| if at % 3 == 0 { 1 } else { draw.between(1, 4) })
        .collect();
    let mut rows: Vec<_> = words
        .iter()
        .zip(&counts)
        .flat_map(|(word, count)| std::iter::repeat_n(word, *count))
        .collect();
    draw.shuffle(&mut rows);
    // One that is twice there whatever was drawn, not side by side.
    rows.insert(0, &words[1]);
    rows.push(&words[1]);
    world.file(&path, lines(&rows));
    let many = |word: &&String| rows.iter().filter(|row| *row == word).count() > 1;
    let (prompt, text, solution) = match level {
        1 => (
            format!(
                "Sort the lines of {path}, remove repeated lines, and write the result to {out}."
            ),
            lines(&words),
            format!("sort -u {path} > {out}"),
        ),
        2 => (
            format!(
                "Write each line that occurs more than once in {path} to {out}, once each and sorted."
            ),
            lines(&words.iter().filter(many).collect::<Vec<_>>()),
            format!("sort {path} | uniq -d > {out}"),
        ),
        _ => {
            let mut seen: Vec<&String> = Vec::new();
            for row in &rows {
                if !seen.contains(row) {
                    seen.push(row);
                }
            }
            (
                format!(
                    "Write the lines of {path} to {out} without repeated lines, in the order in which each occurs first."
                ),
                lines(&seen),
                format!("awk '!seen[$0]++' {path} > {out}"),
            )
        }
    };
    written(prompt, world, &out, &text, solution)
}

fn compare_lists(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let [one, two, out] = [draw.file("txt"), draw.file("txt"), draw.file("txt")];
    let mut words = draw.nouns(14);
    words.sort();
    let mut kinds: Vec<_> = (0..14).map(|at| at % 3).collect();
    draw.shuffle(&mut kinds);
    let of = |wanted: &[usize]| -> Vec<String> {
        let pairs = words.iter().zip(&kinds);
        pairs
            .filter(|(_, kind)| wanted.contains(kind))
            .map(|(word, _)| word.clone())
            .collect()
    };
    let (mut first, mut second) = (of(&[0, 1]), of(&[1, 2]));
    if level == 3 {
        draw.shuffle(&mut first);
        draw.shuffle(&mut second);
    }
    world.file(&one, lines(&first));
    world.file(&two, lines(&second));
    let (prompt, text, solution) = match level {
        1 => (
            format!(
                "The files {one} and {two} are sorted. Write the lines that are in both to {out}."
            ),
            lines(&of(&[1])),
            format!("comm -12 {one} {two} > {out}"),
        ),
        2 => (
            format!(
                "The files {one} and {two} are sorted. Write the lines of {one} that are not in {two} to {out}."
            ),
            lines(&of(&[0])),
            format!("comm -23 {one} {two} > {out}"),
        ),
        _ => (
            format!(
                "Write the lines that are in only one of the files {one} and {two}, sorted, to {out}."
            ),
            lines(&of(&[0, 2])),
            format!("sort {one} {two} | uniq -u > {out}"),
        ),
    };
    written(prompt, world, &out, &text, solution)
}

fn join_tables(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let [one, two, out] = [draw.file("txt"), draw.file("txt"), draw.file("txt")];
    let mark = if level == 1 { " " } else { "," };
    let ids = draw.distinct(8, 100, 999);
    let mut rows: Vec<_> = ids
        .into_iter()
        .zip(draw.nouns(8))
        .map(|(id, noun)| (id, noun, draw.between(10, 99)))
        .collect();
    rows.sort();
    let kept = if level == 3 { 6 } else { 8 };
    let mut names: Vec<_> = rows
        .iter()
        .map(|(id, noun, _)| format!("{id}{mark}{noun}"))
        .collect();
    let mut prices: Vec<_> = rows[..kept]
        .iter()
        .map(|(id, _, price)| format!("{id}{mark}{price}"))
        .collect();
    let joined: Vec<_> = rows[..kept]
        .iter()
        .map(|(id, noun, price)| match level {
            3 => format!("{noun},{price}"),
            _ => format!("{id}{mark}{noun}{mark}{price}"),
        })
        .collect();
    if level == 3 {
        draw.shuffle(&mut names);
        draw.shuffle(&mut prices);
    }
    world.file(&one, lines(&names));
    world.file(&two, lines(&prices));
    let (prompt, solution) = match level {
        1 => (
            format!(
                "The files {one} and {two} are sorted by their first column. Join their lines by the first column and write the result to {out}."
            ),
            format!("join {one} {two} > {out}"),
        ),
        2 => (
            format!(
                "The files {one} and {two} have two columns, separated by a comma, and are sorted by the first. Join their lines by the first column and write the result, also with commas, to {out}."
            ),
            format!("join -t, {one} {two} > {out}"),
        ),
        _ => (
            format!(
                "The files {one} (number,name) and {two} (number,price) are not sorted. For each number that is in both, write a line name,price to {out}, in the order of the numbers."
            ),
            format!("join -t, <(sort {one}) <(sort {two}) | cut -d, -f2,3 > {out}"),
        ),
    };
    written(prompt, world, &out, &lines(&joined), solution)
}

/// Rows of `name,city,amount`, below a line that says so.
struct Csv {
    rows: Vec<(String, String, usize)>,
    cities: Vec<String>,
}

impl Csv {
    fn new(draw: &mut Draw) -> Self {
        let cities = draw.nouns(3);
        let amounts = draw.distinct(12, 10, 99);
        let rows = draw.nouns(12).into_iter().zip(amounts).enumerate();
        let rows = rows.map(|(at, (name, amount))| {
            let city = if at < 3 { at } else { draw.between(0, 2) };
            (name, cities[city].clone(), amount)
        });
        Self {
            rows: rows.collect(),
            cities,
        }
    }

    fn text(&self, wanted: impl Fn(&(String, String, usize)) -> bool) -> String {
        let rows = self.rows.iter().filter(|row| wanted(row));
        rows.map(|(name, city, amount)| format!("{name},{city},{amount}\n"))
            .collect()
    }

    fn total(&self, city: &str) -> usize {
        self.rows
            .iter()
            .filter(|row| row.1 == city)
            .map(|row| row.2)
            .sum()
    }
}

const HEADER: &str = "name,city,amount\n";

fn csv_columns(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let [path, out] = [draw.file("csv"), draw.file("csv")];
    let csv = Csv::new(draw);
    world.file(&path, format!("{HEADER}{}", csv.text(|_| true)));
    let rows = csv.rows.iter();
    let (prompt, text, solution): (_, String, _) = match level {
        1 => (
            format!("Write the first column of {path} to {out}."),
            "name\n".to_owned() + &rows.map(|row| format!("{}\n", row.0)).collect::<String>(),
            format!("cut -d, -f1 {path} > {out}"),
        ),
        2 => (
            format!(
                "Write the columns name and amount of {path}, with a comma between them and without the header, to {out}."
            ),
            rows.map(|row| format!("{},{}\n", row.0, row.2)).collect(),
            format!("tail -n +2 {path} | cut -d, -f1,3 > {out}"),
        ),
        _ => (
            format!(
                "Write the columns of {path} to {out} in the order amount, name, city, with the header in the same order."
            ),
            "amount,name,city\n".to_owned()
                + &rows
                    .map(|row| format!("{},{},{}\n", row.2, row.0, row.1))
                    .collect::<String>(),
            format!("awk -F, '{{print $3 \",\" $1 \",\" $2}}' {path} > {out}"),
        ),
    };
    written(prompt, world, &out, &text, solution)
}

fn csv_filter(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let [path, out] = [draw.file("csv"), draw.file("csv")];
    let csv = Csv::new(draw);
    let (city, limit) = (&csv.cities[0], csv.rows[0].2 - 1);
    world.file(&path, format!("{HEADER}{}", csv.text(|_| true)));
    let (prompt, text, solution) = match level {
        1 => (
            format!("Write the rows of {path} whose city is {city} to {out}."),
            csv.text(|row| row.1 == *city),
            format!("grep ,{city}, {path} > {out}"),
        ),
        2 => (
            format!(
                "Write the header of {path} and all rows whose amount is larger than {limit} to {out}."
            ),
            format!("{HEADER}{}", csv.text(|row| row.2 > limit)),
            format!("awk -F, 'NR == 1 || $3 > {limit}' {path} > {out}"),
        ),
        _ => {
            let mut found = csv.rows.clone();
            found.retain(|row| row.1 == *city && row.2 > limit);
            found.sort_by_key(|row| std::cmp::Reverse(row.2));
            let names: Vec<_> = found.iter().map(|row| &row.0).collect();
            (
                format!(
                    "Write the names of all rows of {path} whose city is {city} and whose amount is larger than {limit} to {out}, one on each line, the largest amount first."
                ),
                lines(&names),
                format!(
                    "awk -F, '$2 == \"{city}\" && $3 > {limit}' {path} | sort -t, -k3,3nr | cut -d, -f1 > {out}"
                ),
            )
        }
    };
    written(prompt, world, &out, &text, solution)
}

fn csv_sum(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let path = draw.file("csv");
    let mut csv = Csv::new(draw);
    world.file(&path, format!("{HEADER}{}", csv.text(|_| true)));
    csv.cities.sort();
    let city = &csv.cities[0];
    let (prompt, solution, answer) = match level {
        1 => (
            format!("Add up the third column of {path}. Write the sum to answer.txt."),
            format!("awk -F, '{{s += $3}} END {{print s}}' {path} > answer.txt"),
            csv.rows.iter().map(|row| row.2).sum::<usize>().to_string(),
        ),
        2 => (
            format!(
                "Add up the amounts of all rows of {path} whose city is {city}. Write the sum to answer.txt."
            ),
            format!("awk -F, '$2 == \"{city}\" {{s += $3}} END {{print s}}' {path} > answer.txt"),
            csv.total(city).to_string(),
        ),
        _ => (
            format!(
                "For each city in {path}, in alphabetical order, write a line with the city, a space and the sum of its amounts to answer.txt."
            ),
            format!(
                "awk -F, 'NR > 1 {{s[$2] += $3}} END {{for (c in s) print c, s[c]}}' {path} | sort > answer.txt"
            ),
            csv.cities
                .iter()
                .map(|city| format!("{city} {}", csv.total(city)))
                .collect::<Vec<_>>()
                .join("\n"),
        ),
    };
    Task::question(prompt, world, [solution]).answer(answer)
}

fn sum_numbers(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let path = draw.file("txt");
    let numbers = draw.distinct(15, 10, 999);
    let words = draw.nouns(2);
    let rows: Vec<_> = numbers
        .iter()
        .enumerate()
        .map(|(at, number)| match level {
            3 => format!("{} {number}", words[at % 2]),
            _ => number.to_string(),
        })
        .collect();
    world.file(&path, lines(&rows));
    let mut sorted = numbers.clone();
    sorted.sort_unstable();
    let (prompt, solution, answer) = match level {
        1 => (
            format!("Add up the numbers in {path}. Write the sum to answer.txt."),
            format!("awk '{{s += $1}} END {{print s}}' {path} > answer.txt"),
            numbers.iter().sum::<usize>().to_string(),
        ),
        2 => (
            format!(
                "Write the smallest and the largest number in {path}, with a space between them, to answer.txt."
            ),
            format!("echo $(sort -n {path} | sed -n '1p;$p') > answer.txt"),
            format!("{} {}", sorted[0], sorted[14]),
        ),
        _ => {
            let of = numbers.iter().step_by(2);
            (
                format!(
                    "Add up the numbers in the lines of {path} that start with {}. Write how many such lines there are, a space and the sum to answer.txt.",
                    words[0]
                ),
                format!(
                    "awk '/^{} / {{n++; s += $2}} END {{print n, s}}' {path} > answer.txt",
                    words[0]
                ),
                format!("8 {}", of.sum::<usize>()),
            )
        }
    };
    Task::question(prompt, world, [solution]).answer(answer)
}
