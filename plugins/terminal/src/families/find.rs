//! Finding files by size, age, name and content, and doing something with them.

use super::{Family, bystander};
use crate::{draw::Draw, task::Task, world::World};

pub(super) const FAMILIES: &[Family] = &[
    Family::new("find-largest", "the largest files by bytes", find_largest),
    Family::new("find-newest", "the newest and oldest files", find_newest),
    Family::new("find-empty", "empty files", find_empty),
    Family::new("find-size", "files above or below a size", find_size),
    Family::new("find-name", "a file somewhere below", find_name),
    Family::new(
        "find-duplicate",
        "files of the same content",
        find_duplicate,
    ),
    Family::new("disk-usage", "which folder holds most bytes", disk_usage),
    Family::new("count-files", "how many files there are", count_files),
];

/// Files of a folder, at the top and in two folders below it when it is deep.
fn spread(draw: &mut Draw, top: &str, names: &[String], deep: bool) -> Vec<String> {
    let inner = [
        String::new(),
        format!("{}/", draw.noun()),
        format!("{}/", draw.noun()),
    ];
    let place = |at: usize| if deep { inner[at % 3].as_str() } else { "" };
    let paths = names.iter().enumerate();
    paths
        .map(|(at, name)| format!("{top}/{}{name}", place(at)))
        .collect()
}

fn find_largest(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let top = draw.name();
    let names = draw.files(8, "dat");
    let paths = spread(draw, &top, &names, level > 1);
    let sizes = draw.distinct(8, 100, 1500);
    for (path, size) in paths.iter().zip(&sizes) {
        world.file(path, draw.bytes(*size));
    }
    let mut order: Vec<_> = (0..8).collect();
    order.sort_by_key(|at| std::cmp::Reverse(sizes[*at]));
    let (prompt, solution) = match level {
        1 => (
            format!("Find the largest file in the folder {top}. Write its name to answer.txt."),
            format!("ls -S {top} | head -1 > answer.txt"),
        ),
        2 => (
            format!(
                "Find the largest file in the folder {top} and all folders below it. Write its name to answer.txt."
            ),
            format!(
                "find {top} -type f -printf '%s %f\\n' | sort -n | tail -1 | cut -d' ' -f2 > answer.txt"
            ),
        ),
        _ => (
            format!(
                "Find the three largest files in the folder {top} and all folders below it. Create the folder big in {top} and move them there."
            ),
            format!(
                "mkdir {top}/big; find {top} -type f -printf '%s %p\\n' | sort -n | tail -3 | cut -d' ' -f2 | xargs mv -t {top}/big"
            ),
        ),
    };
    if level < 3 {
        return Task::question(prompt, world, [solution]).answer_names(&[&names[order[0]]]);
    }
    let mut goal = world.clone();
    for at in &order[..3] {
        goal.rename(&paths[*at], format!("{top}/big/{}", names[*at]));
    }
    Task::new(prompt, world, goal, [solution])
}

fn find_newest(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let top = draw.name();
    let names = draw.files(8, "txt");
    let paths = spread(draw, &top, &names, level == 2);
    let days = draw.distinct(8, 1, 28);
    for (path, day) in paths.iter().zip(&days) {
        world.file(path, draw.lines(1));
        world.time(path, format!("2024-02-{day:02} 08:30:00"));
    }
    let mut order: Vec<_> = (0..8).collect();
    order.sort_by_key(|at| std::cmp::Reverse(days[*at]));
    let named = |at: usize| names[order[at]].clone();
    let (prompt, solution, answer) = match level {
        1 => (
            format!("Find the newest file in the folder {top}. Write its name to answer.txt."),
            format!("ls -t {top} | head -1 > answer.txt"),
            vec![named(0)],
        ),
        2 => (
            format!(
                "Find the oldest file (by its time of modification) in the folder {top} and all folders below it. Write its name to answer.txt."
            ),
            format!(
                "find {top} -type f -printf '%T@ %f\\n' | sort -n | head -1 | cut -d' ' -f2 > answer.txt"
            ),
            vec![named(7)],
        ),
        _ => {
            let day = days[order[3]];
            (
                format!(
                    "Find the files in the folder {top} that were modified on 2024-02-{day:02} or later. Write their names to answer.txt, one on each line."
                ),
                format!(
                    "find {top} -type f -newermt '2024-02-{day:02} 00:00' -printf '%f\\n' > answer.txt"
                ),
                (0..4).map(named).collect(),
            )
        }
    };
    Task::question(prompt, world, [solution]).answer_names(&answer)
}

