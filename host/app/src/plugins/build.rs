//! `nextstate plugin build`: a project's sources to `plugin.wasm`, checked before it takes the old one's place.

use std::time::Instant;

use anyhow::Context as _;
use indicatif::HumanBytes;
use plugin::Manifest;

use super::source::{COMPONENT, MANIFEST, Source, manifest};
use super::{Folder, language};

/// A component from here on has a language's runtime inside, and takes seconds to compile.
const SLOW_BYTES: usize = 1 << 20;

pub(super) fn run(args: &Folder) -> anyhow::Result<()> {
    let folder = &args.folder;
    let started = Instant::now();
    let text = manifest(folder).with_context(|| {
        format!(
            "{} is no plugin's folder; `nextstate plugin new` makes one",
            folder.display()
        )
    })?;
    let wanted = Manifest::parse(&text)
        .with_context(|| format!("failed to use {}", folder.join(MANIFEST).display()))?;
    let failed = || format!("failed to build the plugin in {}", folder.display());
    let language = language::of(folder).with_context(failed)?;
    let component = language.compile(folder, &wanted).with_context(failed)?;
    let made = started.elapsed().as_secs_f64();
    if component.len() > SLOW_BYTES {
        let bytes = HumanBytes(component.len() as u64);
        eprintln!(
            "{bytes} in {made:.1} s; the host compiles them, as it will when it loads the plugin"
        );
    }
    let source = Source {
        manifest: text,
        component,
        folder: Some(folder.clone()),
        grants: Vec::new(),
    };
    let plugin = source.load_trusted(&toml::Table::new())?;
    let path = folder.join(COMPONENT);
    crate::durable::write(&path, &source.component, 0o644)
        .with_context(|| format!("failed to write {}", path.display()))?;
    println!(
        "{}: {} {}, {}, {}, sha256 {}…, {made:.1} s to make and {:.1} s to compile here",
        path.display(),
        wanted.name,
        wanted.version,
        wanted.world.as_str(),
        HumanBytes(source.component.len() as u64),
        &plugin.digest()[..12],
        started.elapsed().as_secs_f64() - made
    );
    Ok(())
}
