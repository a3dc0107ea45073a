//! The run's report: one HTML file that needs nothing beside it, and the same numbers as JSON.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;

use super::story::Story;

/// Writes `report.html`, `story.json` and `curve.svg` into the run folder.
///
/// # Errors
/// The file that could not be written.
pub fn write(folder: &Path, stories: &[Story]) -> anyhow::Result<()> {
    let mut curves = Vec::new();
    for (index, story) in stories.iter().enumerate() {
        let name = if index == 0 {
            "curve.svg".to_owned()
        } else {
            format!("curve-{index}.svg")
        };
        let path = folder.join(name);
        let title = format!("{} · {} · seed {}", story.persona, story.method, story.seed);
        super::curve::draw(
            &path,
            &title,
            &story.points(),
            story.before.satisfaction().value,
            story.after.satisfaction().value,
        )?;
        curves.push(
            std::fs::read_to_string(&path)
                .with_context(|| format!("failed to read {}", path.display()))?,
        );
    }
    save(
        &folder.join("story.json"),
        &serde_json::to_string_pretty(stories)?,
    )?;
    save(&folder.join("report.html"), &page(stories, &curves)?)
}

fn save(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

const STYLE: &str = "
body{font:16px/1.5 system-ui,sans-serif;color:#1c2430;background:#fafbfc;max-width:1000px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.7rem;margin-bottom:.2rem} h2{font-size:1.2rem;margin-top:2.2rem} .quiet{color:#667}
table{border-collapse:collapse;width:100%;background:#fff} td,th{padding:.4rem .7rem;border-bottom:1px solid #e4e8ee;text-align:left;vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.cards{display:flex;gap:1rem;flex-wrap:wrap;margin:1.2rem 0}.card{background:#fff;border:1px solid #e4e8ee;border-radius:10px;padding:.8rem 1.2rem;min-width:150px}
.card b{display:block;font-size:1.7rem} .good{color:#1b7f4b}.bad{color:#b3362b}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:1rem}.pair div{background:#fff;border:1px solid #e4e8ee;border-radius:10px;padding:.8rem 1rem;white-space:pre-wrap}
svg{width:100%;height:auto;background:#fff;border:1px solid #e4e8ee;border-radius:10px}
details{margin:.6rem 0}summary{cursor:pointer}td.t{white-space:pre-wrap;max-width:24rem;font-size:.9rem}";

fn page(stories: &[Story], curves: &[String]) -> Result<String, std::fmt::Error> {
    let mut html = String::new();
    write!(
        html,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>nextstate demo</title><style>{STYLE}</style><body>"
    )?;
    for (index, story) in stories.iter().enumerate() {
        section(
            &mut html,
            story,
            curves.get(index).map_or("", String::as_str),
        )?;
    }
    html.push_str("</body></html>\n");
    Ok(html)
}

fn section(html: &mut String, story: &Story, curve: &str) -> std::fmt::Result {
    let (before, after) = (story.before.satisfaction(), story.after.satisfaction());
    write!(
        html,
        "<h1>{}: {} by talking with a user</h1>\
         <p class=\"quiet\">persona <b>{}</b> ({}) · method {} · seed {} · {} interactions · {} versions</p>",
        escape(&story.model),
        if story.gain() > 0.0 {
            "what was learned"
        } else {
            "nothing was learned"
        },
        escape(&story.persona),
        escape(&story.rule),
        escape(&story.method),
        story.seed,
        story.interactions.len(),
        story.versions.len()
    )?;
    let good = if story.gain() > 0.0 { "good" } else { "bad" };
    write!(
        html,
        "<div class=\"cards\"><div class=\"card\">held-out before<b>{:.2}</b><span class=\"quiet\">{:.2} to {:.2}</span></div>\
         <div class=\"card\">held-out after<b>{:.2}</b><span class=\"quiet\">{:.2} to {:.2}</span></div>\
         <div class=\"card\">gain<b class=\"{good}\">{:+.2}</b><span class=\"quiet\">{} questions, never trained</span></div>\
         <div class=\"card\">guards<b>{}</b><span class=\"quiet\">{}</span></div></div>",
        before.value,
        before.low,
        before.high,
        after.value,
        after.low,
        after.high,
        story.gain(),
        story.after.answers.len(),
        if story.broken_guards().is_empty() {
            "held"
        } else {
            "broken"
        },
        escape(&story.broken_guards().join(", "))
    )?;
    html.push_str(curve.trim_start_matches(|c| c != '<'));
    if let Some((old, new)) = story.showpiece() {
        write!(
            html,
            "<h2>The same held-out question, before and after</h2><p><b>{}</b></p><div class=\"pair\"><div>{}</div><div>{}</div></div>",
            escape(&old.question),
            escape(&old.reply),
            escape(&new.reply)
        )?;
    }
    guards(html, story)?;
    versions(html, story)?;
    exchanges(html, story)
}

fn guards(html: &mut String, story: &Story) -> std::fmt::Result {
    html.push_str(
        "<h2>Guards and figures</h2><table><tr><th></th><th class=\"n\">before</th><th class=\"n\">after</th></tr>",
    );
    let mut row = |name: &str, before: f64, after: f64| {
        write!(
            html,
            "<tr><td>{}</td><td class=\"n\">{before:.2}</td><td class=\"n\">{after:.2}</td></tr>",
            escape(name)
        )
    };
    for name in story.after.guard_names() {
        row(&name, story.before.guard(&name), story.after.guard(&name))?;
    }
    row(
        "tokens per reply",
        story.before.tokens(),
        story.after.tokens(),
    )?;
    row(
        "KL to the base, nats per token",
        story.before.kl_to_base,
        story.after.kl_to_base,
    )?;
    html.push_str("</table><table>");
    for (name, value) in super::figure_rows(story) {
        write!(
            html,
            "<tr><td>{}</td><td class=\"n\">{}</td></tr>",
            escape(&name),
            escape(&value)
        )?;
    }
    html.push_str("</table>");
    Ok(())
}

fn versions(html: &mut String, story: &Story) -> std::fmt::Result {
    html.push_str(
        "<h2>Versions</h2><table><tr><th class=\"n\">version</th><th class=\"n\">samples</th><th class=\"n\">tokens</th>\
         <th class=\"n\">loss</th><th class=\"n\">gradient norm</th><th class=\"n\">ratio max</th><th class=\"n\">seconds</th></tr>",
    );
    for row in &story.versions {
        let m = |name: &str| row.metrics.get(name).copied().unwrap_or(f64::NAN);
        write!(
            html,
            "<tr><td class=\"n\">v{}</td><td class=\"n\">{}</td><td class=\"n\">{:.0}</td><td class=\"n\">{:.3}</td>\
             <td class=\"n\">{:.2}</td><td class=\"n\">{:.2}</td><td class=\"n\">{:.1}</td></tr>",
            row.version,
            row.samples,
            m("tokens"),
            m("loss"),
            m("grad_norm"),
            m("ratio_max"),
            m("seconds")
        )?;
    }
    html.push_str("</table>");
    Ok(())
}

fn exchanges(html: &mut String, story: &Story) -> std::fmt::Result {
    html.push_str(
        "<details><summary>Every exchange</summary><table><tr><th class=\"n\">#</th><th>user</th><th>reply</th>\
         <th>reaction</th><th class=\"n\">rule</th><th class=\"n\">version</th></tr>",
    );
    for i in &story.interactions {
        write!(
            html,
            "<tr><td class=\"n\">{}</td><td class=\"t\">{}</td><td class=\"t\">{}</td><td class=\"t\">{}</td>\
             <td class=\"n\">{:.0}</td><td class=\"n\">v{}</td></tr>",
            i.number,
            escape(&i.said),
            escape(&i.reply),
            escape(&i.reaction),
            i.score,
            i.version
        )?;
    }
    html.push_str("</table></details>");
    html.push_str(
        "<details><summary>Every held-out answer</summary><table><tr><th>question</th><th>before</th><th>after</th></tr>",
    );
    for (old, new) in story.before.answers.iter().zip(&story.after.answers) {
        write!(
            html,
            "<tr><td class=\"t\">{}</td><td class=\"t\">{}</td><td class=\"t\">{}</td></tr>",
            escape(&old.question),
            escape(&old.reply),
            escape(&new.reply)
        )?;
    }
    html.push_str("</table></details>");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::exam::{Answer, Exam};
    use crate::demo::story::{Figures, Interaction};

    fn exam(score: f64, reply: &str) -> Exam {
        Exam {
            answers: vec![Answer {
                task: "brief/h0".into(),
                question: "How do I ripen an avocado?".into(),
                reply: reply.into(),
                score,
                guards: [("on-topic".to_owned(), 1.0)].into(),
                tokens: 12,
                version: 3,
            }],
            kl_to_base: 0.1,
        }
    }

    #[test]
    fn a_report_is_one_page_in_which_a_reply_cannot_write_markup() {
        let folder = tempfile::tempdir().unwrap();
        let story = Story {
            model: "tiny".into(),
            persona: "brief".into(),
            rule: "at most two sentences".into(),
            method: "combined".into(),
            seed: 1,
            before: exam(0.0, "<script>alert(1)</script>"),
            after: exam(1.0, "Put it in a bag."),
            interactions: vec![Interaction {
                number: 1,
                said: "Hi".into(),
                reply: "Hello".into(),
                reaction: "Thanks".into(),
                score: 1.0,
                version: 0,
                tokens: 2,
            }],
            versions: Vec::new(),
            figures: Figures::default(),
        };
        write(folder.path(), std::slice::from_ref(&story)).unwrap();
        let html = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
        assert!(!html.contains("<script>") && html.contains("&lt;script&gt;"));
        assert!(html.contains("+1.00") && html.contains("<svg"));
        assert!(
            folder.path().join("story.json").is_file() && folder.path().join("curve.svg").is_file()
        );
    }
}
