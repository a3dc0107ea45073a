//! Loading: what is checked before a byte of a guest is compiled, and what it becomes.

use std::{collections::BTreeMap, fmt, ops::Range, sync::Arc};

use sha2::{Digest, Sha256};
use wasmparser::{Parser, Payload, Validator, WasmFeatures};
use wasmtime::component::InstancePre;

use crate::{
    capabilities::{Metric, Metrics, State},
    compiled::Artefact,
    endings::Endings,
    error::{Error, LoadProblem, Result},
    host::{Budget, Compiled, PluginHost, Ready},
    limits::{Limits, MEMORIES},
    manifest::{Capability, Manifest, Value, World},
    mappings, runtimes,
};

/// The package and version that this host speaks.
const PACKAGE: &str = "nextstate:plugin/";
const VERSION: &str = "@0.1.0";

/// Always granted; `types` holds no function.
const ALWAYS: [&str; 3] = ["types", "log", "metric"];

/// A plugin that was checked and compiled, ready to be instantiated. Cheap to clone.
#[derive(Clone)]
pub struct Plugin {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) host: PluginHost,
    pub(crate) manifest: Manifest,
    pub(crate) config: Arc<BTreeMap<String, Value>>,
    pub(crate) metrics: Metrics,
    pub(crate) pre: InstancePre<State>,
    /// Memory mappings of an instance.
    pub(crate) mappings: u64,
    pub(crate) endings: Endings,
    digest: String,
    imports: Vec<String>,
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin")
            .field("name", &self.inner.manifest.name)
            .field("digest", &self.inner.digest)
            .finish_non_exhaustive()
    }
}

impl PluginHost {
    /// Checks a plugin against its manifest, its grants and the limits, and compiles it, unless its code was kept.
    ///
    /// `section` is the plugin's own part of the recipe; it is checked by the schema of the manifest before anything runs.
    ///
    /// # Errors
    /// [`Error::Load`]; an import that the manifest does not list is named.
    pub fn load(
        &self,
        manifest: &str,
        component: &[u8],
        grants: &[Capability],
        section: &toml::Table,
    ) -> Result<Plugin> {
        let ready = self.cache().map_or(Ready::Nowhere, Ready::Kept);
        let loaded = self.load_from(manifest, component, grants, section, ready)?;
        Ok(loaded.0)
    }

    /// As [`PluginHost::load`], in a worker process: with the code that its host handed over, if any. Gives the code to be handed to
    /// the host where it had to be compiled. No code of the guest has run by then.
    ///
    /// # Errors
    /// As [`PluginHost::load`].
    pub fn load_handed(
        &self,
        manifest: &str,
        component: &[u8],
        grants: &[Capability],
        section: &toml::Table,
        handed: Option<Artefact>,
    ) -> Result<(Plugin, Option<Vec<u8>>)> {
        let ready = handed.map_or(Ready::Nowhere, Ready::Handed);
        let (plugin, anew) = self.load_from(manifest, component, grants, section, ready)?;
        let serialized = anew.then(|| plugin.inner.pre.component().serialize());
        // A host that is handed nothing compiles the next time, too.
        Ok((plugin, serialized.and_then(std::result::Result::ok)))
    }

    fn load_from(
        &self,
        manifest: &str,
        component: &[u8],
        grants: &[Capability],
        section: &toml::Table,
        ready: Ready<'_>,
    ) -> Result<(Plugin, bool)> {
        let (manifest, config) = admit(manifest, grants, section)?;
        let config = Arc::new(config);
        let refuse = |problem| Error::Load {
            plugin: manifest.name.clone(),
            problem,
        };
        let imports = check_component(component, &manifest, self.limits()).map_err(refuse)?;
        let misfit = |error: wasmtime::Error| {
            refuse(LoadProblem::World {
                world: manifest.world.as_str().into(),
                problem: format!("{error:#}"),
            })
        };
        let runtime = self.runtime(budget(manifest.world));
        let digest: [u8; 32] = Sha256::digest(component).into();
        let compiled = runtime.compile(component, digest, ready);
        let Compiled { pre, anew } = compiled.map_err(misfit)?;
        let memories = pre
            .component()
            .resources_required()
            .map_or(MEMORIES, |all| all.num_memories);
        let inner = Inner {
            host: self.clone(),
            config,
            metrics: Metrics::default(),
            pre,
            mappings: mappings::needed(memories),
            endings: Endings::new(),
            digest: hex::encode(digest),
            imports,
            manifest,
        };
        let plugin = Plugin {
            inner: Arc::new(inner),
        };
        Ok((plugin, anew))
    }
}

impl Manifest {
    /// Reads a manifest and checks what a recipe gives its plugin: all that can be checked without the component.
    ///
    /// # Errors
    /// [`Error::Load`].
    pub fn admit(text: &str, grants: &[Capability], section: &toml::Table) -> Result<Self> {
        Ok(admit(text, grants, section)?.0)
    }
}

fn admit(
    manifest: &str,
    grants: &[Capability],
    section: &toml::Table,
) -> Result<(Manifest, BTreeMap<String, Value>)> {
    let unnamed = |problem| Error::Load {
        plugin: "(unnamed)".into(),
        problem,
    };
    let manifest = Manifest::parse(manifest).map_err(unnamed)?;
    let refuse = |problem| Error::Load {
        plugin: manifest.name.clone(),
        problem,
    };
    let mut wanted = manifest.capabilities.iter();
    if let Some(refused) = wanted.find(|wanted| !grants.contains(wanted)) {
        return Err(refuse(LoadProblem::NotGranted(refused.to_string())));
    }
    let config = manifest.check(section).map_err(refuse)?;
    Ok((manifest, config))
}

