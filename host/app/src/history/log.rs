//! `log`: every version of an adapter with its names, what the gate found, and whether it answers.

use std::collections::{BTreeMap, HashMap};

use ledger::Seq;
use ledger::lineage::{self, Lineage, Origin, VersionRecord};
use loops::gate::Examination;
use loops::guard::Ended;
use loops::records::{self, GATE, GateRecord, TRIAL, TrialRecord};

use super::response::{Gate, Log, Row};
use super::workbench::Workbench;

/// Everything that rows are made from.
pub(crate) struct Rows {
    pub(crate) lineage: Lineage,
    adapter: String,
    live: Option<u64>,
    times: HashMap<u64, i64>,
    gates: HashMap<u64, Gate>,
    trials: HashMap<u64, Ended>,
}

impl Rows {
    pub(crate) fn read(bench: &Workbench) -> anyhow::Result<Self> {
        let lineage = bench.lineage()?;
        let ledger = bench.ledger()?;
        let adapter = bench.adapter_name().to_owned();
        let mut times = HashMap::new();
        for record in ledger.by_kind(lineage::KIND, Seq::FIRST) {
            let record = record?;
            let number = record.subject.rsplit_once(':');
            if let Some((name, number)) = number
                && name == adapter
                && let Ok(number) = number.parse()
            {
                times.entry(number).or_insert(record.at_ms);
            }
        }
        let mut gates = HashMap::new();
        for record in ledger.by_kind(GATE, Seq::FIRST) {
            let record = record?;
            // What the gate asked and was answered goes with what was forgotten.
            if record.erased {
                continue;
            }
            let seen: GateRecord = records::decode(&record)?;
            if seen.adapter == adapter {
                gates.insert(seen.version.get(), gate(seen.passed, seen.examination));
            }
        }
        let mut trials = HashMap::new();
        for record in ledger.by_kind(TRIAL, Seq::FIRST) {
            let seen: TrialRecord = records::decode(&record?)?;
            if seen.adapter == adapter {
                trials.insert(seen.ended.version.get(), seen.ended);
            }
        }
        Ok(Self {
            live: lineage.live(&adapter).map(|v| v.version),
            lineage,
            adapter,
            times,
            gates,
            trials,
        })
    }

    /// The parent of a version; none for the base model.
    pub(crate) fn parent(&self, record: &VersionRecord) -> Option<&VersionRecord> {
        record.parent.and_then(|hash| self.lineage.by_hash(&hash))
    }

    pub(crate) fn row(&self, bench: &Workbench, record: &VersionRecord) -> anyhow::Result<Row> {
        let number = record.version;
        let trial = self.lineage.heads().iter().rev();
        let mut trial = trial.filter(|head| head.adapter == self.adapter);
        // Only the last decision can be a trial that goes on.
        let trial = trial.next().filter(|head| head.version == number);
        let names = self.lineage.refs(&self.adapter);
        let heads = self.lineage.heads().iter();
        let mut heads = heads.filter(|head| head.adapter == self.adapter && head.version == number);
        let why = heads.next().map(|head| head.why.clone());
        Ok(Row {
            tried: self.trials.get(&number).cloned(),
            why: why.filter(|_| record.origin != Origin::Trained),
            hash: record.hash().to_string(),
            parent: self.parent(record).map(|parent| parent.version),
            live: self.live == Some(number),
            trial: trial.and_then(|head| head.share),
            names: names
                .filter(|name| name.version == Some(number))
                .cloned()
                .collect(),
            gate: self.gates.get(&number).cloned(),
            erased: !bench.is_whole(record)?,
            at_ms: self.times.get(&number).copied().unwrap_or_default(),
            record: record.clone(),
        })
    }
}

fn gate(passed: bool, examination: serde_json::Value) -> Gate {
    match serde_json::from_value::<Examination>(examination) {
        Ok(found) => Gate {
            passed,
            why: found.why(),
            metrics: found.metrics,
        },
        // Examinations of other programs: what counts is what it led to.
        Err(_) => Gate {
            passed,
            why: None,
            metrics: BTreeMap::new(),
        },
    }
}

pub(crate) fn log(bench: &Workbench, limit: Option<usize>) -> anyhow::Result<Log> {
    let rows = Rows::read(bench)?;
    let versions = rows.lineage.all().iter().rev();
    let versions = versions
        .filter(|v| v.adapter == rows.adapter)
        .take(limit.unwrap_or(usize::MAX))
        .map(|record| rows.row(bench, record))
        .collect::<anyhow::Result<_>>()?;
    let base_names = rows.lineage.refs(&rows.adapter);
    Ok(Log {
        versions,
        base_is_live: rows.live.is_none(),
        base_names: base_names
            .filter(|name| name.version == Some(0))
            .cloned()
            .collect(),
        adapter: rows.adapter,
    })
}
