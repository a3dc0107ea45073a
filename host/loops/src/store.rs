//! What plugins store, kept in the ledger: the other side of [`rl::Archive`], for hosted episodes and for turns.
//!
//! The state of a plugin and tenant is a fold over `stored` records, each of which is what one episode or turn left behind. What is held in
//! memory is a cache of that fold, brought up to a place of the ledger when somebody asks, and dropped when something is forgotten.
//! Who may store what is [`rl::store`]'s; what goes with what is forgotten is decided in `forget/`.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use ledger::{Entry, Ledger, Record, Seq};
use parking_lot::Mutex;
use rl::{
    Archive, EpisodeId, TenantId, TurnId,
    store::{Changes, Contents, Session, Write},
};

use crate::{
    Error, Result,
    records::{
        self, FORGET, ForgetRecord, OPENED, OpenedRecord, STORED, StoredRecord, StoredWrite,
    },
};

/// Everything that plugins stored. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Stores(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ledger: Ledger,
    cache: Mutex<Option<Fold>>,
}

/// Whose it is.
type Owner = (TenantId, String);

/// What was stored by a place of the ledger.
#[derive(Debug, Default)]
struct Fold {
    /// Every record before this is in it.
    before: Seq,
    /// The last that counted, or [`Seq::ZERO`].
    last: Seq,
    contents: HashMap<Owner, Arc<Contents>>,
    /// Episodes and turns that were forgotten; their keys may not be destroyed yet.
    forgotten: HashSet<String>,
    /// Records that went. Whoever was under way meanwhile may have read one, and nobody could know then.
    gone: HashSet<Seq>,
}

impl Fold {
    fn new(ledger: &Ledger) -> Result<Self> {
        let mut fold = Self::default();
        for record in ledger.by_kind(FORGET, Seq::FIRST) {
            let forget: ForgetRecord = records::decode(&record.map_err(unread)?)?;
            let turns = forget.turns.iter().map(ToString::to_string);
            fold.forgotten.extend(turns.chain(forget.subjects));
        }
        fold.before = Seq::FIRST;
        Ok(fold)
    }

    /// Takes up what lies before this place.
    fn advance(&mut self, ledger: &Ledger, to: Seq) -> Result<()> {
        for record in ledger.by_kind(STORED, self.before) {
            let record = record.map_err(unread)?;
            if record.seq >= to {
                break;
            }
            self.take(&record)?;
        }
        self.before = self.before.max(to);
        Ok(())
    }

    fn take(&mut self, record: &Record) -> Result<()> {
        if record.erased || self.forgotten.contains(&record.subject) {
            self.gone.insert(record.seq);
            return Ok(());
        }
        let stored: StoredRecord = records::decode(record)?;
        let follows = !ledger::mutant::on("store-hands-on-what-is-forgotten");
        if follows && stored.read.iter().any(|seq| self.gone.contains(seq)) {
            self.gone.insert(record.seq);
            return Ok(());
        }
        let writes = stored.writes.into_iter().map(StoredWrite::into_write);
        let writes: Vec<Write> = writes.collect();
        let owner = (stored.tenant, stored.plugin);
        let contents = self.contents.entry(owner.clone()).or_default();
        let taken = Arc::make_mut(contents).apply(record.seq.get(), &writes);
        if let Err(error) = taken {
            let ((tenant, plugin), subject) = (owner, &record.subject);
            tracing::warn!(%tenant, plugin, subject, %error, "what was stored is dropped: others left no room for it");
        }
        self.last = record.seq;
        Ok(())
    }
}

impl Stores {
    pub(crate) fn new(ledger: Ledger) -> Self {
        let cache = Mutex::default();
        Self(Arc::new(Inner { ledger, cache }))
    }

    /// Something was forgotten, and what is in memory may hold it.
    pub(crate) fn forget(&self) {
        if !ledger::mutant::on("store-remembers") {
            *self.0.cache.lock() = None;
        }
    }

    /// What a plugin had stored for a tenant before this place of the ledger, which is durable.
    fn before(&self, to: Seq, owner: &Owner) -> Result<Arc<Contents>> {
        let ledger = &self.0.ledger;
        let mut cache = self.0.cache.lock();
        let fold = match &mut *cache {
            Some(fold) => fold,
            none => none.insert(Fold::new(ledger)?),
        };
        // An episode that goes on after a restart, or whose group began before others ended: what was stored since is not for it.
        if fold.last >= to {
            let mut past = Fold::new(ledger)?;
            past.advance(ledger, to)?;
            return Ok(past.contents.remove(owner).unwrap_or_default());
        }
        fold.advance(ledger, to)?;
        Ok(fold.contents.get(owner).cloned().unwrap_or_default())
    }

