//! `nextstate plugin pack`, `install`, `use`, `remove`, `trust` and `key`: from an author's folder to an operator's machine.

use std::fs;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use indicatif::HumanBytes;
use plugin::{Capability, outside::Outside};

use super::oci;
use super::package;
use super::source::{COMPONENT, Source, is_taken};
use super::store::{Store, split};
use crate::compiled;

/// `nextstate plugin pack`
#[derive(Debug, Clone, Args)]
pub struct PackArgs {
    /// The plugin's folder
    #[arg(default_value = ".")]
    pub folder: PathBuf,
    /// The file to write; <name>-<version>.nsplugin by default
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// `nextstate plugin install`
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Examples: nextstate plugin install my-reward-0.1.0.nsplugin\n          \
                            nextstate plugin install oci://ghcr.io/ann/my-reward:0.1.0 --grant config"
)]
pub struct InstallArgs {
    /// A package that `nextstate plugin pack` made, or oci://registry/repository with :tag or @sha256:… (see `plugin pull --help`)
    pub package: String,
    /// Grant these capabilities without being asked: --grant config,random
    #[arg(long, value_delimiter = ',', value_name = "CAPABILITY")]
    pub grant: Vec<String>,
    /// Speak HTTP without TLS to a registry that is not on this machine
    #[arg(long)]
    pub plain_http: bool,
}

/// `nextstate plugin trust`
#[derive(Debug, Clone, Args)]
pub struct TrustArgs {
    /// What the author is called here; without it, who is trusted is listed
    pub name: Option<String>,
    /// The author's public key; without it, the author is trusted no more
    #[arg(requires = "name")]
    pub key: Option<String>,
}

pub(super) fn pack(args: &PackArgs) -> anyhow::Result<()> {
    let store = Store::from_environment()?;
    let name = args.folder.display().to_string();
    let source = Source::find(&name)?;
    source.warn_when_stale();
    // What could not be loaded is not signed.
    let plugin = source.load_trusted(&toml::Table::new())?;
    let bytes = package::seal(&source.manifest, &source.component, &store.signing_key()?)?;
    let manifest = plugin.manifest();
    let file = format!("{}-{}.{}", manifest.name, manifest.version, package::SUFFIX);
    let path = args.out.clone().unwrap_or_else(|| PathBuf::from(file));
    fs::write(&path, &bytes).with_context(|| format!("failed to write {}", path.display()))?;
    println!(
        "{}: {}, {COMPONENT} sha256 {}…, signed by {}",
        path.display(),
        HumanBytes(bytes.len() as u64),
        &plugin.digest()[..12],
        public_key(&store)?
    );
    Ok(())
}

fn public_key(store: &Store) -> anyhow::Result<String> {
    Ok(hex::encode(store.signing_key()?.verifying_key().as_bytes()))
}

/// `nextstate plugin key`
pub(super) fn key() -> anyhow::Result<()> {
    println!("{}", public_key(&Store::from_environment()?)?);
    Ok(())
}

pub(super) fn trust(args: &TrustArgs) -> anyhow::Result<()> {
    let store = Store::from_environment()?;
    let Some(name) = &args.name else {
        for (name, key) in store.trusted()? {
            println!("{name}  {key}");
        }
        return Ok(());
    };
    store.trust(name, args.key.as_deref())?;
    match &args.key {
        Some(_) => println!("packages signed by {name} can be installed"),
        None => println!("{name} is trusted no more: what is installed of theirs is not loaded"),
    }
    Ok(())
}

pub(super) fn install(args: &InstallArgs) -> anyhow::Result<()> {
    let store = Store::from_environment()?;
    let (package, bytes) = if oci::is_reference(&args.package) {
        oci::fetch(&args.package, args.plain_http)?
    } else {
        package::read(Path::new(&args.package))?
    };
    let signer = store.signer(&package)?;
    let manifest = &package.manifest;
    ensure!(
        !is_taken(&manifest.name),
        "`{}` is shipped with nextstate: a plugin of that name could not be told from it",
        manifest.name
    );
    // Before anybody is asked: what cannot be loaded is not installed.
    let host = compiled::host(Outside::default())?;
    host.load(
        &package.text,
        &package.component,
        &manifest.capabilities,
        &toml::Table::new(),
    )?;
    println!("{} {}: {}", manifest.name, manifest.version, manifest.doc);
    println!("world       {}", manifest.world.as_str());
    println!("signed by   {signer}");
    println!("sha256      {}", package.digest());
    let before = store.state(&manifest.name)?.unwrap_or_default();
    let mut grants = before.grants.clone();
    let mut missing = Vec::new();
    for capability in &manifest.capabilities {
        let known = before.grants.contains(capability);
        println!(
            "asks for    {capability}: {}{}",
            meaning(*capability),
            if known { " (granted)" } else { "" }
        );
        if !known {
            missing.push(*capability);
            grants.push(*capability);
        }
    }
    if manifest.capabilities.is_empty() {
        println!("asks for    nothing beyond log and metric");
    }
    consent(&missing, &args.grant)?;
    store.put(&package, &bytes, &grants)?;
    let from = match before.current.as_str() {
        "" => String::new(),
        version if version == manifest.version => String::new(),
        version => format!(" instead of {version}"),
    };
    println!(
        "installed, and in use{from}: name it `{}` in a configuration's [plugins]",
        manifest.name
    );
    Ok(())
}

fn meaning(capability: Capability) -> &'static str {
    match capability {
        Capability::Random => "random numbers that replay",
        Capability::Clock => "a virtual clock",
        Capability::Config => "its own section of a configuration",
        Capability::Shell => "jailed machines: runs programs of this machine, without a network",
        Capability::Browser => "headless pages: runs a browser, without a network",
        Capability::Model => "completions of the models in [models], on a budget",
        Capability::Http => "requests over HTTP to the hosts of a configuration's [http]",
        Capability::Store => {
            "at most 1 MiB for each tenant, kept in the ledger from episode to episode"
        }
    }
}

/// Every new capability needs a word of the operator's.
fn consent(missing: &[Capability], granted: &[String]) -> anyhow::Result<()> {
    for name in granted {
        ensure!(
            Capability::ALL.iter().any(|known| known.as_str() == name),
            "there is no capability `{name}`"
        );
    }
    let open: Vec<&str> = missing
        .iter()
        .map(|capability| capability.as_str())
        .filter(|name| !granted.iter().any(|granted| granted == name))
        .collect();
    if open.is_empty() {
        return Ok(());
    }
    ensure!(
        std::io::stdin().is_terminal(),
        "nothing was installed: it asks for what was not granted; --grant {} grants it",
        open.join(",")
    );
    eprint!("Grant it {}? [y/N] ", open.join(", "));
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .context("failed to read the answer")?;
    if !matches!(answer.trim(), "y" | "Y" | "yes") {
        bail!("nothing was installed");
    }
    Ok(())
}

/// `nextstate plugin use`
pub(super) fn use_version(plugin: &str) -> anyhow::Result<()> {
    let (name, Some(version)) = split(plugin) else {
        bail!("say which version: nextstate plugin use {plugin}@0.1.0");
    };
    Store::from_environment()?.use_version(name, version)?;
    println!("{name} {version} is in use; a host takes it at its next start");
    Ok(())
}

/// `nextstate plugin remove`
pub(super) fn remove(plugin: &str) -> anyhow::Result<()> {
    let (name, version) = split(plugin);
    Store::from_environment()?.remove(name, version)?;
    println!("{plugin} is removed");
    Ok(())
}
