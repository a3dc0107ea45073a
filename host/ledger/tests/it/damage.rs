//! Files that are not what was written: found, located, refused; and repaired into another folder.

use std::{
    fs,
    path::{Path, PathBuf},
};

use ledger::{Digest, Entry, Error, Ledger, Options, Record, RepairReport, Seq, repair, verify};
use tempfile::{TempDir, tempdir};

const SEGMENT_HEADER: usize = 512;
const GROUP_HEADER: usize = 32;
const RECORD_FIXED: usize = 72;

fn small() -> Options {
    Options {
        segment_bytes: 4096,
        ..Options::default()
    }
}

fn turn(i: usize) -> Entry {
    Entry::new(
        "turn",
        format!("t{i}"),
        format!("body of t{i}.").into_bytes(),
    )
}

fn fill(dir: &TempDir, count: usize, options: Options) {
    let ledger = Ledger::open(dir.path(), options).unwrap();
    for i in 0..count {
        ledger.append(turn(i)).wait().unwrap();
    }
}

fn refused(dir: &Path, options: Options) -> Error {
    Ledger::open(dir, options).unwrap_err()
}

fn all(dir: &Path) -> Vec<Record> {
    let ledger = Ledger::open(dir, Options::default()).unwrap();
    ledger.scan(Seq::FIRST).collect::<Result<_, _>>().unwrap()
}

fn places(dir: &Path) -> Vec<String> {
    let report = verify(dir).unwrap();
    assert_eq!(report.damaged as usize, report.damage.len());
    report.damage.into_iter().map(|d| d.place).collect()
}

/// A segment's bytes and where in them a body is, by its text.
struct Found {
    path: PathBuf,
    bytes: Vec<u8>,
    body: usize,
}

fn find(dir: &Path, text: &str) -> Found {
    let mut paths: Vec<_> = fs::read_dir(dir.join("log"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "seg"))
        .collect();
    paths.sort();
    for path in paths {
        let bytes = fs::read(&path).unwrap();
        let found = bytes.windows(text.len()).position(|w| w == text.as_bytes());
        if let Some(body) = found {
            return Found { path, bytes, body };
        }
    }
    panic!("{text:?} is in no segment");
}

impl Found {
    /// The start of the record of kind `turn` and the subject `t<i>` whose body this is.
    fn record(&self, subject: &str) -> usize {
        self.body - "turn".len() - subject.len() - RECORD_FIXED
    }

    fn write(&self) {
        fs::write(&self.path, &self.bytes).unwrap();
    }

    fn salt(&self) -> u32 {
        u32::from_le_bytes(self.bytes[64..68].try_into().unwrap())
    }

    fn crc(&self, from: usize, to: usize) -> [u8; 4] {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.salt());
        hasher.update(&self.bytes[from..to]);
        hasher.finalize().to_le_bytes()
    }

    /// Makes the checksums of a record and its group, in which it is alone, agree with what they hold now.
    fn forge(&mut self, record: usize, body: usize, len: usize) {
        let crc = self.crc(record + 4, body);
        self.bytes[record..record + 4].copy_from_slice(&crc);
        let group = record - GROUP_HEADER;
        let crc = self.crc(record, body + len);
        self.bytes[group + 20..group + 24].copy_from_slice(&crc);
        let crc = self.crc(group, group + 28);
        self.bytes[group + 28..group + 32].copy_from_slice(&crc);
    }
}

fn flip(dir: &Path, text: &str) {
    let mut found = find(dir, text);
    found.bytes[found.body + 3] ^= 1;
    found.write();
}

#[test]
fn a_flipped_bit_in_an_old_body_is_found_and_located() {
    let dir = tempdir().unwrap();
    fill(&dir, 200, small());
    flip(dir.path(), "body of t41.");
    assert_eq!(places(dir.path()), ["record 42"]);
    // It is in a segment that opening does not walk, so the ledger opens; but whoever reads it is told.
    let ledger = Ledger::open(dir.path(), small()).unwrap();
    let read: Vec<_> = ledger.scan(Seq::FIRST).collect();
    let error = read.last().unwrap().as_ref().unwrap_err();
    assert!(
        matches!(error, Error::Damaged { seq, offset, .. } if seq.get() == 42 && *offset > 0),
        "{error}"
    );
    assert!(error.is_damage());
    assert!(ledger.get(Seq::new(42)).unwrap_err().is_damage());
    // The others can be read.
    assert!(ledger.get(Seq::new(41)).unwrap().is_some());
    assert!(ledger.get(Seq::new(43)).unwrap().is_some());
}

