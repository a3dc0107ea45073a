//! Makes machines, and knows how many live.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{
    Config, Ending, Machine,
    cgroup::{Group, Groups},
    copies::Copies,
    fail::{failed, refused},
    folder::{Folder, Process, Record},
    jail::{Jail, Kit},
    layers::Layers,
    limits::EMPTY,
    machine::{OwnFolder, Store},
    programs::{self, Programs},
    tree::{Copy, Tree},
};
use crate::Result;

/// Machines of one process have numbers of their own, whoever made them.
static NEXT: AtomicU64 = AtomicU64::new(0);
/// How long an image may take to be copied.
const IMAGE_PATIENCE: Duration = Duration::from_secs(600);
/// How long the first machine's first command may take.
const PROBE_PATIENCE: Duration = Duration::from_secs(30);

/// Makes jailed machines. Cheap to clone; the last one, or the last machine, takes the folder's content with it.
#[derive(Clone)]
pub struct Machines {
    host: Arc<Host>,
}

/// What all machines of a host share.
pub(super) struct Host {
    kit: Kit,
    groups: Option<Groups>,
    live: Arc<AtomicUsize>,
    /// Images that have been copied, by name.
    images: Mutex<BTreeMap<String, PathBuf>>,
    folder: Folder,
    /// Part of the names of this host's control groups.
    name: String,
}

/// The right to one machine.
#[derive(Debug)]
pub(super) struct Permit(Arc<AtomicUsize>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Machines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machines")
            .field("live", &self.live())
            .finish_non_exhaustive()
    }
}

impl Host {
    pub(super) fn kit(&self) -> &Kit {
        &self.kit
    }

    /// The jails' user, where that is not the host's own.
    pub(super) fn owner(&self) -> Option<u32> {
        self.kit.root.then_some(self.kit.config.user)
    }
}

impl Machines {
    /// Takes a folder, removes what a host that crashed has left there, and tries a first machine.
    ///
    /// # Errors
    /// [`crate::Error::Refused`] for a bad config, or a folder that is someone else's; [`crate::Error::Unavailable`] when this
    /// computer cannot jail anything, with what to do about it.
    pub fn new(config: Config, folder: &Path) -> Result<Self> {
        config.validate()?;
        let programs = Programs::find()?;
        let folder = Folder::take(folder)?;
        let root = rustix::process::geteuid().is_root();
        let own = std::process::id();
        let started = Process::of(own.cast_signed()).map_or(0, |process| process.started());
        let name = format!("nextstate-{own}-{started}");
        let groups = Groups::find().filter(|_| config.control_groups);
        let groups = groups.filter(|groups| {
            let tried = groups.create(&format!("{name}-try"), &config);
            tried
                .inspect_err(|why| tracing::info!(%why, "no control groups"))
                .is_ok()
        });
        if groups.is_none() {
            tracing::warn!(
                "machines have no control groups: limits hold for each process, not for a whole machine"
            );
        }
        let layered = root && config.overlay;
        let mut host = Host {
            kit: Kit {
                programs,
                config,
                root,
                layered,
            },
            groups,
            live: Arc::default(),
            images: Mutex::default(),
            folder,
            name,
        };
        if layered {
            let machines = Self {
                host: Arc::new(host),
            };
            let Err(why) = machines.try_first() else {
                return Ok(machines);
            };
            tracing::warn!(%why, "no overlay layers here: states of machines will be copies");
            let lost = || failed("try a machine", "it is still in use");
            host = Arc::into_inner(machines.host).ok_or_else(lost)?;
            host.kit.layered = false;
        }
        let machines = Self {
            host: Arc::new(host),
        };
        let tried = machines.try_first();
        tried.map_err(|why| programs::explain(&why))?;
        Ok(machines)
    }

