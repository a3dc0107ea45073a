//! What the crash tests do to a ledger, what they remember of it, and what must hold afterwards.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use ledger::{Digest, Entry, Error, Ledger, Options, Record, Seq, disk::Simulated, verify_on};

pub(crate) const DIR: &str = "/data/ledger";
/// Small, so that a short scenario rolls several times.
const SEGMENT: u64 = 4096;

pub(crate) fn open(disk: &Simulated) -> Result<Ledger, Error> {
    let options = Options {
        clock: Arc::new(|| 7),
        segment_bytes: SEGMENT,
        disk: Arc::new(disk.clone()),
        ..Options::default()
    };
    Ledger::open(DIR, options)
}

/// One thing that a client does.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Appends that must be there together or not at all.
    Append(Vec<Entry>),
    Put(Vec<u8>),
    Remove(Vec<u8>),
    Destroy(Vec<String>),
    Reopen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Sent,
    Done,
}

/// What the client knows: what it sent, and what it was told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    groups: Vec<(Vec<Entry>, Option<Vec<Seq>>)>,
    blobs: BTreeMap<Vec<u8>, (bool, Fate)>,
    destroyed: BTreeMap<String, Fate>,
    pub(crate) errors: Vec<Error>,
}

/// A body that says whose it is, `len` bytes long at least.
pub(crate) fn entry(name: &str, len: usize) -> Entry {
    let mut body = format!("body of {name}").into_bytes();
    body.resize(body.len().max(len), b'.');
    Entry::new("turn", name, body)
}

pub(crate) fn steps() -> Vec<Step> {
    let one = |e: Entry| Step::Append(vec![e]);
    let sealed = |user: &str, id: &str| {
        let mut entry = entry(user, 0).sealed().with_key(id);
        entry.body = format!("secret {id}").into_bytes();
        entry
    };
    vec![
        one(entry("a", 0)),
        one(entry("b", 0).with_key("b")),
        one(entry("b", 0).with_key("b")),
        Step::Put(b"weights 1".to_vec()),
        one(sealed("ann", "s1")),
        Step::Append(vec![
            entry("g1", 600),
            sealed("bob", "s2"),
            entry("g3", 600),
        ]),
        one(entry("c", 1500)),
        one(entry("d", 1500)),
        Step::Put(vec![9; 1300]),
        Step::Destroy(vec!["ann".into()]),
        one(sealed("eve", "s3")),
        Step::Reopen,
        one(entry("e", 5000)),
        Step::Append(vec![entry("h1", 900), entry("h2", 900), entry("h3", 900)]),
        Step::Remove(b"weights 1".to_vec()),
        one(sealed("bob", "s4")),
        Step::Destroy(vec!["bob".into(), "eve".into()]),
        one(entry("last", 10).with_key("last")),
    ]
}

/// Does the steps until one fails in a way that ends a client: anything but a full disk.
pub(crate) fn run(disk: &Simulated, steps: &[Step]) -> Memory {
    let mut memory = Memory::default();
    let mut ledger = match open(disk) {
        Ok(ledger) => ledger,
        Err(error) => {
            memory.errors.push(error);
            return memory;
        }
    };
    for step in steps {
        if let Step::Reopen = step {
            drop(ledger);
            match open(disk) {
                Ok(again) => ledger = again,
                Err(error) => {
                    memory.errors.push(error);
                    return memory;
                }
            }
        } else if let Err(error) = memory.take(&ledger, step) {
            let goes_on = error.is_retryable() || matches!(error, Error::Erased { .. });
            memory.errors.push(error);
            if !goes_on {
                break;
            }
        }
    }
    memory
}

impl Memory {
    pub(crate) fn take(&mut self, ledger: &Ledger, step: &Step) -> Result<(), Error> {
        match step {
            Step::Append(entries) => {
                self.groups.push((entries.clone(), None));
                let receipts = match ledger.append_all(entries.clone()).wait() {
                    Ok(receipts) => receipts,
                    Err(error) => {
                        // A refusal is a promise, too: nothing of it was written.
                        if error.is_retryable() || matches!(error, Error::Erased { .. }) {
                            self.groups.pop();
                        }
                        return Err(error);
                    }
                };
                if let Some((_, seqs)) = self.groups.last_mut() {
                    *seqs = Some(receipts.iter().map(|r| r.seq).collect());
                }
            }
            Step::Put(bytes) => {
                self.blobs.insert(bytes.clone(), (true, Fate::Sent));
                ledger.put_blob(bytes)?;
                self.blobs.insert(bytes.clone(), (true, Fate::Done));
            }
            Step::Remove(bytes) => {
                self.blobs.insert(bytes.clone(), (false, Fate::Sent));
                ledger.remove_blob(&Digest::of(bytes))?;
                self.blobs.insert(bytes.clone(), (false, Fate::Done));
            }
            Step::Destroy(subjects) => {
                let sent: Vec<_> = subjects
                    .iter()
                    .filter(|s| self.destroyed.get(*s) != Some(&Fate::Done))
                    .cloned()
                    .collect();
                // Whoever has no key yet is not destroyed.
                let known: Vec<_> = sent
                    .into_iter()
                    .filter(|s| self.sealed_subjects().contains(s))
                    .collect();
                self.destroyed
                    .extend(known.iter().map(|s| (s.clone(), Fate::Sent)));
                ledger.destroy_keys(subjects)?;
                self.destroyed
                    .extend(known.into_iter().map(|s| (s, Fate::Done)));
            }
            Step::Reopen => {}
        }
        Ok(())
    }