#[test]
fn a_flipped_bit_near_the_end_is_refused_not_skipped() {
    let dir = tempdir().unwrap();
    fill(&dir, 40, Options::default());
    flip(dir.path(), "body of t31.");
    assert_eq!(places(dir.path()), ["record 32"]);
    let error = refused(dir.path(), Options::default());
    assert!(
        matches!(error, Error::Damaged { seq, .. } if seq.get() == 32),
        "{error}"
    );
}

#[test]
fn a_flipped_bit_in_the_last_acknowledged_record_is_refused() {
    let dir = tempdir().unwrap();
    fill(&dir, 40, Options::default());
    flip(dir.path(), "body of t39.");
    let error = refused(dir.path(), Options::default());
    assert!(
        matches!(error, Error::Damaged { seq, .. } if seq.get() == 40),
        "{error}"
    );
}

#[test]
fn no_flipped_byte_of_a_log_goes_unnoticed() {
    let dir = tempdir().unwrap();
    fill(&dir, 6, Options::default());
    let Found { path, bytes, .. } = find(dir.path(), "body of t5.");
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    // The header's own bytes; what follows them up to the first group is never read.
    for at in (0..84).chain(SEGMENT_HEADER..=end) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        fs::write(&path, damaged).unwrap();
        assert!(
            refused(dir.path(), Options::default()).is_damage(),
            "byte {at}"
        );
        let report = verify(dir.path()).unwrap();
        // A group's header only vouches for what the records vouch for themselves.
        let vouched = report.records == 6 && report.hash.is_some();
        assert!(!report.is_sound() || vouched, "byte {at}: {report:?}");
    }
    fs::write(&path, bytes).unwrap();
    assert_eq!(all(dir.path()).len(), 6);
}

#[test]
fn a_record_rewritten_together_with_its_hash_breaks_the_chain_after_it() {
    let dir = tempdir().unwrap();
    fill(&dir, 10, Options::default());
    let mut found = find(dir.path(), "body of t3.");
    let record = found.record("t3");
    found.bytes[record + 40..record + 72].fill(7);
    found.forge(record, found.body, "body of t3.".len());
    found.write();
    assert_eq!(places(dir.path()), ["record 4", "record 5"]);
    let error = refused(dir.path(), Options::default());
    assert!(matches!(error, Error::Damaged { seq, .. } if seq.get() == 4));
}

#[test]
fn a_missing_record_is_refused_and_named() {
    let dir = tempdir().unwrap();
    fill(&dir, 10, Options::default());
    let mut found = find(dir.path(), "body of t3.");
    let group = found.record("t3") - GROUP_HEADER;
    let end = found.body + "body of t3.".len();
    found.bytes[group..end].fill(0);
    found.write();
    let error = refused(dir.path(), Options::default());
    assert!(
        error.is_damage() && error.to_string().contains("record 4"),
        "{error}"
    );
    assert!(places(dir.path()).contains(&"record 4".to_owned()));
}

#[test]
fn a_log_that_lost_its_acknowledged_tail_is_refused() {
    let dir = tempdir().unwrap();
    fill(&dir, 10, Options::default());
    let mut found = find(dir.path(), "body of t7.");
    let group = found.record("t7") - GROUP_HEADER;
    found.bytes[group..].fill(0);
    found.write();
    let error = refused(dir.path(), Options::default());
    assert!(
        matches!(error, Error::Lost { mark, last, .. } if (mark.get(), last.get()) == (10, 7)),
        "{error}"
    );
    assert_eq!(places(dir.path()), ["mark"]);
}

#[test]
fn a_log_that_lost_a_segment_is_refused_whichever_it_is() {
    let dir = tempdir().unwrap();
    fill(&dir, 100, small());
    let log = dir.path().join("log");
    let last = (1..)
        .find(|n| !log.join(format!("{:08}.seg", n + 1)).exists())
        .unwrap();
    assert!(last > 2);
    for number in 1..=last {
        let (path, aside) = (log.join(format!("{number:08}.seg")), log.join("aside"));
        fs::rename(&path, &aside).unwrap();
        let error = refused(dir.path(), small());
        assert!(error.is_damage(), "segment {number}: {error}");
        assert!(!verify(dir.path()).unwrap().is_sound(), "segment {number}");
        fs::rename(&aside, &path).unwrap();
    }
    Ledger::open(dir.path(), small()).unwrap();
}

#[test]
fn a_log_that_disappeared_is_refused_and_not_created_anew() {
    let dir = tempdir().unwrap();
    fill(&dir, 3, Options::default());
    fs::remove_dir_all(dir.path().join("log")).unwrap();
    let error = refused(dir.path(), Options::default());
    assert!(matches!(error, Error::Lost { .. }), "{error}");
    assert!(!dir.path().join("log").exists());
}

