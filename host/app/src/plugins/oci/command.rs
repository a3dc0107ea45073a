//! `nextstate plugin push` and `pull`, and what `install oci://…` fetches.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use indicatif::HumanBytes;

use super::artifact::{Artifact, CONFIG};
use super::client::{Access, Client};
use super::credentials::Credentials;
use super::digest::Digest;
use super::reference::{Reference, SCHEME, Which, is_tag};
use crate::plugins::package::{self, Package};
use crate::plugins::source::Source;
use crate::plugins::store::Store;

const ACCESS: &str = "\
Who you are: NEXTSTATE_OCI_USER and NEXTSTATE_OCI_PASSWORD where NEXTSTATE_OCI_REGISTRY (host[:port]) names the registry,
else what `docker login` keeps in ~/.docker/config.json (no credential helper is run), else nobody. The password goes to the
registry's own site only.";

/// `nextstate plugin push`
#[derive(Debug, Clone, Args)]
#[command(after_help = format!("\
Examples: nextstate plugin push my-reward ghcr.io/ann/my-reward
          nextstate plugin push my-reward-0.1.0.nsplugin localhost:5000/my-reward:latest

{ACCESS}"))]
pub struct PushArgs {
    /// A package that `nextstate plugin pack` made, or a plugin's folder, which is packed and signed
    pub plugin: PathBuf,
    /// registry/repository:tag; without a tag, the plugin's version
    pub to: String,
    /// Speak HTTP without TLS to a registry that is not on this machine
    #[arg(long)]
    pub plain_http: bool,
}

/// `nextstate plugin pull`
#[derive(Debug, Clone, Args)]
#[command(after_help = format!("\
Examples: nextstate plugin pull oci://ghcr.io/ann/my-reward:0.1.0
          nextstate plugin install oci://ghcr.io/ann/my-reward@sha256:… --grant config

A tag can be moved to another content, a digest cannot. `pull` only fetches and checks the signature; whether its author
is trusted, and what it may do, is asked at `install`.

{ACCESS}"))]
pub struct PullArgs {
    /// oci://registry/repository, with :tag or @sha256:… (by default :latest)
    pub from: String,
    /// The file to write; NAME-VERSION.nsplugin by default
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Speak HTTP without TLS to a registry that is not on this machine
    #[arg(long)]
    pub plain_http: bool,
}

/// Whether somebody means a place in a registry, and not a file.
pub(in crate::plugins) fn is_reference(text: &str) -> bool {
    text.starts_with(SCHEME)
}

pub(in crate::plugins) fn push(args: &PushArgs) -> anyhow::Result<()> {
    let to: Reference = args.to.parse()?;
    let (package, bytes) = packed(&args.plugin)?;
    let credentials = Credentials::of(&to.registry)?;
    let mut client = Client::new(&to, Access::Push, credentials, args.plain_http)?;
    let place = tagged(&to, &package)?;
    let digest = upload(&mut client, &place, &package, &bytes)
        .with_context(|| format!("failed to push to {place}"))?;
    println!(
        "{place}: {} {}, {}, signed by {}",
        package.manifest.name,
        package.manifest.version,
        HumanBytes(bytes.len() as u64),
        package.signer
    );
    let fixed = Reference {
        which: Some(Which::Digest(digest)),
        ..place
    };
    println!("others get exactly this by: nextstate plugin install {SCHEME}{fixed}");
    Ok(())
}

/// A package's file as it is, or a folder's plugin signed with the key of this machine.
fn packed(path: &std::path::Path) -> anyhow::Result<(Package, Vec<u8>)> {
    if !path.is_dir() {
        return package::read(path);
    }
    let source = Source::find(&path.display().to_string())?;
    // What could not be loaded is not signed.
    source.load_trusted(&toml::Table::new())?;
    let key = Store::from_environment()?.signing_key()?;
    let bytes = package::seal(&source.manifest, &source.component, &key)?;
    Ok((package::open(&bytes)?, bytes))
}

/// The reference with a tag.
fn tagged(to: &Reference, package: &Package) -> anyhow::Result<Reference> {
    let version = &package.manifest.version;
    let tag = match &to.which {
        Some(Which::Tag(tag)) => tag,
        Some(Which::Digest(_)) => {
            bail!("failed to push to {to}: a digest follows from the content; name a tag")
        }
        None => version,
    };
    ensure!(
        is_tag(tag),
        "the version `{tag}` cannot be a tag: name one, for example {to}:latest"
    );
    Ok(Reference {
        which: Some(Which::Tag(tag.clone())),
        ..to.clone()
    })
}

/// Blobs first: a manifest whose blobs are missing is refused by registries.
pub(super) fn upload(
    client: &mut Client,
    place: &Reference,
    package: &Package,
    bytes: &[u8],
) -> anyhow::Result<Digest> {
    let artifact = serde_json::to_vec(&Artifact::of(package, bytes))?;
    let tag = place.wanted().to_string();
    // Other tags, as `latest`, are meant to move.
    if tag == package.manifest.version
        && let Some(there) = client.tagged(&tag)?
    {
        ensure!(
            there == Digest::of(&artifact),
            "there is another {} {tag} ({there}): a version is never replaced; raise it in plugin.toml",
            package.manifest.name
        );
    }
    client.put_blob(CONFIG)?;
    client.put_blob(bytes)?;
    client.put_manifest(&tag, &artifact)
}

/// Fetches a package and checks all that can be checked without a person.
///
/// # Errors
/// The registry's, or a package that is not what it was said to be.
pub(in crate::plugins) fn fetch(text: &str, plain: bool) -> anyhow::Result<(Package, Vec<u8>)> {
    let from: Reference = text.parse()?;
    let credentials = Credentials::of(&from.registry)?;
    let mut client = Client::new(&from, Access::Pull, credentials, plain)?;
    let (package, bytes, digest) =
        download(&mut client, &from).with_context(|| format!("failed to pull {from}"))?;
    println!("pulled      {from}, {digest}");
    Ok((package, bytes))
}

pub(super) fn download(
    client: &mut Client,
    from: &Reference,
) -> anyhow::Result<(Package, Vec<u8>, Digest)> {
    let (manifest, digest) = client.manifest(&from.wanted())?;
    let artifact = Artifact::read(&manifest)?;
    let bytes = client.blob(artifact.layer()?)?;
    let package = package::open(&bytes)?;
    artifact.is_of(&package)?;
    Ok((package, bytes, digest))
}

pub(in crate::plugins) fn pull(args: &PullArgs) -> anyhow::Result<()> {
    let (package, bytes) = fetch(&args.from, args.plain_http)?;
    let own = || PathBuf::from(package.file_name());
    let path = args.out.clone().unwrap_or_else(own);
    // A name of the package's choice never takes the place of what is there.
    let mut file = File::create_new(&path)
        .with_context(|| format!("failed to make {}; --out names another", path.display()))?;
    file.write_all(&bytes)
        .with_context(|| format!("failed to write {}", path.display()))?;
    println!(
        "{}: {}, signed by {}",
        path.display(),
        HumanBytes(bytes.len() as u64),
        package.signer
    );
    println!("next: nextstate plugin install {}", path.display());
    Ok(())
}
