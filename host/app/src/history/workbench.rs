//! What commands on a history work with: a ledger, the settings of its host, and the model, which is loaded when it is needed.
//!
//! On a live host everything is there already; on a folder it is opened when the first command asks. Reads and finds;
//! what moves the line goes through [`Control`].

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use ledger::Ledger;
use ledger::lineage::{Lineage, VersionRecord};
use policy::Adapter;

use crate::config::{Config, ModelSection};
use crate::host::Loaded;

/// Who moves the line.
#[derive(Debug)]
pub enum Control {
    /// The live host's train loop.
    Live {
        /// Gives it orders.
        control: loops::Control,
        /// Where orders are waited for.
        runtime: tokio::runtime::Handle,
    },
    /// This process: nobody else has the folder open.
    Offline,
}

/// A ledger and what belongs to it.
#[derive(Debug)]
pub struct Workbench {
    folder: PathBuf,
    config: Config,
    model: ModelSection,
    control: Control,
    ledger: OnceLock<Ledger>,
    loaded: OnceLock<Loaded>,
}

/// A place in a history.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Point {
    /// The weights on disk.
    Base,
    /// A version.
    Version(Box<VersionRecord>),
}

impl Point {
    /// As a person reads it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Base => "base".to_owned(),
            Self::Version(record) => format!("v{}", record.version),
        }
    }

    pub(crate) fn record(&self) -> Option<&VersionRecord> {
        match self {
            Self::Base => None,
            Self::Version(record) => Some(record),
        }
    }

    pub(crate) fn number(&self) -> u64 {
        self.record().map_or(0, |record| record.version)
    }
}

impl From<Option<&VersionRecord>> for Point {
    fn from(record: Option<&VersionRecord>) -> Self {
        record.map_or(Self::Base, |record| Self::Version(Box::new(record.clone())))
    }
}

impl Workbench {
    /// The workbench of a running host.
    pub fn live(config: Config, loaded: Loaded, ledger: Ledger, control: Control) -> Self {
        Self {
            folder: ledger.dir().to_owned(),
            model: config.model.clone(),
            config,
            control,
            ledger: OnceLock::from(ledger),
            loaded: OnceLock::from(loaded),
        }
    }

    /// The workbench of a data folder that no host has open. Nothing is opened yet. `model` stands for the model that the host
    /// wrote into the folder's `config.json`.
    ///
    /// # Errors
    /// There is no ledger in the folder, or its `config.json` is not one of this program.
    pub fn offline(data: &Path, model: Option<&str>) -> anyhow::Result<Self> {
        let folder = data.join("ledger");
        anyhow::ensure!(
            folder.is_dir(),
            "there is no ledger in {}: `nextstate serve` or `nextstate demo` makes one",
            data.display()
        );
        let mut config = read_config(&data.join("config.json"))?;
        if let Some(model) = model {
            model.clone_into(&mut config.model.name);
        }
        Ok(Self {
            folder,
            model: config.model.clone(),
            config,
            control: Control::Offline,
            ledger: OnceLock::new(),
            loaded: OnceLock::new(),
        })
    }

    /// The data folder.
    pub(crate) fn data(&self) -> &Path {
        self.folder.parent().unwrap_or(&self.folder)
    }