#[test]
fn a_ledger_without_its_mark_or_with_a_damaged_one_is_refused() {
    let dir = tempdir().unwrap();
    fill(&dir, 3, Options::default());
    let mark = dir.path().join("mark");
    fs::write(&mark, b"x").unwrap();
    let error = refused(dir.path(), Options::default());
    assert!(matches!(error, Error::MarkDamaged { .. }), "{error}");
    fs::remove_file(&mark).unwrap();
    let error = refused(dir.path(), Options::default());
    assert!(
        matches!(error, Error::MarkMissing { records: 3, .. }),
        "{error}"
    );
    assert!(error.is_damage());
}

#[test]
fn a_ledger_replaced_by_another_of_the_same_length_is_refused() {
    let (dir, other) = (tempdir().unwrap(), tempdir().unwrap());
    fill(&dir, 5, Options::default());
    let ledger = Ledger::open(other.path(), Options::default()).unwrap();
    for i in 10..15 {
        ledger.append(turn(i)).wait().unwrap();
    }
    drop(ledger);
    let name = "log/00000001.seg";
    fs::copy(other.path().join(name), dir.path().join(name)).unwrap();
    let error = refused(dir.path(), Options::default());
    assert!(matches!(error, Error::Diverged { .. }), "{error}");
}

#[test]
fn a_segment_from_the_future_is_refused() {
    let dir = tempdir().unwrap();
    fill(&dir, 1, Options::default());
    let mut found = find(dir.path(), "body of t0.");
    found.bytes[8] = 9;
    let crc = crc32fast::hash(&found.bytes[..80]);
    found.bytes[80..84].copy_from_slice(&crc.to_le_bytes());
    found.write();
    let error = refused(dir.path(), Options::default());
    assert!(matches!(error, Error::Format { found: 9, .. }), "{error}");
}

#[test]
fn an_index_is_made_again_when_it_is_missing_damaged_or_of_another_segment() {
    let dir = tempdir().unwrap();
    fill(&dir, 200, small());
    let log = dir.path().join("log");
    let (first, second) = (log.join("00000001.idx"), log.join("00000002.idx"));
    let before = all(dir.path());
    let good = fs::read(&first).unwrap();
    let wrong = fs::read(&second).unwrap();
    for bytes in [
        None,
        Some(vec![]),
        Some(good[..good.len() / 2].to_vec()),
        Some(wrong),
    ] {
        match bytes {
            None => fs::remove_file(&first).unwrap(),
            Some(bytes) => fs::write(&first, bytes).unwrap(),
        }
        assert_eq!(all(dir.path()), before);
        let ledger = Ledger::open(dir.path(), small()).unwrap();
        assert_eq!(ledger.by_subject("t7").count(), 1);
        drop(ledger);
    }
    let damaged: Vec<u8> = good.iter().map(|byte| byte ^ 1).collect();
    fs::write(&first, damaged).unwrap();
    assert_eq!(all(dir.path()), before);
}

#[test]
fn without_an_index_an_old_segment_is_walked_and_its_damage_refused() {
    let dir = tempdir().unwrap();
    fill(&dir, 200, small());
    flip(dir.path(), "body of t3.");
    fs::remove_file(dir.path().join("log/00000001.idx")).unwrap();
    let error = refused(dir.path(), small());
    assert!(
        matches!(error, Error::Damaged { seq, .. } if seq.get() == 4),
        "{error}"
    );
}

