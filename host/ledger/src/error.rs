//! The crate's errors. They are `Clone`, because one failed commit is told to everybody who waited for it.

use std::{io, path::PathBuf, sync::Arc};

use crate::{Digest, Seq};

/// The result of a ledger operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the ledger refused or failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another process, or another handle in this one, has the folder open.
    #[error("{} is in use by another process; two hosts cannot share one ledger", dir.display())]
    Locked {
        /// The folder.
        dir: PathBuf,
    },
    /// A file operation failed.
    #[error("failed to {action} {}", path.display())]
    File {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: Arc<io::Error>,
    },
    /// The database of a ledger of format 1 failed.
    #[error("failed to {action} the database of the old ledger")]
    Database {
        /// What was attempted.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: Arc<rusqlite::Error>,
    },
    /// The file is a database, but not ours.
    #[error("{} is not a ledger: its application id is {found:#010x}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The application id in its header.
        found: i64,
    },
    /// The ledger was written by a newer program.
    #[error("{} has ledger format {found}; this program reads up to {supported}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format version.
        found: i64,
        /// The newest that this program knows.
        supported: i64,
    },
    /// The ledger is of an older format, and only opening upgrades it.
    #[error("{} is a ledger of format 1; open it once, which upgrades it", dir.display())]
    Old {
        /// The folder.
        dir: PathBuf,
    },
    /// A record's content does not agree with its hash, or its hash with its predecessor's.
    #[error(
        "record {seq} is damaged ({} at byte {offset}): its hash is {found}, its content and predecessor give {expected}",
        path.display()
    )]
    Damaged {
        /// The record.
        seq: Seq,
        /// The file that it is in.
        path: PathBuf,
        /// Where in the file it starts.
        offset: u64,
        /// The hash stored with it.
        found: Digest,
        /// The hash computed from its content and the record before it.
        expected: Digest,
    },
    /// Bytes of the log are not what was written.
    #[error(
        "{} is damaged at byte {offset}{}: {why}; `ledger repair` saves everything else", path.display(),
        seq.map(|seq| format!(", where record {seq} should be")).unwrap_or_default()
    )]
    Broken {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// The record that should be there, when one should.
        seq: Option<Seq>,
        /// What is wrong.
        why: &'static str,
    },
    /// The file of the keys is damaged; what was sealed under them cannot be read.
    #[error(
        "the keys {} are damaged{}: {why}", path.display(),
        slot.map(|slot| format!(" at slot {slot}")).unwrap_or_default()
    )]
    KeysDamaged {
        /// The file.
        path: PathBuf,
        /// Which key, unless it is all of them.
        slot: Option<u32>,
        /// What is wrong.
        why: &'static str,
    },
    /// A sealed body cannot be opened with its subject's key.
    #[error("the sealed body of record {seq} does not open with the key of its subject")]
    Sealed {
        /// The record.
        seq: Seq,
    },
    /// The subject's key has been destroyed: nothing more can be sealed under it.
    #[error(
        "the key of the subject {subject:?} has been destroyed; nothing more can be sealed under it"
    )]
    Erased {
        /// The subject.
        subject: String,
    },
    /// The machine gave no random bytes.
    #[error("failed to make a key: {why}")]
    Random {
        /// Why.
        why: Arc<str>,
    },
    /// The folder that a repair should write to is not empty.
    #[error("failed to repair into {}: it is not empty", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// A record before the end of the ledger is not there.
    #[error("record {seq} is missing: the ledger goes on to {last}")]
    Missing {
        /// The record.
        seq: Seq,
        /// The last record that is known to have been acknowledged.
        last: Seq,
    },
    /// Acknowledged records have disappeared from the log.
    #[error(
        "the ledger lost acknowledged records: the log ends at record {last}, {mark} were acknowledged; \
         restore {} from a copy", dir.display()
    )]
    Lost {
        /// The folder.
        dir: PathBuf,
        /// The acknowledged end.
        mark: Seq,
        /// The end that the log has.
        last: Seq,
    },
    /// The record at the mark is not the one that was acknowledged.
    #[error(
        "record {seq} is not the one that was acknowledged: its hash is {found}, the mark says {expected}"
    )]
    Diverged {
        /// The record.
        seq: Seq,
        /// The hash in the log.
        found: Digest,
        /// The hash in the mark.
        expected: Digest,
    },
    /// Neither slot of the high-water mark is intact.
    #[error("the high-water mark {} is damaged: {why}", path.display())]
    MarkDamaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The log has records, but the mark that vouches for them is gone.
    #[error("the high-water mark {} is missing, but the log has {records} records", path.display())]
    MarkMissing {
        /// The file.
        path: PathBuf,
        /// How many records the log has.
        records: u64,
    },
    /// A previous write failed. What had been acknowledged is safe; nothing more is accepted until the ledger is reopened.
    #[error("the ledger stopped accepting after a failed write ({reason}); restart to recover")]
    Poisoned {
        /// The first failure.
        reason: Arc<str>,
    },
    /// No space. Nothing of this append was kept; reading goes on, and appending works again once there is space.
    #[error("the disk, or the ledger's size limit, is full")]
    Full,
    /// Too many appends are waiting for the disk.
    #[error("{waiting} appends are waiting for the disk already")]
    Busy {
        /// How many.
        waiting: usize,
    },
    /// Entries that belong together are too much for one write.
    #[error("{entries} entries that belong together have {len} bytes; allowed are {most}")]
    Together {
        /// How many entries.
        entries: usize,
        /// Their bytes.
        len: usize,
        /// The most allowed.
        most: usize,
    },
    /// An entry breaks a limit.
    #[error(
        "an entry of kind {kind:?} has a {field} of {len} bytes; allowed are {least} to {most}"
    )]
    Entry {
        /// The entry's kind.
        kind: String,
        /// The field.
        field: &'static str,
        /// Its length.
        len: usize,
        /// The least allowed.
        least: usize,
        /// The most allowed.
        most: usize,
    },
    /// There is no blob with this digest.
    #[error("there is no blob {digest}")]
    NoBlob {
        /// The digest asked for.
        digest: Digest,
    },
    /// A blob's bytes do not have the digest that names it.
    #[error("blob {digest} is damaged: its bytes have the digest {found}")]
    BlobDamaged {
        /// Its name.
        digest: Digest,
        /// The digest of its bytes.
        found: Digest,
    },
    /// A version names a parent that is not before it in the ledger.
    #[error("version {version} names the parent {parent}, which is not before it")]
    NoParent {
        /// The version.
        version: u64,
        /// The content hash of the parent that it names.
        parent: Digest,
    },
    /// A version's record cannot be read.
    #[error("record {seq} is not a version that this program can read")]
    Version {
        /// The record.
        seq: Seq,
        /// Why.
        #[source]
        source: Arc<serde_json::Error>,
    },
    /// A version's content does not have the hash stored with it.
    #[error(
        "version {version} of {adapter:?} does not have the content that its hash names: {found}, expected {expected}"
    )]
    VersionHash {
        /// The adapter.
        adapter: String,
        /// The version.
        version: u64,
        /// The hash of its content.
        found: Digest,
        /// The hash stored with it.
        expected: Digest,
    },
    /// A version holds a number that no file can hold.
    #[error("version {version} of {adapter:?} has a metric {name:?} that is not a finite number")]
    VersionMetric {
        /// The adapter.
        adapter: String,
        /// The version.
        version: u64,
        /// The metric.
        name: String,
    },
}