    /// The ledger's folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn control(&self) -> &Control {
        &self.control
    }

    /// The adapter whose history it is.
    pub(crate) fn adapter_name(&self) -> &str {
        self.config.loops.adapter.as_str()
    }

    pub(crate) fn ledger(&self) -> anyhow::Result<&Ledger> {
        if let Some(ledger) = self.ledger.get() {
            return Ok(ledger);
        }
        let ledger = Ledger::open(&self.folder, ledger::Options::default());
        let ledger = ledger.map_err(|error| self.explain(error))?;
        Ok(self.ledger.get_or_init(|| ledger))
    }

    /// What to do about a ledger that cannot be opened.
    fn explain(&self, error: ledger::Error) -> anyhow::Error {
        let data = self.data().display();
        let advice = match &error {
            ledger::Error::Locked { .. } => {
                "a host is running on this folder; leave --data out to ask it".to_owned()
            }
            error if error.is_damage() => format!(
                "the ledger is damaged: `nextstate ledger verify --data {data}` says where, \
                 `nextstate ledger repair --data {data} --to DIR` saves the rest"
            ),
            _ => format!("failed to open the ledger in {data}"),
        };
        anyhow::Error::new(error).context(advice)
    }

    pub(crate) fn lineage(&self) -> anyhow::Result<Lineage> {
        Lineage::read(self.ledger()?).map_err(|error| self.explain(error))
    }

    /// The model, loaded at the first call.
    pub(crate) fn loaded(&self) -> anyhow::Result<&Loaded> {
        if let Some(loaded) = self.loaded.get() {
            return Ok(loaded);
        }
        let name = &self.model.name;
        let loaded = Loaded::from_config(&self.model).with_context(|| {
            format!(
                "the base model `{name}` is needed for this; --model PATH says where else it is"
            )
        })?;
        Ok(self.loaded.get_or_init(|| loaded))
    }

    /// The version that a person means.
    pub(crate) fn point(&self, lineage: &Lineage, text: &str) -> anyhow::Result<Point> {
        let adapter = self.adapter_name();
        if matches!(text, "base" | "0" | "v0") {
            return Ok(Point::Base);
        }
        if let Some(record) = lineage.find(adapter, text) {
            return Ok(Point::Version(Box::new(record.clone())));
        }
        let named_base = lineage
            .refs(adapter)
            .any(|name| name.name == text && name.version == Some(0));
        if named_base || (text == "head" && lineage.live(adapter).is_none()) {
            return Ok(Point::Base);
        }
        let newest = lineage.newest(adapter).map_or_else(
            || "there is only the base model (`base`)".to_owned(),
            |v| format!("the newest is v{}", v.version),
        );
        let names: Vec<&str> = lineage.refs(adapter).map(|name| &*name.name).collect();
        let names = match names.as_slice() {
            [] => String::new(),
            names => format!(", names are {}", names.join(", ")),
        };
        anyhow::bail!("there is no version `{text}`: {newest}{names}; `nextstate log` lists them")
    }

    /// The version, which is not the base model.
    pub(crate) fn version(&self, lineage: &Lineage, text: &str) -> anyhow::Result<VersionRecord> {
        match self.point(lineage, text)? {
            Point::Version(record) => Ok(*record),
            Point::Base => anyhow::bail!(
                "`{text}` is the base model: it has no samples and no adapter, name a version"
            ),
        }
    }

    /// Whether a version's weights are still there.
    pub(crate) fn is_whole(&self, record: &VersionRecord) -> anyhow::Result<bool> {
        let ledger = self.ledger()?;
        let blobs = [record.adapter_blob, record.optimizer_blob];
        Ok(blobs.iter().flatten().all(|digest| ledger.has_blob(digest)))
    }

    /// The bytes of a version's adapter; none when its weights are the base model's.
    pub(crate) fn adapter_bytes(&self, record: &VersionRecord) -> anyhow::Result<Option<Vec<u8>>> {
        let Some(digest) = &record.adapter_blob else {
            return Ok(None);
        };
        let version = record.version;
        anyhow::ensure!(
            self.is_whole(record)?,
            "the weights of v{version} were erased when something that it had learned from was forgotten"
        );
        let bytes = self.ledger()?.get_blob(digest);
        Ok(Some(bytes.with_context(|| {
            format!("failed to read the weights of v{version}")
        })?))
    }

    /// The adapter of a place in the history; none for the base model.
    pub(crate) fn adapter(&self, point: &Point) -> anyhow::Result<Option<Arc<Adapter>>> {
        let Some(record) = point.record() else {
            return Ok(None);
        };
        let Some(bytes) = self.adapter_bytes(record)? else {
            return Ok(None);
        };
        let loaded = self.loaded()?;
        let alpha = self.alpha(record);
        let adapter = Adapter::from_safetensors(&bytes, loaded.model.config(), alpha);
        let adapter = adapter.with_context(|| {
            format!(
                "the adapter of {} does not fit the model {}; --model says which it was trained on",
                point.name(),
                loaded.name
            )
        })?;
        Ok(Some(Arc::new(adapter)))
    }

    /// The scale of a version's adapter: what it was trained with.
    pub(crate) fn alpha(&self, record: &VersionRecord) -> f32 {
        let recorded = record.settings["learner"]["alpha"].as_f64();
        recorded.map_or(self.config.train.alpha, |alpha| alpha as f32)
    }

    /// The rank of a version's adapter.
    pub(crate) fn rank(&self, record: &VersionRecord) -> usize {
        let recorded = record.settings["learner"]["rank"].as_u64();
        let recorded = recorded.and_then(|rank| usize::try_from(rank).ok());
        recorded.unwrap_or(self.config.train.rank)
    }
}

/// The settings that the folder's last host wrote; the defaults when there are none.
fn read_config(path: &Path) -> anyhow::Result<Config> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Config::default()),
        Err(error) => {
            return Err(error).with_context(|| format!("failed to read {}", path.display()));
        }
    };
    serde_json::from_str(&text).with_context(|| {
        format!(
            "{} was written by another version of nextstate; a host that is started on this folder writes it anew",
            path.display()
        )
    })
}
