//! Every family's page in a real browser: the oracle says no before the reference solution and yes after it, at every difficulty.
//!
//! One run of Chromium holds all pages, in frames; `driver.js` plays the solutions with DOM events. Without Chromium nothing is tested
//! here, and the test says so. What the host's own browser makes of a page (its accessibility tree) is not tested here.

use std::{env, error::Error, fs, path::PathBuf, process::Command};

use gui::{
    draft::{Draft, Step},
    families, page,
};
use serde_json::{Value, json};

/// Tasks of each family and difficulty that are played: some of training and one held out.
const NUMBERS: [u32; 4] = [1, 2, 3, 1_001];

struct Case {
    name: String,
    draft: Draft,
    html: String,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in families::ALL {
        for difficulty in 1..=3 {
            for number in NUMBERS {
                let draft = family.draft(difficulty, number);
                cases.push(Case {
                    name: format!("{}/{difficulty}/{number}", family.name),
                    html: page::document(family.body, &draft.parameters),
                    draft,
                });
            }
        }
    }
    cases
}

fn step(step: &Step) -> Value {
    match step {
        Step::Click(role, name) => json!(["click", role, name]),
        Step::Fill(role, name, text) => json!(["fill", role, name, text]),
        Step::Drag([from, to]) => json!(["drag", [from.0, from.1], [to.0, to.1]]),
        Step::Press(key) => json!(["press", key]),
        Step::ScrollDown => json!(["scroll"]),
    }
}

fn chromium() -> Option<PathBuf> {
    let folders = env::var_os("PATH")?;
    let names = ["chromium", "chromium-browser", "google-chrome"];
    env::split_paths(&folders)
        .flat_map(|folder| names.map(|name| folder.join(name)))
        .find(|path| path.is_file())
}

/// Plays all cases in one run; none where there is no Chromium.
fn play(cases: &[Case]) -> Result<Option<Vec<Value>>, Box<dyn Error>> {
    let Some(chromium) = chromium() else {
        if env::var_os("NEXTSTATE_REQUIRE_SANDBOX").is_some() {
            return Err("chromium is not on the path".into());
        }
        eprintln!("skipped: there is no chromium on the path");
        return Ok(None);
    };
    let cases: Vec<_> = cases
        .iter()
        .map(|case| {
            let steps: Vec<_> = case.draft.steps.iter().map(step).collect();
            json!({"html": case.html, "steps": steps})
        })
        .collect();
    let text = json!({"cases": cases}).to_string().replace('<', "\\u003c");
    let driver = include_str!("driver.js");
    let html = format!(
        "<!doctype html><meta charset=\"utf-8\"><body>\
         <script type=\"application/json\" id=\"cases\">{text}</script><script>{driver}</script>"
    );
    let folder = env::temp_dir().join(format!("gui-pages-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let file = folder.join("all.html");
    fs::write(&file, html)?;
    let output = Command::new(chromium)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--window-size=700,600",
        ])
        .args(["--virtual-time-budget=600000", "--dump-dom"])
        .arg(format!(
            "--user-data-dir={}",
            folder.join("profile").display()
        ))
        .arg(format!("file://{}", file.display()))
        .output()?;
    fs::remove_dir_all(&folder)?;
    let dom = String::from_utf8_lossy(&output.stdout);
    let (_, rest) = dom.split_once("RESULTS:").ok_or("no results")?;
    let (text, _) = rest.split_once(":END").ok_or("no end of the results")?;
    Ok(Some(serde_json::from_slice(&decoded(text)?)?))
}

/// Undoes `encodeURIComponent`.
fn decoded(text: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (code, plain) = part.split_at_checked(2).ok_or("half a code")?;
        bytes.push(u8::from_str_radix(code, 16)?);
        bytes.extend_from_slice(plain.as_bytes());
    }
    Ok(bytes)
}

/// What is wrong with how a case went.
fn problems(case: &Case, result: &Value) -> Vec<String> {
    let Some(states) = result["states"].as_array() else {
        return vec![format!("{}: {:?}", result["error"], case.draft.steps)];
    };
    let goal = &case.draft.goal;
    let scores: Vec<_> = states
        .iter()
        .map(|state| goal.score(&states[0], state))
        .collect();
    let mut found = Vec::new();
    if scores[0].value != 0.0 || scores[0].lost {
        found.push("the first state is worth something".to_owned());
    }
    let last = scores.len() - 1;
    if !scores[last].is_solved() {
        found.push(format!("ends in {}, not {}", states[last], goal.expected));
    }
    let early = |score: &gui::oracle::Score| score.is_solved() || score.lost;
    if let Some(at) = scores[..last].iter().position(early) {
        found.push(format!("solved or lost after step {at} already"));
    }
    if case.draft.steps.len() > 10 {
        found.push(format!("{} steps", case.draft.steps.len()));
    }
    found
}

#[test]
fn the_oracle_says_no_before_the_reference_solution_and_yes_only_after_all_of_it()
-> Result<(), Box<dyn Error>> {
    let cases = cases();
    let Some(results) = play(&cases)? else {
        return Ok(());
    };
    assert_eq!(results.len(), cases.len());
    let mut all = Vec::new();
    for (case, result) in cases.iter().zip(&results) {
        let named = problems(case, result);
        all.extend(
            named
                .into_iter()
                .map(|problem| format!("{}: {problem}", case.name)),
        );
    }
    assert!(
        all.is_empty(),
        "{} problems:\n{}",
        all.len(),
        all.join("\n")
    );
    Ok(())
}