fn find_empty(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let top = draw.name();
    let names = draw.files(9, "txt");
    let paths = spread(draw, &top, &names, level == 3);
    let empty = if level == 1 { 1 } else { draw.between(2, 4) };
    let mut order: Vec<_> = (0..9).collect();
    draw.shuffle(&mut order);
    for (rank, at) in order.iter().enumerate() {
        let text = if rank < empty {
            String::new()
        } else {
            draw.lines(1)
        };
        world.file(&paths[*at], text);
    }
    let found: Vec<_> = order[..empty].iter().map(|at| paths[*at].clone()).collect();
    if level == 2 {
        let mut goal = world.clone();
        found.iter().for_each(|path| goal.remove(path));
        let prompt = format!("Delete every empty file in the folder {top}.");
        return Task::new(
            prompt,
            world,
            goal,
            [format!("find {top} -type f -empty -delete")],
        );
    }
    let (prompt, solution) = match level {
        1 => (
            format!("Find the empty file in the folder {top}. Write its name to answer.txt."),
            format!("find {top} -type f -empty > answer.txt"),
        ),
        _ => (
            format!(
                "Find all empty files in the folder {top} and all folders below it. Write their names to answer.txt, one on each line."
            ),
            format!("find {top} -type f -empty -printf '%f\\n' > answer.txt"),
        ),
    };
    let found: Vec<_> = found
        .iter()
        .filter_map(|path| path.rsplit('/').next())
        .collect();
    Task::question(prompt, world, [solution]).answer_names(&found)
}

fn find_size(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let [top, small] = [draw.name(), draw.name()];
    let names = draw.files(8, "dat");
    let paths = spread(draw, &top, &names, level == 3);
    let limit = 100 * draw.between(4, 9);
    let mut large = Vec::new();
    for (at, path) in paths.iter().enumerate() {
        let is_large = at < 2 || (at > 3 && draw.between(0, 1) == 1);
        let size = if is_large {
            limit + draw.between(1, 300)
        } else {
            limit - draw.between(1, 300)
        };
        world.file(path, draw.bytes(size));
        if is_large {
            large.push(at);
        }
    }
    let list = "Write their names to answer.txt, one on each line.";
    match level {
        1 => {
            let prompt = format!(
                "Find the files in the folder {top} that are larger than {limit} bytes. {list}"
            );
            let solution = format!("find {top} -type f -size +{limit}c > answer.txt");
            let found: Vec<_> = large.iter().map(|at| &names[*at]).collect();
            Task::question(prompt, world, [solution]).answer_names(&found)
        }
        2 => {
            let mut goal = world.clone();
            large.iter().for_each(|at| goal.remove(&paths[*at]));
            let prompt =
                format!("Delete every file in the folder {top} that is larger than {limit} bytes.");
            let solution = format!("find {top} -type f -size +{limit}c -delete");
            Task::new(prompt, world, goal, [solution])
        }
        _ => {
            let mut goal = world.clone();
            for at in (0..8).filter(|at| !large.contains(at)) {
                goal.rename(&paths[at], format!("{small}/{}", names[at]));
            }
            let prompt = format!(
                "Create the folder {small} and move every file smaller than {limit} bytes of the folder {top}, and of all folders below it, into {small}."
            );
            let solution = format!(
                "mkdir {small} && find {top} -type f -size -{limit}c -exec mv -t {small} {{}} +"
            );
            Task::new(prompt, world, goal, [solution])
        }
    }
}

fn find_name(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let top = draw.name();
    let names = draw.files(9, "txt");
    let mut paths = spread(draw, &top, &names, true);
    if level == 3 {
        // Three of them get the same beginning.
        for path in &mut paths[..3] {
            *path = path.replace(".txt", ".csv");
        }
    }
    for path in &paths {
        world.file(path, draw.lines(2));
    }
    let at = draw.between(1, 8);
    let name = &names[at];
    match level {
        1 => {
            let prompt = format!(
                "Find the file named {name} somewhere below the folder {top}. Write its path to answer.txt."
            );
            let solution = format!("find {top} -name {name} > answer.txt");
            Task::question(prompt, world, [solution]).answer_paths(&[&paths[at]])
        }
        2 => {
            let mut goal: World = world.clone();
            goal.rename(&paths[at], name);
            let prompt = format!(
                "Find the file named {name} somewhere below the folder {top} and move it to the current folder."
            );
            let solution = format!("mv $(find {top} -name {name}) .");
            Task::new(prompt, world, goal, [solution])
        }
        _ => {
            let prompt = format!(
                "Write the paths of all .csv files below the folder {top} to answer.txt, one on each line."
            );
            let solution = format!("find {top} -name '*.csv' > answer.txt");
            Task::question(prompt, world, [solution]).answer_paths(&paths[..3])
        }
    }
}