    fn sealed_subjects(&self) -> Vec<String> {
        let acknowledged = self.groups.iter().filter(|(_, seqs)| seqs.is_some());
        let entries = acknowledged.flat_map(|(entries, _)| entries);
        entries
            .filter(|e| e.sealed)
            .map(|e| e.subject.clone())
            .collect()
    }

    /// Opens what is left of the disk and checks every promise; says how many records there were.
    pub(crate) fn check(&self, disk: &Simulated, context: &str) -> u64 {
        let ledger = open(disk).unwrap_or_else(|error| panic!("{context}: did not open: {error}"));
        let records: Vec<Record> = ledger
            .scan(Seq::FIRST)
            .collect::<Result<_, _>>()
            .unwrap_or_else(|error| panic!("{context}: {error}"));
        self.check_acknowledged(&records, context);
        self.check_phantoms(&records, context);
        self.check_blobs(&ledger, context);
        let before = records.len() as u64;
        let next = ledger.append(entry("afterwards", 20).with_key("afterwards"));
        let next = next
            .wait()
            .unwrap_or_else(|error| panic!("{context}: not appendable: {error}"));
        assert_eq!(
            (next.seq.get(), next.fresh),
            (before + 1, true),
            "{context}"
        );
        let late = ledger.append(entry("late", 0).sealed()).wait();
        late.unwrap_or_else(|error| panic!("{context}: not sealable: {error}"));
        drop(ledger);
        let report = verify_on(disk, Path::new(DIR)).unwrap();
        assert!(report.is_sound(), "{context}: {report:?}");
        assert_eq!(report.records, before + 2, "{context}");
        // What was read above, and what was appended, is there for good.
        let ledger = open(&disk.crash(0))
            .unwrap_or_else(|error| panic!("{context}: did not open again: {error}"));
        let again: Vec<Record> = ledger
            .scan(Seq::FIRST)
            .collect::<Result<_, _>>()
            .unwrap_or_else(|error| panic!("{context}: again: {error}"));
        assert_eq!(again.len() as u64, before + 2, "{context}");
        for (again, record) in again.iter().zip(&records) {
            assert!(again == record, "{context}: record {} changed", record.seq);
        }
        assert_eq!(again.last().unwrap().body, b"body of late", "{context}");
        before
    }

    fn check_acknowledged(&self, records: &[Record], context: &str) {
        for (entries, seqs) in &self.groups {
            let Some(seqs) = seqs else { continue };
            for (entry, seq) in entries.iter().zip(seqs) {
                let record = records
                    .get(usize::try_from(seq.get()).unwrap() - 1)
                    .unwrap_or_else(|| panic!("{context}: acknowledged record {seq} is lost"));
                self.check_record(entry, record, context);
            }
        }
    }

    fn check_record(&self, entry: &Entry, record: &Record, context: &str) {
        assert_eq!(
            (&record.kind, &record.subject, &record.key),
            (&entry.kind, &entry.subject, &entry.key),
            "{context}: record {}",
            record.seq
        );
        let destroyed = self.destroyed.get(&entry.subject).filter(|_| entry.sealed);
        match destroyed {
            Some(Fate::Done) => assert!(record.erased, "{context}: {} came back", record.seq),
            None => assert!(!record.erased, "{context}: {} was erased", record.seq),
            Some(Fate::Sent) => {}
        }
        if record.erased {
            assert!(record.body.is_empty(), "{context}");
        } else {
            assert_eq!(record.body, entry.body, "{context}: record {}", record.seq);
        }
    }

    /// Nothing that was never sent, nothing twice, and of what belongs together all or nothing.
    fn check_phantoms(&self, records: &[Record], context: &str) {
        let mut at = 0;
        let mut seen: Vec<&str> = Vec::new();
        for (entries, _) in &self.groups {
            let mut fresh: Vec<&Entry> = Vec::new();
            for entry in entries {
                let before = |key: &str| {
                    seen.contains(&key) || fresh.iter().any(|e| e.key.as_deref() == Some(key))
                };
                if !entry.key.as_deref().is_some_and(before) {
                    fresh.push(entry);
                }
            }
            let matches = |record: &Record, entry: &Entry| {
                record.subject == entry.subject && record.key == entry.key
            };
            let here = records
                .get(at)
                .is_some_and(|r| fresh.first().is_some_and(|e| matches(r, e)));
            if !here {
                continue;
            }
            for entry in fresh {
                let record = records
                    .get(at)
                    .unwrap_or_else(|| panic!("{context}: half of a group is there"));
                self.check_record(entry, record, context);
                seen.extend(entry.key.as_deref());
                at += 1;
            }
        }
        assert_eq!(at, records.len(), "{context}: a record that nobody sent");
    }

    fn check_blobs(&self, ledger: &Ledger, context: &str) {
        let listed = ledger.blobs().unwrap();
        for (bytes, (there, fate)) in &self.blobs {
            let digest = Digest::of(bytes);
            assert_eq!(
                listed.contains(&digest),
                ledger.has_blob(&digest),
                "{context}"
            );
            match ledger.get_blob(&digest) {
                Ok(found) => {
                    assert_eq!(&found, bytes, "{context}");
                    assert!(*there || *fate == Fate::Sent, "{context}: a blob came back");
                }
                Err(Error::NoBlob { .. }) => {
                    assert!(!*there || *fate == Fate::Sent, "{context}: a blob is lost");
                }
                Err(error) => panic!("{context}: {error}"),
            }
        }
        assert!(
            listed.len() <= self.blobs.len(),
            "{context}: a blob that nobody put"
        );
    }
}