#[test]
fn a_repair_loses_only_what_is_damaged_and_says_what() {
    let (dir, other) = (tempdir().unwrap(), tempdir().unwrap());
    let to = other.path().join("repaired");
    let ledger = Ledger::open(dir.path(), small()).unwrap();
    let kept = ledger.put_blob(b"kept").unwrap();
    let lost = ledger.put_blob(b"lost").unwrap();
    for i in 0..60 {
        let entry = turn(i).with_key(format!("k{i}"));
        let entry = if i % 5 == 0 { entry.sealed() } else { entry };
        ledger.append(entry).wait().unwrap();
    }
    ledger.destroy_keys(&["t5".into()]).unwrap();
    drop(ledger);
    let before = all(dir.path());
    // A body, a head, and a whole sector.
    flip(dir.path(), "body of t3.");
    let mut found = find(dir.path(), "body of t31.");
    let record = found.body - "turnt31k31".len() - RECORD_FIXED;
    found.bytes[record + 9] ^= 1;
    found.write();
    let mut found = find(dir.path(), "body of t44.");
    found.bytes[found.body..found.body + 100].fill(0xA5);
    found.write();
    let name = lost.to_string();
    let path = dir.path().join("blobs").join(&name[..2]).join(&name[2..]);
    fs::write(path, b"?").unwrap();

    let report: RepairReport = repair(dir.path(), &to).unwrap();
    assert_eq!(report.lost_blobs, [lost]);
    assert_eq!(report.blobs, 1);
    let seqs: Vec<_> = report.lost.iter().map(|l| l.seq.get()).collect();
    // A hundred bytes are one body, a group header, and most of the head of the next record.
    assert_eq!(seqs, [4, 32, 45, 46], "{report:?}");
    assert_eq!(report.records + report.lost_records, 60);
    assert_eq!(report.lost_records, 4, "{report:?}");
    assert!(verify(&to).unwrap().is_sound());
    let after = all(&to);
    assert_eq!(after.len() as u64, report.records);
    let content = |r: &Record| {
        let Record {
            at_ms,
            kind,
            subject,
            key,
            body,
            erased,
            ..
        } = r.clone();
        (at_ms, kind, subject, key, body, erased)
    };
    let expected: Vec<_> = before
        .iter()
        .filter(|r| after.iter().any(|a| a.subject == r.subject))
        .map(content)
        .collect();
    assert_eq!(after.iter().map(content).collect::<Vec<_>>(), expected);
    assert!(after.iter().any(|r| r.subject == "t5" && r.erased));
    assert!(
        after
            .iter()
            .any(|r| r.subject == "t10" && r.body == b"body of t10.")
    );
    let ledger = Ledger::open(&to, Options::default()).unwrap();
    assert_eq!(ledger.get_blob(&kept).unwrap(), b"kept");
    assert!(ledger.append(turn(99)).wait().unwrap().fresh);
    // Not twice into the same folder, and not from one that is in use.
    drop(ledger);
    assert!(matches!(
        repair(dir.path(), &to),
        Err(Error::NotEmpty { .. })
    ));
    let _ledger = Ledger::open(&to, Options::default()).unwrap();
    assert!(matches!(
        repair(&to, &other.path().join("again")),
        Err(Error::Locked { .. })
    ));
}

#[test]
fn a_repair_of_a_sound_ledger_loses_nothing_and_keeps_every_hash() {
    let (dir, other) = (tempdir().unwrap(), tempdir().unwrap());
    fill(&dir, 150, small());
    let to = other.path().join("copy");
    let report = repair(dir.path(), &to).unwrap();
    assert_eq!((report.records, report.lost.len()), (150, 0));
    assert_eq!(all(&to), all(dir.path()));
}

#[test]
fn the_lost_tail_and_a_lost_segment_are_in_a_repairs_report() {
    let (dir, other) = (tempdir().unwrap(), tempdir().unwrap());
    fill(&dir, 100, small());
    fs::remove_file(dir.path().join("log/00000002.seg")).unwrap();
    let mut found = find(dir.path(), "body of t98.");
    let group = found.record("t98") - GROUP_HEADER;
    found.bytes[group..].fill(0);
    found.write();
    let report = repair(dir.path(), &other.path().join("to")).unwrap();
    assert_eq!(report.records + report.lost_records, 100, "{report:?}");
    assert_eq!(report.lost.last().unwrap().seq, Seq::new(99));
    let text = serde_json::to_string(&report).unwrap();
    assert!(text.contains("\"lost_records\""), "{text}");
    let json = serde_json::to_value(verify(dir.path()).unwrap()).unwrap();
    assert!(json["damage"][0]["error"].is_string(), "{json}");
}

#[test]
fn a_body_that_looks_like_a_record_does_not_mislead_a_repair() {
    let (dir, other) = (tempdir().unwrap(), tempdir().unwrap());
    fill(&dir, 3, Options::default());
    // A real record of another ledger, as somebody's text, between records that are damaged.
    let found = find(dir.path(), "body of t2.");
    let group = found.record("t2") - GROUP_HEADER;
    let foreign = found.bytes[group..found.body + 11].to_vec();
    let victim = tempdir().unwrap();
    let ledger = Ledger::open(victim.path(), Options::default()).unwrap();
    ledger.append(turn(0)).wait().unwrap();
    ledger
        .append(Entry::new("turn", "evil", foreign))
        .wait()
        .unwrap();
    ledger.append(turn(5)).wait().unwrap();
    drop(ledger);
    let mut found = find(victim.path(), "evil");
    found.bytes[found.body] ^= 1;
    found.write();
    let to = other.path().join("to");
    let report = repair(victim.path(), &to).unwrap();
    assert_eq!((report.records, report.lost_records), (2, 1), "{report:?}");
    let subjects: Vec<_> = all(&to).into_iter().map(|r| r.subject).collect();
    assert_eq!(subjects, ["t0", "t5"]);
    assert_ne!(report.hash, None::<Digest>);
}
