//! SEARCH/REPLACE edits: parsing them, and applying them to a text.
//!
//! A search must occur exactly once, to the letter. Nothing is guessed; what went wrong is said.

/// One replacement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replacement {
    /// What is there; empty for a new file.
    pub search: String,
    /// What shall be there.
    pub replace: String,
}

const SEARCH: &str = "<<<<<<< SEARCH";
const MIDDLE: &str = "=======";
const REPLACE: &str = ">>>>>>> REPLACE";

/// The parts of an edit block.
///
/// # Errors
/// Words for the model.
pub fn parse(body: &str) -> Result<Vec<Replacement>, String> {
    let mut found = Vec::new();
    let mut lines = body.lines();
    while let Some(line) = lines.next() {
        if line.trim().is_empty() {
            continue;
        }
        if line.trim_end() != SEARCH {
            return Err(format!(
                "an edit begins with a line `{SEARCH}`; this one has `{line}` there"
            ));
        }
        let search = until(&mut lines, MIDDLE)?;
        let replace = until(&mut lines, REPLACE)?;
        found.push(Replacement { search, replace });
    }
    if found.is_empty() {
        return Err(format!("the edit has no part that begins with `{SEARCH}`"));
    }
    Ok(found)
}

fn until<'a>(lines: &mut impl Iterator<Item = &'a str>, mark: &str) -> Result<String, String> {
    let mut text = String::new();
    for line in lines {
        if line.trim_end() == mark {
            return Ok(text);
        }
        text.push_str(line);
        text.push('\n');
    }
    Err(format!("the edit has no line `{mark}`"))
}

/// The file after all replacements. `before` is none where there is no such file.
///
/// # Errors
/// Words for the model; nothing is to be written then.
pub fn apply(before: Option<&str>, replacements: &[Replacement]) -> Result<String, String> {
    let mut text = before.map(str::to_owned);
    for (number, part) in (1..).zip(replacements) {
        text = Some(match text {
            None if part.search.is_empty() => part.replace.clone(),
            None => return Err("there is no such file".into()),
            Some(_) if part.search.is_empty() => {
                return Err(
                    "the file is there already, and an empty SEARCH makes a new one".into(),
                );
            }
            Some(text) => once(&text, part).map_err(|why| {
                if replacements.len() > 1 {
                    format!("part {number}: {why}")
                } else {
                    why
                }
            })?,
        });
    }
    text.ok_or_else(|| "the edit has no parts".into())
}

fn once(text: &str, part: &Replacement) -> Result<String, String> {
    // A block's lines all end with a line break; the file's last line may not.
    let bare = part.search.strip_suffix('\n').unwrap_or(&part.search);
    let unended = !bare.is_empty() && !text.contains(&part.search) && text.ends_with(bare);
    let (search, replace) = if unended {
        let replace = part.replace.strip_suffix('\n').unwrap_or(&part.replace);
        (bare, replace)
    } else {
        (part.search.as_str(), part.replace.as_str())
    };
    match occurrences(text, search) {
        1 => Ok(text.replacen(search, replace, 1)),
        0 if squeezed(text).contains(&squeezed(search)) => Err(
            "the file has this text only with other spaces: SEARCH must be there to the letter"
                .into(),
        ),
        0 => Err("the file does not have the text under SEARCH".into()),
        count => Err(format!(
            "the text under SEARCH is there {count} times: take more lines, so that it is there once"
        )),
    }
}

/// How often a text is there, overlaps included.
fn occurrences(text: &str, search: &str) -> usize {
    text.char_indices()
        .filter(|(at, _)| text[*at..].starts_with(search))
        .count()
}

fn squeezed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Where an edit goes: a path from the repository's folder, or an absolute one within it.
///
/// # Errors
/// Words for the model, for a path that leads elsewhere.
pub fn path_within(folder: &str, path: &str) -> Result<String, String> {
    let relative = path
        .strip_prefix(folder)
        .and_then(|rest| rest.strip_prefix('/'))
        .unwrap_or(path);
    let relative = relative.strip_prefix("./").unwrap_or(relative);
    let plain = |part: &str| !matches!(part, "" | "." | "..");
    if relative.is_empty() || !relative.split('/').all(plain) || relative.contains('\0') {
        return Err(format!("`{path}` is no file within {folder}"));
    }
    Ok(format!("{folder}/{relative}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(search: &str, replace: &str) -> Replacement {
        Replacement {
            search: search.into(),
            replace: replace.into(),
        }
    }

    fn check(before: Option<&str>, parts: &[(&str, &str)], expected: Result<&str, &str>) {
        let parts: Vec<_> = parts.iter().map(|(a, b)| part(a, b)).collect();
        match (apply(before, &parts), expected) {
            (Ok(after), Ok(expected)) => assert_eq!(after, expected),
            (Err(why), Err(word)) => assert!(why.contains(word), "{why}"),
            (got, expected) => panic!("{got:?}, not {expected:?}"),
        }
    }

    #[test]
    fn parts_are_read_in_order() {
        let body = "<<<<<<< SEARCH\na\n=======\nb\nc\n>>>>>>> REPLACE\n\n<<<<<<< SEARCH\nd\n=======\n>>>>>>> REPLACE\n";
        assert_eq!(
            parse(body),
            Ok(vec![part("a\n", "b\nc\n"), part("d\n", "")])
        );
    }

    #[test]
    fn a_block_that_is_no_edit_is_refused() {
        for (body, word) in [
            ("", "no part"),
            ("a\n", "begins with"),
            ("<<<<<<< SEARCH\na\n", "======="),
            ("<<<<<<< SEARCH\na\n=======\nb\n", "REPLACE"),
        ] {
            let why = parse(body).unwrap_err();
            assert!(why.contains(word), "{why}");
        }
    }

    #[test]
    fn a_search_must_be_there_once_to_the_letter() {
        check(Some("a\nb\n"), &[("b\n", "c\n")], Ok("a\nc\n"));
        check(Some("a\nb\na\n"), &[("a\n", "c\n")], Err("2 times"));
        check(Some("aaa"), &[("aa", "b")], Err("2 times"));
        check(Some("a\n  b\n"), &[("a\nb\n", "c\n")], Err("other spaces"));
        check(Some("a\n"), &[("z\n", "c\n")], Err("does not have"));
    }

    #[test]
    fn a_last_line_without_a_line_break_is_found() {
        check(Some("a\nb"), &[("b\n", "c\n")], Ok("a\nc"));
    }

    #[test]
    fn parts_build_on_each_other_and_a_part_that_fails_is_named() {
        check(Some("a\n"), &[("a\n", "b\n"), ("b\n", "c\n")], Ok("c\n"));
        check(
            Some("a\n"),
            &[("a\n", "b\n"), ("a\n", "c\n")],
            Err("part 2"),
        );
    }

    #[test]
    fn an_empty_search_makes_a_new_file_only() {
        check(None, &[("", "x\n")], Ok("x\n"));
        check(Some("a\n"), &[("", "x\n")], Err("already"));
        check(None, &[("a\n", "x\n")], Err("no such file"));
    }

    #[test]
    fn an_edit_stays_within_the_repository() {
        let good = ["a.py", "./a.py", "/work/a.py"];
        for path in good {
            assert_eq!(path_within("/work", path), Ok("/work/a.py".into()));
        }
        for path in ["../a", "a/../../b", "/etc/passwd", "", "a//b", "/work/"] {
            assert!(path_within("/work", path).is_err(), "{path}");
        }
    }
}