    /// For a hosted episode of a group.
    pub(crate) fn of_episode(&self, tenant: &TenantId, episode: &EpisodeId, group: &str) -> Lent {
        let group = Some(group.to_owned());
        self.lent(tenant, episode.to_string(), group)
    }

    /// For a turn of live traffic.
    pub(crate) fn of_turn(&self, tenant: &TenantId, turn: &TurnId) -> Lent {
        self.lent(tenant, turn.to_string(), None)
    }

    fn lent(&self, tenant: &TenantId, subject: String, group: Option<String>) -> Lent {
        Lent {
            stores: self.clone(),
            tenant: tenant.clone(),
            subject,
            group,
            opened: Mutex::default(),
        }
    }
}

/// The archive of one episode or turn.
pub(crate) struct Lent {
    stores: Stores,
    tenant: TenantId,
    subject: String,
    /// An episode's.
    group: Option<String>,
    /// The session, and whose plugin opened it; the last one counts.
    opened: Mutex<Option<(String, Session)>>,
}

impl Lent {
    /// The entry of what it leaves behind, to be appended with its end; none when it neither wrote nor read anything of others.
    ///
    /// # Errors
    /// [`Error::Encode`].
    pub(crate) fn leave(&self) -> Result<Option<Entry>> {
        let Some((plugin, session)) = self.opened.lock().take() else {
            return Ok(None);
        };
        let Changes { read, writes } = session.close();
        if read.is_empty() && writes.is_empty() {
            return Ok(None);
        }
        let record = StoredRecord {
            tenant: self.tenant.clone(),
            plugin,
            read: read.into_iter().map(Seq::new).collect(),
            writes: writes.into_iter().map(StoredWrite::from).collect(),
        };
        record.to_entry(&self.subject).map(Some)
    }

    /// Where the ledger was when the first attempt of the group began: all attempts see what was stored before, also after a restart.
    fn place(&self, group: &str, plugin: &str) -> Result<Seq> {
        let ledger = &self.stores.0.ledger;
        let record = OpenedRecord {
            tenant: self.tenant.clone(),
            plugin: plugin.to_owned(),
            episode: self.subject.as_str().into(),
            group: group.to_owned(),
        };
        ledger
            .append(record.to_entry()?)
            .wait()
            .map_err(Error::ledger("rollout", "record where a store was opened"))?;
        if ledger::mutant::on("store-of-now") {
            return Ok(ledger.durable().next());
        }
        for record in ledger.by_subject(group) {
            let record = record.map_err(unread)?;
            if record.kind == OPENED {
                return Ok(record.seq);
            }
        }
        Ok(ledger.durable().next())
    }

    fn session(&self, plugin: &str) -> Result<Session> {
        let place = match &self.group {
            Some(group) => self.place(group, plugin)?,
            None => self.stores.0.ledger.durable().next(),
        };
        let owner = (self.tenant.clone(), plugin.to_owned());
        Ok(Session::new(self.stores.before(place, &owner)?))
    }
}

impl Archive for Lent {
    fn open(&self, plugin: &str) -> rl::Result<Session> {
        let session = self.session(plugin).map_err(|error| rl::Error::Failed {
            what: format!("look up what plugin {plugin} stored"),
            why: error.chain(),
        })?;
        *self.opened.lock() = Some((plugin.to_owned(), session.clone()));
        Ok(session)
    }
}

fn unread(source: ledger::Error) -> Error {
    Error::ledger("rollout", "read what plugins stored")(source)
}

#[cfg(test)]
mod tests {
    use ledger::Options;

    use super::*;

    fn leave(ledger: &Ledger, subject: &str, read: &[Seq], key: &str) -> Seq {
        let write = StoredWrite::from(Write {
            key: key.to_owned(),
            value: Some(subject.as_bytes().into()),
        });
        let record = StoredRecord {
            tenant: "t".into(),
            plugin: "p".to_owned(),
            read: read.to_vec(),
            writes: vec![write],
        };
        let entry = record.to_entry(subject).unwrap();
        ledger.append(entry).wait().unwrap().seq
    }

    #[test]
    fn what_was_under_way_while_something_was_forgotten_hands_nothing_of_it_on() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path(), Options::default()).unwrap();
        let ann = leave(&ledger, "ann", &[], "a");
        ledger.destroy_keys(&["ann".to_owned()]).unwrap();
        // Bob had read it before, and is recorded afterwards; Eve read what he made of it.
        let bob = leave(&ledger, "bob", &[ann], "b");
        leave(&ledger, "eve", &[bob], "e");
        leave(&ledger, "ida", &[], "i");
        let owner = ("t".into(), "p".to_owned());
        let stores = Stores::new(ledger.clone());
        let session = Session::new(stores.before(ledger.durable().next(), &owner).unwrap());
        let found = ["a", "b", "e", "i"].map(|key| session.get(key).unwrap().is_some());
        assert_eq!(found, [false, false, false, true]);
    }
}