impl Plugin {
    /// The manifest it was loaded with.
    pub fn manifest(&self) -> &Manifest {
        &self.inner.manifest
    }

    /// Name and version, for the ledger.
    pub fn name(&self) -> String {
        format!(
            "{} {}",
            self.inner.manifest.name, self.inner.manifest.version
        )
    }

    /// The SHA-256 of the component, in hexadecimal: says which build judged what.
    pub fn digest(&self) -> &str {
        &self.inner.digest
    }

    /// The interfaces that the component imports, by their full names. Those of plain types hold nothing to call.
    pub fn imports(&self) -> &[String] {
        &self.inner.imports
    }

    /// Its config with the defaults filled in.
    pub fn config(&self) -> &BTreeMap<String, Value> {
        &self.inner.config
    }

    /// What its instances recorded so far, by name.
    pub fn metrics(&self) -> Vec<(String, Metric)> {
        self.inner
            .metrics
            .lock()
            .iter()
            .map(|(name, metric)| (name.clone(), *metric))
            .collect()
    }

    pub(crate) fn expect_world(&self, wanted: World) -> Result<()> {
        let is = self.inner.manifest.world;
        if is == wanted {
            return Ok(());
        }
        Err(self.refused(LoadProblem::Kind {
            is: is.as_str().into(),
            wanted: wanted.as_str().into(),
        }))
    }

    pub(crate) fn refused(&self, problem: LoadProblem) -> Error {
        Error::Load {
            plugin: self.inner.manifest.name.clone(),
            problem,
        }
    }
}

pub(crate) fn budget(world: World) -> Budget {
    match world {
        World::EnvironmentPlugin => Budget::Deadline,
        World::JudgePlugin | World::RewardPlugin => Budget::Fuel,
    }
}

/// Size, validity, function sizes and imports: all from the bytes, before the compiler sees them.
/// Gives the imports.
fn check_component(
    bytes: &[u8],
    manifest: &Manifest,
    limits: &Limits,
) -> Result<Vec<String>, LoadProblem> {
    let too_large = |bytes, allowed| Err(LoadProblem::Size { bytes, allowed });
    if bytes.len() > limits.runtime_component_bytes.max(limits.component_bytes) {
        return too_large(bytes.len(), limits.component_bytes);
    }
    let invalid = |error: wasmparser::BinaryReaderError| LoadProblem::Invalid(error.to_string());
    let mut depth = 0usize;
    let mut imports = Vec::new();
    let mut code = Code::default();
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(invalid)? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::Version {
                encoding: wasmparser::Encoding::Module,
                ..
            } if depth == 0 => {
                return Err(LoadProblem::Invalid(
                    "it is a core module, not a component".into(),
                ));
            }
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    imports.push(import.map_err(invalid)?.name.name.to_owned());
                }
            }
            Payload::CodeSectionStart { range, .. } => code.section(bytes, range, limits),
            Payload::CodeSectionEntry(body) => code.function(body.range().len(), limits)?,
            _ => {}
        }
    }
    if code.runtimes.is_empty() && bytes.len() > limits.component_bytes {
        return too_large(bytes.len(), limits.component_bytes);
    }
    if code.foreign_bytes > limits.component_bytes {
        return too_large(code.foreign_bytes, limits.component_bytes);
    }
    if let Some(import) = imports.iter().find(|import| !is_listed(import, manifest)) {
        let import = import.clone();
        return Err(LoadProblem::Import { import });
    }
    // What the engine leaves on for itself: the adapters that it makes between two components' memories need several.
    let features = WasmFeatures::default()
        & !WasmFeatures::THREADS
        & !WasmFeatures::MEMORY64
        & !WasmFeatures::MULTI_MEMORY;
    Validator::new_with_features(features)
        .validate_all(bytes)
        .map_err(invalid)?;
    Ok(imports)
}

/// What there is to compile: see `runtimes.rs` for why a function is capped, and which are not.
#[derive(Default)]
struct Code {
    runtimes: Vec<&'static str>,
    is_known: bool,
    foreign_bytes: usize,
}

impl Code {
    /// A code section begins; its functions follow.
    fn section(&mut self, bytes: &[u8], range: Range<usize>, limits: &Limits) {
        // A smaller section has no function over the cap, and need not be known.
        let runtime = (range.len() > limits.function_bytes)
            .then(|| runtimes::known(bytes.get(range.clone())?))
            .flatten()
            .filter(|runtime| !self.runtimes.contains(runtime));
        self.is_known = runtime.is_some();
        match runtime {
            Some(runtime) => self.runtimes.push(runtime),
            None => self.foreign_bytes = self.foreign_bytes.saturating_add(range.len()),
        }
    }

    fn function(&self, bytes: usize, limits: &Limits) -> Result<(), LoadProblem> {
        if bytes > limits.function_bytes && !self.is_known {
            let allowed = limits.function_bytes;
            return Err(LoadProblem::Function { bytes, allowed });
        }
        Ok(())
    }
}

fn is_listed(import: &str, manifest: &Manifest) -> bool {
    let Some(interface) = import
        .strip_prefix(PACKAGE)
        .and_then(|rest| rest.strip_suffix(VERSION))
    else {
        return false;
    };
    ALWAYS.contains(&interface)
        || manifest
            .capabilities
            .iter()
            .any(|granted| granted.as_str() == interface)
}
