//! The browser as its owner has it: a process that is started when the first page wants it, and a count of pages.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;

use crate::{Error, Result};

use super::{
    Config, Page,
    chromium::{self, Chromium},
    launch::{self, Way},
};

/// Makes headless pages; cheap to clone. Chromium starts with the first page, starts again with the next page if it died, and is
/// killed, with all of its processes and files, when the last handle and the last page are dropped.
#[derive(Debug, Clone)]
pub struct Browser {
    shared: Arc<Shared>,
}

/// What handles and pages have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: Config,
    binary: PathBuf,
    folder: PathBuf,
    running: Mutex<Running>,
    pages: AtomicUsize,
    /// Held for as long as the folder is ours.
    _lock: fs::File,
}

#[derive(Debug)]
struct Running {
    chromium: Option<Arc<Chromium>>,
    /// How it may be started. After the first start only the way that worked, which is warned about once.
    ways: Vec<Way>,
    is_known: bool,
}

impl Browser {
    /// Checks the config and looks for chromium; starts nothing. Profiles go to this folder, which is created, is this browser's
    /// alone, and is cleared of what a host that crashed left there.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when there is no chromium; [`Error::Refused`] for a config that cannot be; [`Error::Failed`]
    /// when the folder cannot be used.
    pub fn new(config: Config, folder: &Path) -> Result<Self> {
        config.validate()?;
        let binary = launch::find(&config)?;
        let ways = launch::ways(&config)?;
        let failed = |error: std::io::Error| Error::Failed {
            action: format!("use {} for the browser's profiles", folder.display()),
            why: error.to_string(),
        };
        fs::create_dir_all(folder).map_err(failed)?;
        let folder = folder.canonicalize().map_err(failed)?;
        let lock = fs::File::create(folder.join("lock")).map_err(failed)?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::Error(error) => failed(error),
            fs::TryLockError::WouldBlock => failed(std::io::Error::other(
                "another browser uses it; give each a folder of its own",
            )),
        })?;
        chromium::clean_leftovers(&folder).map_err(failed)?;
        let running = Running {
            chromium: None,
            ways,
            is_known: false,
        };
        Ok(Self {
            shared: Arc::new(Shared {
                config,
                binary,
                folder,
                running: Mutex::new(running),
                pages: AtomicUsize::new(0),
                _lock: lock,
            }),
        })
    }

    /// A fresh, empty page of 640 by 480 CSS pixels, in a profile of its own.
    ///
    /// # Errors
    /// [`Error::Refused`] when there are as many pages as there may be; [`Error::Unavailable`] when chromium does not start.
    pub fn page(&self) -> Result<Page> {
        Page::create(Seat::take(&self.shared)?)
    }

    /// How many pages there are.
    pub fn live(&self) -> usize {
        self.shared.pages.load(Ordering::SeqCst)
    }
}

impl Shared {
    /// The process; started if there is none.
    pub(super) fn chromium(&self) -> Result<Arc<Chromium>> {
        let mut running = self.running.lock();
        if let Some(chromium) = &running.chromium
            && !chromium.connection.has_ended()
        {
            return Ok(chromium.clone());
        }
        running.chromium = None;
        let (chromium, way) =
            chromium::start(&self.config, &self.binary, &self.folder, &running.ways)?;
        if !running.is_known {
            warn_about(way);
        }
        running.ways = vec![way];
        running.is_known = true;
        let chromium = Arc::new(chromium);
        running.chromium = Some(chromium.clone());
        Ok(chromium)
    }
}

fn warn_about(way: Way) {
    if !way.jailed {
        tracing::warn!(
            "chromium runs outside a jail: only its own flags keep it from the network; install bubblewrap, or allow user namespaces"
        );
    }
    if !way.sandboxed {
        tracing::warn!(
            "chromium runs without its own sandbox: a page that breaks out of its process has what chromium has; run the host as an ordinary user, or allow user namespaces"
        );
    }
}

/// The right to have one page.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) shared: Arc<Shared>,
}

impl Seat {
    fn take(shared: &Arc<Shared>) -> Result<Self> {
        let most = shared.config.pages;
        let more = |taken: usize| (taken < most).then_some(taken + 1);
        match shared
            .pages
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, more)
        {
            Ok(_) => Ok(Self {
                shared: shared.clone(),
            }),
            Err(taken) => Err(Error::Refused {
                action: "create a page".to_owned(),
                why: format!("{taken} pages are open, and `pages` allows no more; close one first"),
            }),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.shared.pages.fetch_sub(1, Ordering::SeqCst);
    }
}
