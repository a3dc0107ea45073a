//! `nextstate plugin inspect` and `list`: what a plugin is and asks for.

use comfy_table::{Table, TableStyle};
use indicatif::HumanBytes;
use plugin::{Manifest, Value};

use super::InspectArgs;
use super::check::{capabilities, imports, short};
use super::source::{Source, section};

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
    let mut table = Table::new();
    table.load_style(TableStyle::new());
    table.set_header(["name", "world", "asks for", "what it is"]);
    for guest in bundled::ALL {
        let manifest = Manifest::parse(guest.manifest)?;
        if json {
            println!("{}", serde_json::to_string(&manifest)?);
            continue;
        }
        let asks: Vec<&str> = manifest.capabilities.iter().map(|c| c.as_str()).collect();
        table.add_row([
            manifest.name.clone(),
            manifest.world.as_str().to_owned(),
            asks.join(", "),
            manifest.doc.clone(),
        ]);
    }
    if !json {
        println!("{table}");
        println!(
            "\nA host uses one of each kind: [plugins] in its configuration. A folder that \
             `nextstate plugin new` made is named by its path."
        );
    }
    Ok(())
}
