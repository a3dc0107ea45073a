//! The image manifest that a package becomes: written at a push, doubted at a pull.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use super::digest::Digest;
use crate::plugins::package::{self, Package};

/// The media type of the manifest itself.
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// What kind of thing the artifact is.
pub(super) const ARTIFACT: &str = "application/vnd.nextstate.plugin.v1";
/// The one layer: a file as `nextstate plugin pack` makes it.
pub(super) const PACKAGE: &str = "application/vnd.nextstate.plugin.package.v1";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// What the specification wants as a config where there is none.
pub(super) const CONFIG: &[u8] = b"{}";
/// Ours have less than 2 KiB; what other tools add to them is small, too.
pub(super) const MANIFEST_BYTES: u64 = 64 << 10;

const NAME: &str = "io.nextstate.plugin.name";
const VERSION: &str = "io.nextstate.plugin.version";
const WORLD: &str = "io.nextstate.plugin.world";
const CAPABILITIES: &str = "io.nextstate.plugin.capabilities";
const SIGNER: &str = "io.nextstate.plugin.signer";
const TITLE: &str = "org.opencontainers.image.title";
const DESCRIPTION: &str = "org.opencontainers.image.description";
const RELEASE: &str = "org.opencontainers.image.version";

/// Something that lies in the registry.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// Its content's.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// What people and tools are told of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// An image manifest. What it says beyond this is other people's, and not read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// 2, since ever.
    pub schema_version: u32,
    /// That of an image manifest.
    pub media_type: String,
    /// What the image is instead of a program.
    #[serde(default)]
    pub artifact_type: String,
    /// Empty.
    pub config: Descriptor,
    /// The package.
    pub layers: Vec<Descriptor>,
    /// What people and tools are told of the plugin; the package's own manifest is what counts.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

impl Artifact {
    /// The artifact of a package: the same package makes the same bytes, so that a second push changes nothing.
    pub fn of(package: &Package, bytes: &[u8]) -> Self {
        let manifest = &package.manifest;
        let asks: Vec<&str> = manifest.capabilities.iter().map(|c| c.as_str()).collect();
        let notes = [
            (NAME, manifest.name.clone()),
            (VERSION, manifest.version.clone()),
            (WORLD, manifest.world.as_str().to_owned()),
            (CAPABILITIES, asks.join(",")),
            (SIGNER, package.signer.clone()),
            (TITLE, manifest.name.clone()),
            (DESCRIPTION, manifest.doc.clone()),
            (RELEASE, manifest.version.clone()),
        ];
        let described = |media_type: &str, bytes: &[u8]| Descriptor {
            media_type: media_type.to_owned(),
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
            annotations: BTreeMap::new(),
        };
        // By this name other tools for artifacts unpack it.
        let mut layer = described(PACKAGE, bytes);
        layer
            .annotations
            .insert(TITLE.to_owned(), package.file_name());
        Self {
            schema_version: 2,
            media_type: MANIFEST.to_owned(),
            artifact_type: ARTIFACT.to_owned(),
            config: described(EMPTY, CONFIG),
            layers: vec![layer],
            annotations: notes.map(|(key, value)| (key.to_owned(), value)).into(),
        }
    }

    /// Reads a manifest, which must be one of a plugin.
    ///
    /// # Errors
    /// Anything else.
    pub fn read(bytes: &[u8]) -> anyhow::Result<Self> {
        let kind = serde_json::from_slice::<Kind>(bytes).context("it is no image manifest")?;
        ensure!(
            kind.media_type == MANIFEST && kind.artifact_type == ARTIFACT,
            "it is no plugin but `{}`: a plugin is `{ARTIFACT}`, which `nextstate plugin push` makes",
            shown(if kind.artifact_type.is_empty() {
                &kind.media_type
            } else {
                &kind.artifact_type
            })
        );
        serde_json::from_slice(bytes).context("its image manifest is damaged")
    }

    /// The package's file.
    ///
    /// # Errors
    /// There is not exactly one, or it is longer than a package may be.
    pub fn layer(&self) -> anyhow::Result<&Descriptor> {
        let [layer] = self.layers.as_slice() else {
            anyhow::bail!("it has {} layers, and a plugin has one", self.layers.len());
        };
        ensure!(
            layer.media_type == PACKAGE,
            "its layer is `{}`, and a plugin's is `{PACKAGE}`",
            shown(&layer.media_type)
        );
        ensure!(
            layer.size <= package::most_bytes(),
            "its layer has {} bytes, and a package has at most {}",
            layer.size,
            package::most_bytes()
        );
        Ok(layer)
    }

    /// Refuses a package that is not what the registry shows people it is.
    ///
    /// # Errors
    /// A name or version that differs.
    pub fn is_of(&self, package: &Package) -> anyhow::Result<()> {
        let manifest = &package.manifest;
        for (key, own) in [(NAME, &manifest.name), (VERSION, &manifest.version)] {
            let said = self.annotations.get(key);
            ensure!(
                said.is_none_or(|said| said == own),
                "the registry shows it as `{}`, and the package is `{own}`",
                shown(said.map_or("", String::as_str))
            );
        }
        Ok(())
    }
}

/// As much as tells what a manifest is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    artifact_type: String,
}

/// Foreign text for a person's terminal. Attack: escape sequences, and texts that fill the screen.
pub(super) fn shown(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(200).map(plain).collect()
}