fn find_duplicate(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let top = draw.name();
    let names = draw.files(8, "txt");
    let paths = spread(draw, &top, &names, level == 3);
    for path in &paths {
        world.file(path, draw.lines(3));
    }
    let places = draw.distinct(3, 0, 7);
    let original = world.text(&paths[places[0]]).to_owned();
    world.file(&paths[places[1]], &original);
    if level > 1 {
        world.file(&paths[places[2]], &original);
    }
    let kept = &paths[places[0]];
    match level {
        1 => {
            let prompt = format!(
                "Two files in the folder {top} have the same content. Write their names to answer.txt, one on each line."
            );
            let solution =
                format!("md5sum {top}/* | sort | uniq -w32 -D | awk '{{print $2}}' > answer.txt");
            let found = [&names[places[0]], &names[places[1]]];
            Task::question(prompt, world, [solution]).answer_names(&found)
        }
        2 => {
            let prompt = format!(
                "Find the files in the folder {top} that have the same content as {kept}, without that file itself. Write their names to answer.txt, one on each line."
            );
            let solution = format!(
                "for f in {top}/*; do [ $f != {kept} ] && cmp -s $f {kept} && echo $f; done > answer.txt"
            );
            let found = [&names[places[1]], &names[places[2]]];
            Task::question(prompt, world, [solution]).answer_names(&found)
        }
        _ => {
            let mut goal = world.clone();
            places[1..].iter().for_each(|at| goal.remove(&paths[*at]));
            let prompt = format!(
                "In the folder {top} and all folders below it, delete every file that has the same content as {kept}, but keep {kept} itself."
            );
            let solution = format!(
                "find {top} -type f -not -path {kept} -exec cmp -s {{}} {kept} \\; -delete"
            );
            Task::new(prompt, world, goal, [solution])
        }
    }
}

fn disk_usage(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let top = draw.name();
    let folders = draw.nouns(6);
    let totals = draw.distinct(6, 4, 20);
    for (folder, total) in folders.iter().zip(&totals) {
        let pieces = draw.between(1, 3);
        for piece in 0..pieces {
            let size = total * 60 / pieces + if piece == 0 { total * 60 % pieces } else { 0 };
            let name = draw.noun();
            world.file(format!("{top}/{folder}/{name}.dat"), draw.bytes(size));
        }
    }
    let at = (0..6).max_by_key(|at| totals[*at]).unwrap_or(0);
    let sum = totals.iter().sum::<usize>() * 60;
    let bytes = "find \"$d\" -type f -printf '%s\\n' | awk '{s+=$1} END {print s+0}'";
    let (prompt, solution, answer) = match level {
        1 => (
            format!(
                "How many bytes do all files below the folder {top} have together? Write the number to answer.txt."
            ),
            format!(
                "find {top} -type f -printf '%s\\n' | awk '{{s+=$1}} END {{print s}}' > answer.txt"
            ),
            sum.to_string(),
        ),
        2 => (
            format!(
                "Which of the folders in {top} holds the most bytes in its files? Write its name to answer.txt."
            ),
            format!(
                "for d in {top}/*; do echo $({bytes}) $(basename $d); done | sort -n | tail -1 | cut -d' ' -f2 > answer.txt"
            ),
            folders[at].clone(),
        ),
        _ => {
            let mut rows: Vec<_> = folders.iter().zip(&totals).collect();
            rows.sort_by_key(|(_, total)| std::cmp::Reverse(**total));
            let rows: Vec<_> = rows
                .iter()
                .map(|(name, total)| format!("{} {name}", *total * 60))
                .collect();
            (
                format!(
                    "For each folder in {top}, write a line with the number of bytes of its files, a space and its name to answer.txt, the largest first."
                ),
                format!(
                    "for d in {top}/*; do echo $({bytes}) $(basename $d); done | sort -rn > answer.txt"
                ),
                rows.join("\n"),
            )
        }
    };
    Task::question(prompt, world, [solution]).answer(answer)
}

fn count_files(draw: &mut Draw, level: usize) -> Task {
    let mut world = bystander(draw);
    let top = draw.name();
    let counts = [draw.between(4, 12), draw.between(4, 12)];
    let (logs, csv) = (draw.files(counts[0], "log"), draw.files(counts[1], "csv"));
    for list in [&logs, &csv] {
        for path in spread(draw, &top, list, level == 3) {
            world.file(path, draw.lines(1));
        }
    }
    let [log, csv] = counts;
    let (prompt, solution, answer) = match level {
        1 => (
            format!("Count the files in the folder {top}. Write the number to answer.txt."),
            format!("ls {top} | wc -l > answer.txt"),
            (log + csv).to_string(),
        ),
        2 => (
            format!("Count the .log files in the folder {top}. Write the number to answer.txt."),
            format!("ls {top}/*.log | wc -l > answer.txt"),
            log.to_string(),
        ),
        _ => (
            format!(
                "Count the files below the folder {top} by their ending. Write two lines to answer.txt: csv, a space and the number of .csv files, then log, a space and the number of .log files."
            ),
            format!(
                "for e in csv log; do echo $e $(find {top} -name \"*.$e\" | wc -l); done > answer.txt"
            ),
            format!("csv {csv}\nlog {log}"),
        ),
    };
    Task::question(prompt, world, [solution]).answer(answer)
}
