//! Writes the golden ledger of the current format into a folder: run once for each format that is released, commit the
//! result under `tests/golden/v<format>`, and never again.
#![expect(clippy::print_stdout, reason = "a command")]

use std::{collections::BTreeMap, env, sync::Arc};

use ledger::{Entry, Error, Ledger, Options, Seq, lineage::VersionRecord};

fn main() -> Result<(), Error> {
    let dir = env::args().nth(1).unwrap_or_else(|| "golden".to_owned());
    let clock = Arc::new(|| 1_764_000_000_000);
    let ledger = Ledger::open(
        dir,
        Options {
            clock,
            // Small, so that there are several segments.
            segment_bytes: 2_048,
            ..Options::default()
        },
    )?;
    let mut parent = None;
    ledger
        .append(Entry::new("turn", "t-1", b"first".to_vec()))
        .wait()?;
    for number in 1..=2 {
        let turn = Entry::new(
            "vote",
            "t-1",
            vec![b'0' + u8::try_from(number).unwrap_or(0)],
        );
        ledger
            .append(turn.with_key(format!("vote/t-1/{number}")))
            .wait()?;
        let version = VersionRecord {
            version: number,
            adapter: "main".to_owned(),
            parent,
            samples: vec![format!("sample-t-{number}")],
            seeds: BTreeMap::from([("run".to_owned(), 7)]),
            settings: serde_json::json!({"lr": 1e-4, "betas": [0.9, 0.98]}),
            metrics: BTreeMap::from([("loss".to_owned(), 1.0 / 3.0)]),
            adapter_blob: Some(ledger.put_blob(format!("weights {number}").as_bytes())?),
            optimizer_blob: None,
            ..VersionRecord::default()
        };
        parent = Some(version.hash());
        ledger.append(version.to_entry()?).wait()?;
    }
    ledger
        .append(Entry::new("note", "", "żółć \u{1f44d}".as_bytes().to_vec()))
        .wait()?;
    for (user, text) in [("ann", "sealed and erased"), ("bob", "sealed and kept")] {
        let turn = Entry::new("turn", user, text.as_bytes().to_vec());
        ledger.append(turn.sealed()).wait()?;
    }
    ledger.destroy_keys(&["ann".to_owned()])?;
    for record in ledger.scan(Seq::FIRST) {
        let r = record?;
        let body = String::from_utf8_lossy(&r.body);
        let key = r.key.as_deref().unwrap_or("-");
        println!(
            "{} {} {} {:?} {key} {body} {} {}",
            r.seq, r.at_ms, r.kind, r.subject, r.erased, r.hash
        );
    }
    Ok(())
}
