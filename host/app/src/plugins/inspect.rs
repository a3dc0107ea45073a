//! `nextstate plugin inspect` and `list`: what a plugin is and asks for.

use comfy_table::{ColumnConstraint, ContentArrangement, Table, TableStyle};
use indicatif::HumanBytes;
use plugin::{Manifest, Value};

use super::InspectArgs;
use super::check::{capabilities, imports, short};
use super::source::{Source, section};
use super::store::Store;

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
    println!("{}", shelf(rows));
    println!(
        "\nA host uses one of each kind: [plugins] in its configuration names it. A folder that \
         `nextstate plugin new` made is named by its path."
    );
    Ok(())
}

/// The plugins as a table that fits the terminal.
fn shelf(rows: Vec<(Manifest, String)>) -> Table {
    let mut table = Table::new();
    table.load_style(TableStyle::new());
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["name", "version", "world", "from", "asks for", "what it is"]);
    for (manifest, from) in rows {
        let asks: Vec<&str> = manifest.capabilities.iter().map(|c| c.as_str()).collect();
        table.add_row([
            manifest.name,
            manifest.version,
            manifest.world.as_str().to_owned(),
            from,
            asks.join(", "),
            manifest.doc,
        ]);
    }
    // Words are not broken where they name something.
    for column in table.column_iter_mut().take(4) {
        column.set_constraint(ColumnConstraint::ContentWidth);
    }
    table
}
