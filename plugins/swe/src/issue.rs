//! What a user reports: what was run, what should have come out, and what did.
//!
//! Made from one hidden case that the bug breaks. The same task always has the same issue, so that attempts can be compared.

use crate::mutants::Mutant;

/// The issue of a bug.
pub fn report(mutant: &Mutant) -> String {
    let repo = mutant.repo;
    let code = code(repo.hidden, mutant.shown);
    let sentence = sentence(repo.hidden, mutant.shown);
    let answers = repo.answers().find(|(name, _)| *name == mutant.shown);
    let right = answers.map_or("", |(_, value)| value);
    let (wanted, got) = (said(right), said(mutant.got));
    let name = repo.name;
    let sum = mutant.task().bytes().map(usize::from).sum::<usize>();
    match sum % 4 {
        0 => format!(
            "# {sentence} (It does not.)\n\nI ran this:\n\n{code}\n\nIt should have been {wanted}. What I got was {got}."
        ),
        1 => format!(
            "# Wrong result from `{name}`\n\n{code}\n\ngives me {got}; I expected {wanted}. As I read the README: {sentence}"
        ),
        2 => format!(
            "# `{name}`: unexpected behaviour\n\nSteps to reproduce:\n\n{code}\n\nExpected: {wanted}\nActual: {got}\n\n{sentence} At least it used to be so."
        ),
        _ => format!(
            "# Regression in `{name}`\n\nSince the last change, this no longer holds: \"{sentence}\" For example:\n\n{code}\n\nBefore, this was {wanted}, now it is {got}. Other inputs may be affected, too."
        ),
    }
}

/// A driver's answer in a person's words.
fn said(value: &str) -> String {
    match value.strip_prefix("raises ") {
        Some(error) => format!("an exception, `{error}`"),
        None => format!("`{value}`"),
    }
}

/// A case's lines below its `def`.
fn body<'a>(hidden: &'a str, case: &str) -> Vec<&'a str> {
    let head = format!("def {case}():");
    let lines = hidden.lines().skip_while(|line| *line != head).skip(1);
    lines
        .take_while(|line| line.is_empty() || line.starts_with(' '))
        .collect()
}

/// The sentence that a case begins with.
fn sentence<'a>(hidden: &'a str, case: &str) -> &'a str {
    let first = body(hidden, case).first().copied().unwrap_or_default();
    first.trim().trim_matches('"')
}

/// A case as a script that prints what it would return.
fn code(hidden: &str, case: &str) -> String {
    let body: Vec<&str> = body(hidden, case).into_iter().skip(1).collect();
    let mut script: Vec<String> = Vec::new();
    for line in &body {
        let line = line.strip_prefix("    ").unwrap_or(line);
        script.push(match line.strip_prefix("return ") {
            Some(value) => format!("print(repr({value}))"),
            None => line.to_owned(),
        });
    }
    let script = script.join("\n").trim().to_owned();
    let mut parts: Vec<String> = Vec::new();
    let mut imports: Vec<String> = Vec::new();
    for block in blocks(hidden) {
        let first = block.lines().next().unwrap_or_default();
        if first.starts_with("from ") || first.starts_with("import ") {
            imports.push(block);
        } else if defined(first).is_some_and(|name| script.contains(name)) {
            parts.push(block);
        }
    }
    parts.insert(0, imports.join("\n"));
    parts.push(script);
    format!("```python\n{}\n```", parts.join("\n\n"))
}

/// What a helper of the cases defines: a function or a constant.
fn defined(line: &str) -> Option<&str> {
    let name = match line.strip_prefix("def ") {
        Some(rest) => rest.split('(').next()?,
        None => line.split(" = ").next()?,
    };
    (!name.starts_with("case_")).then_some(name)
}

/// A file's top-level statements.
fn blocks(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in text.lines() {
        match found.last_mut() {
            Some(block) if line.is_empty() || line.starts_with(' ') => {
                block.push('\n');
                block.push_str(line);
            }
            _ if line.is_empty() => {}
            _ => found.push(line.to_owned()),
        }
    }
    found
        .iter()
        .map(|block| block.trim_end().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutants;

    const HIDDEN: &str = "from roman import add\n\nALL = [1]\n\n\ndef attempt(x):\n    return x\n\n\ndef case_a():\n    \"\"\"It adds.\"\"\"\n    x = attempt(2)\n    return add(x)\n\n\ndef case_b():\n    \"\"\"It is one.\"\"\"\n    return ALL\n";

    #[test]
    fn a_case_becomes_a_script_with_the_helpers_that_it_needs() {
        assert_eq!(
            code(HIDDEN, "case_a"),
            "```python\nfrom roman import add\n\ndef attempt(x):\n    return x\n\nx = attempt(2)\nprint(repr(add(x)))\n```"
        );
        assert_eq!(
            code(HIDDEN, "case_b"),
            "```python\nfrom roman import add\n\nALL = [1]\n\nprint(repr(ALL))\n```"
        );
        assert_eq!(sentence(HIDDEN, "case_b"), "It is one.");
    }

    #[test]
    fn every_issue_has_code_what_was_expected_and_what_came() {
        for mutant in mutants::all() {
            let report = report(&mutant);
            let case = mutant.shown;
            assert!(report.contains("print(repr("), "{report}");
            assert!(report.contains(&said(mutant.got)), "{report}");
            let right = mutant
                .repo
                .answers()
                .find(|(name, _)| *name == case)
                .unwrap()
                .1;
            assert!(report.contains(&said(right)), "{report}");
            assert_ne!(right, mutant.got);
            assert!(
                !report.contains("case_") && !report.contains("return print"),
                "{report}"
            );
        }
    }

    #[test]
    fn issues_are_not_all_alike() {
        let titles: std::collections::BTreeSet<_> = mutants::all()
            .map(|mutant| report(&mutant).lines().next().unwrap().to_owned())
            .collect();
        assert!(titles.len() >= 20, "{}", titles.len());
    }
}