impl Error {
    /// True when only this append is refused, and the ledger is as it was.
    pub(crate) fn is_refusal(&self) -> bool {
        self.is_retryable()
            || matches!(
                self,
                Self::Erased { .. } | Self::KeysDamaged { slot: Some(_), .. }
            )
    }

    /// True when a file operation failed because there is no space, or none that we may use.
    pub(crate) fn is_no_space(&self) -> bool {
        matches!(self, Self::Full)
            || matches!(self, Self::File { source, .. } if matches!(
                source.kind(),
                io::ErrorKind::StorageFull
                    | io::ErrorKind::QuotaExceeded
                    | io::ErrorKind::FileTooLarge
            ))
    }

    /// True when the same call can work later without anybody's help with the ledger itself.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Full | Self::Busy { .. })
    }

    /// True when what is on disk is not what was written.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. }
            | Self::Broken { .. }
            | Self::KeysDamaged { .. }
            | Self::Sealed { .. }
            | Self::Missing { .. }
            | Self::Lost { .. }
            | Self::Diverged { .. }
            | Self::MarkDamaged { .. }
            | Self::MarkMissing { .. }
            | Self::BlobDamaged { .. }
            | Self::VersionHash { .. } => true,
            Self::Database { source, .. } => matches!(
                source.sqlite_error_code(),
                Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase)
            ),
            _ => false,
        }
    }

    /// True when the ledger accepts nothing more until it is reopened.
    pub fn is_poisoned(&self) -> bool {
        matches!(self, Self::Poisoned { .. })
    }

    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            action,
            path,
            source: Arc::new(source),
        }
    }

    pub(crate) fn database(action: &'static str) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| Self::Database {
            action,
            source: Arc::new(source),
        }
    }

    /// The error and its causes in one line.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}
