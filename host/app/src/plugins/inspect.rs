//! `nextstate plugin inspect` and `list`: what a plugin is and asks for.

use std::fmt::Write as _;

use comfy_table::{Table, TableStyle};
use indicatif::HumanBytes;
use plugin::{Manifest, Value};

use super::InspectArgs;
use super::check::{capabilities, imports, short};
use super::source::{Source, section};
use super::store::Store;
use super::wit::wrapped;

pub(super) fn run(args: &InspectArgs) -> anyhow::Result<()> {
    let source = Source::find(&args.which.plugin)?;
    let plugin = source.load_trusted(&section(&args.which.set)?)?;
    let manifest = plugin.manifest();
    if args.json {
        let all = serde_json::json!({
            "manifest": manifest,
            "config": plugin.config(),
            "sha256": plugin.digest(),
            "bytes": source.component.len(),
            "imports": plugin.imports().iter().map(|import| short(import)).collect::<Vec<_>>(),
        });
        println!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(());
    }
    println!("{}: {}\n", plugin.name(), manifest.doc);
    println!("world       {}", manifest.world.as_str());
    println!("asks for    {}", capabilities(&plugin));
    println!("imports     {}", imports(&plugin));
    println!("component   {}", HumanBytes(source.component.len() as u64));
    println!("sha256      {}", plugin.digest());
    if manifest.config.is_empty() {
        println!("config      none");
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(TableStyle::new());
    table.set_header(["key", "type", "value", "what it does"]);
    for key in &manifest.config {
        let value = plugin
            .config()
            .get(&key.name)
            .map_or("not set".to_owned(), shown);
        let kind = format!("{:?}", key.kind).to_lowercase();
        table.add_row([key.name.clone(), kind, value, key.doc.clone()]);
    }
    println!("\n{table}");
    Ok(())
}

fn shown(value: &Value) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

pub(super) fn list(json: bool) -> anyhow::Result<()> {
    let mut rows: Vec<(Manifest, String)> = Vec::new();
    for guest in bundled::ALL {
        rows.push((Manifest::parse(guest.manifest)?, "shipped".to_owned()));
    }
    let store = Store::from_environment()?;
    for installed in store.installed()? {
        for version in &installed.versions {
            let name = format!("{}@{version}", installed.name);
            let used = *version == installed.state.current;
            // One that cannot be used must not hide the others.
            match store.find(&name) {
                Ok(Some((package, _))) => {
                    let from = if used {
                        "installed, in use"
                    } else {
                        "installed"
                    };
                    rows.push((package.manifest, from.to_owned()));
                }
                Ok(None) => {}
                Err(error) => eprintln!("{name} cannot be used: {error:#}"),
            }
        }
    }
    if json {
        for (manifest, from) in &rows {
            let all = serde_json::json!({"manifest": manifest, "from": from});
            println!("{}", serde_json::to_string(&all)?);
        }
        return Ok(());
    }
    println!(
        "{}\nA host uses one of each kind: [plugins] in its configuration names it. A folder that \
         `nextstate plugin new` made is named by its path.",
        shelf(rows)
    );
    Ok(())
}

/// The plugins by their worlds, each with what it is below: a table of such sentences would be wider than any terminal.
fn shelf(mut rows: Vec<(Manifest, String)>) -> String {
    let mut out = String::new();
    let mut world = "";
    // A stable sort: those of a world stay in their order.
    rows.sort_by_key(|(manifest, _)| manifest.world.as_str());
    for (manifest, from) in &rows {
        if manifest.world.as_str() != world {
            world = manifest.world.as_str();
            let _ = writeln!(out, "{world}");
        }
        let asks: Vec<&str> = manifest.capabilities.iter().map(|c| c.as_str()).collect();
        let asks = match asks.as_slice() {
            [] => "asks for nothing".to_owned(),
            some => format!("asks for {}", some.join(", ")),
        };
        let name = format!("{} {}", manifest.name, manifest.version);
        let _ = writeln!(out, "  {name:<30}  {from} · {asks}");
        for line in wrapped("      ", &manifest.doc) {
            let _ = writeln!(out, "{line}");
        }
    }
    out
}
