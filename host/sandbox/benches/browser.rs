//! `cargo bench -p sandbox --bench browser`: how long a page takes to come, and each thing that is done to it.
//!
//! Figures only: nothing is asserted, because a machine that is busy is not a bug.
#![expect(clippy::print_stdout, reason = "a command")]

use std::{
    error::Error,
    time::{Duration, Instant},
};

use sandbox::browser::{Browser, Config, Page};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// A page of the size of a small task: 40 nodes.
fn html() -> String {
    let rows =
        (0..12).map(|n| format!("<li><button>Item {n}</button><input aria-label='Field {n}'>"));
    format!("<h1>Bench</h1><ul>{}</ul>", rows.collect::<String>())
}

fn main() -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let browser = Browser::new(Config::default(), folder.path())?;
    let begun = Instant::now();
    let mut page = browser.page()?;
    let first = begun.elapsed();
    println!("| operation | p50 ms | p99 ms |");
    println!("|---|---|---|");
    println!("| chromium, and its first page | {} | |", ms(first));
    row("create and drop a page", 50, || {
        browser.page().map(drop).map_err(Into::into)
    })?;
    let html = html();
    row("show", 100, || Ok(page.show(&html)?))?;
    row("tree", 100, || Ok(page.tree().map(drop)?))?;
    let button = find(&mut page, "button")?;
    row("click", 200, || Ok(page.click(button)?))?;
    let field = find(&mut page, "textbox")?;
    row("fill", 100, || Ok(page.fill(field, "some text")?))?;
    row("type 10 characters", 100, || {
        Ok(page.type_text("0123456789")?)
    })?;
    row("scroll", 50, || Ok(page.scroll(0.0, 10.0)?))?;
    row("evaluate", 200, || {
        Ok(page.evaluate_json("1 + 1").map(drop)?)
    })?;
    row("screenshot", 50, || Ok(page.screenshot_png().map(drop)?))?;
    Ok(())
}

fn find(page: &mut Page, role: &str) -> Outcome<u32> {
    let tree = page.tree()?;
    let node = tree.iter().find(|node| node.role == role);
    Ok(node.ok_or("the page lacks what is to be clicked")?.id)
}

fn row(name: &str, times: usize, mut work: impl FnMut() -> Outcome<()>) -> Outcome<()> {
    let mut took = Vec::new();
    for _ in 0..times {
        let begun = Instant::now();
        work()?;
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    let at = |percent: usize| ms(took[(took.len() * percent / 100).min(took.len() - 1)]);
    println!("| {name} | {} | {} |", at(50), at(99));
    Ok(())
}

fn ms(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1e3)
}