    /// A fresh machine whose `/work` holds the files of an image.
    ///
    /// # Errors
    /// [`crate::Error::Refused`] for an unknown image or one machine too many; [`crate::Error::Failed`] when it could not be made.
    pub fn create(&self, image: &str) -> Result<Machine> {
        let host = &self.host;
        let permit = self.permit()?;
        let image = self.image(image)?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = host.folder.machine(number);
        let fail = |e: std::io::Error| failed(format!("make {}", folder.display()), e);
        fs::create_dir(&folder).map_err(fail)?;
        let own = OwnFolder(folder.clone());
        let name = format!("{}-{number}", host.name);
        // Written before there is anything to forget.
        let mut record = Record::default();
        let groups = host.groups.as_ref();
        record.groups = groups
            .map(|groups| groups.folders(&name))
            .unwrap_or_default();
        record.write(&folder).map_err(fail)?;
        let group = groups.map_or_else(
            || Ok(Group::default()),
            |groups| groups.create(&name, &host.kit.config),
        )?;
        let jail = Jail::start(&host.kit, &group)?;
        record.first = Process::of(jail.number());
        record.write(&folder).map_err(fail)?;
        let config = &host.kit.config;
        let image = image.as_deref();
        let store = if host.kit.layered {
            Store::Layers(Layers::mount(&jail, config, image)?)
        } else {
            let copies = Copies::fill(&jail, config, host.owner(), &folder, image)?;
            Store::Copies(copies)
        };
        Ok(Machine::new(
            Arc::clone(host),
            permit,
            own,
            group,
            jail,
            store,
        ))
    }

    /// How many machines live.
    pub fn live(&self) -> usize {
        self.host.live.load(Ordering::Relaxed)
    }

    fn permit(&self) -> Result<Permit> {
        let most = self.host.kit.config.machines;
        let more = |live: usize| (live < most).then_some(live + 1);
        let taken = self
            .host
            .live
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        match taken {
            Ok(_) => Ok(Permit(Arc::clone(&self.host.live))),
            Err(_) => {
                let why = format!("{most} live already, which is this host's limit");
                Err(refused("make a machine", why))
            }
        }
    }

    /// The copy of an image that machines get; made when the image is used first. None for the empty one.
    fn image(&self, name: &str) -> Result<Option<PathBuf>> {
        if name == EMPTY {
            return Ok(None);
        }
        let host = &self.host;
        let action = || format!("make a machine with the image {name:?}");
        let Some(source) = host.kit.config.images.get(name) else {
            let known: Vec<&str> = host.kit.config.images.keys().map(String::as_str).collect();
            let why = format!(
                "there is no such image; known: {EMPTY}, {}",
                known.join(", ")
            );
            return Err(refused(action(), why));
        };
        let mut images = host.images.lock();
        if let Some(folder) = images.get(name) {
            return Ok(Some(folder.clone()));
        }
        let folder = host.folder.image(name);
        let fail = |e: std::io::Error| failed(action(), e);
        super::folder::remove(&folder).map_err(fail)?;
        fs::create_dir(&folder).map_err(fail)?;
        let copy = Copy {
            owner: host.owner(),
            // An operator's own files: bounded by the disk alone.
            bytes: u64::MAX,
            until: Instant::now() + IMAGE_PATIENCE,
            layer: false,
        };
        let from = Tree::at(source).map_err(|e| fail(e.into()))?;
        let to = Tree::at(&folder).map_err(|e| fail(e.into()))?;
        from.copy_into(&to, copy)?;
        images.insert(name.to_owned(), folder.clone());
        Ok(Some(folder))
    }

    /// Makes a machine and uses it, so that a host that cannot says so when it starts.
    fn try_first(&self) -> Result<()> {
        let mut machine = self.create(EMPTY)?;
        let output = machine.run("touch tried", "/work", PROBE_PATIENCE)?;
        let there = machine.read_file("/work/tried")?;
        if output.ending != Ending::Exited(0) || there.is_none() {
            let why = format!("its first command gave {output:?}");
            return Err(failed("try a machine", why));
        }
        Ok(())
    }
}
