//! How much memory a host will need, before its weights are loaded; with a budget, what it does with less.
//!
//! The plan is arithmetic on a model's shape and the configuration ([`parts`]); it is an upper bound of what the process holds, file
//! pages included. Over `memory`, what only saves time shrinks (kept prefixes, versions and sequences that run at once, activations that training
//! keeps), then what operators can have computed; what is still over is refused with the table and what to change. No result depends on it. Knows nothing of plugins in
//! processes of their own, jails and browsers: those are outside this process and have limits of their own. Start at [`plan`].

use std::path::Path;

use anyhow::Context as _;
use comfy_table::{CellAlignment, Table, presets};
use policy::{Checkpoint, ModelConfig};

use crate::config::{Config, Dtype};

mod machine;
mod parts;
mod size;
#[cfg(test)]
mod tests;

pub use parts::{Part, parts};
pub use size::Size;

/// What a plan is made of beside the configuration.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The model's shape.
    pub model: ModelConfig,
    /// Bytes of the model's files, mapped while they are read.
    pub files: u64,
    /// Bytes of the files of adapters that are served and not trained.
    pub adapters: u64,
}

impl Facts {
    fn of(config: &Config, checkpoint: &Checkpoint) -> anyhow::Result<Self> {
        let folders = config.adapters.values();
        let weights = folders.map(|folder| bytes_of(&folder.join(policy::peft::WEIGHTS)));
        Ok(Self {
            model: checkpoint.config.clone(),
            files: bytes_of(checkpoint.path())?,
            adapters: weights.sum::<anyhow::Result<u64>>()?,
        })
    }
}

/// Of a file, or of the files in a folder.
fn bytes_of(path: &Path) -> anyhow::Result<u64> {
    let size = || -> std::io::Result<u64> {
        if !std::fs::metadata(path)?.is_dir() {
            return Ok(std::fs::metadata(path)?.len());
        }
        let files = std::fs::read_dir(path)?;
        files.map(|file| Ok(file?.metadata()?.len())).sum()
    };
    size().with_context(|| format!("failed to measure {}", path.display()))
}

/// What a host will hold at most.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Everything, the largest parts of training and serving among it.
    pub parts: Vec<Part>,
    /// While the weights are read, before there is anything else.
    pub loading: u64,
    /// What was made smaller to fit, in words.
    pub shrunk: Vec<String>,
}

impl Plan {
    fn of(config: &Config, facts: &Facts) -> Self {
        let (parts, loading) = parts(config, facts);
        Self {
            parts,
            loading,
            shrunk: Vec::new(),
        }
    }

    /// Most bytes at any time.
    pub fn total(&self) -> u64 {
        let sum = self.parts.iter().map(|part| part.bytes).sum();
        self.loading.max(sum)
    }

    fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        for part in self.parts.iter().filter(|part| part.bytes > 0) {
            table.add_row([part.name.to_owned(), human(part.bytes)]);
        }
        table.add_row(["together".to_owned(), human(self.total())]);
        if let Some(column) = table.column_mut(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table.to_string()
    }
}

/// The plan of a host with this model. With a budget the configuration is changed until the plan fits.
///
/// # Errors
/// When it does not fit whatever is shrunk, with the parts and what to change; when a file of the model is gone.
pub fn plan(config: &mut Config, checkpoint: &Checkpoint) -> anyhow::Result<Plan> {
    let facts = Facts::of(config, checkpoint)?;
    let plan = fit(config, &facts)?;
    tell(config, &plan);
    Ok(plan)
}

fn tell(config: &Config, plan: &Plan) {
    tracing::info!(total = %human(plan.total()), parts = %format!("\n{}", plan.table()), "memory that will be needed at most");
    for said in &plan.shrunk {
        eprintln!("memory: {said}");
    }
    let Some((most, whose)) = machine::most() else {
        return;
    };
    let asked = config.memory.map(Size::bytes);
    if asked.is_none() && plan.total() > most {
        tracing::warn!(
            needed = %human(plan.total()),
            has = %human(most),
            "this host may come to need more memory than {whose}; `memory` sets a budget that is kept"
        );
    }
    if let Some(asked) = asked.filter(|asked| *asked > most) {
        tracing::warn!(budget = %human(asked), has = %human(most), "the memory budget is more than {whose}");
    }
}

/// Shrinks what may shrink until the plan fits the budget.
///
/// # Errors
/// As [`plan`].
pub fn fit(config: &mut Config, facts: &Facts) -> anyhow::Result<Plan> {
    let asked = config.clone();
    let Some(budget) = config.memory.map(Size::bytes) else {
        return Ok(Plan::of(config, facts));
    };
    let mut shrunk = Vec::new();
    for shrink in SHRINK {
        let over = Plan::of(config, facts).total().saturating_sub(budget);
        if over > 0 {
            shrunk.extend(shrink(config, facts, over));
        }
    }
    let plan = Plan {
        shrunk,
        ..Plan::of(config, facts)
    };
    if plan.total() <= budget {
        return Ok(plan);
    }
    anyhow::bail!("{}", refusal(budget, &plan, &asked, facts))
}

/// Makes something smaller; says what. `over`: bytes that are too many.
type Shrink = fn(&mut Config, &Facts, over: u64) -> Option<String>;

/// In this order: what is missed least first.
const SHRINK: [Shrink; 5] = [prefixes, versions, sequences, activations, operators];

/// While replies of a version run, those of the next begin, and the one after that is examined; who would begin with it waits for the first.
const LEAST_VERSIONS: usize = 3;

/// Kept prefixes only save computing them again.
fn prefixes(config: &mut Config, _: &Facts, over: u64) -> Option<String> {
    let before = config.engine.prefix_bytes;
    config.engine.prefix_bytes = before.saturating_sub(over);
    said("kept prefixes", before, config.engine.prefix_bytes)
}

/// Fewer versions that running replies hold: whoever would hold one more waits.
fn versions(config: &mut Config, facts: &Facts, over: u64) -> Option<String> {
    let asked = Plan::of(config, facts).total().saturating_sub(over);
    let before = config.engine.max_versions;
    while config.engine.max_versions > LEAST_VERSIONS && Plan::of(config, facts).total() > asked {
        config.engine.max_versions -= 1;
    }
    let after = config.engine.max_versions;
    let said =
        format!("versions of running replies: {after} instead of {before}, to fit the budget");
    (after < before).then_some(said)
}

/// Fewer sequences at once, down to one of the whole context.
fn sequences(config: &mut Config, facts: &Facts, over: u64) -> Option<String> {
    let (before, one) = parts::running(config, &facts.model);
    let after = before.saturating_sub(over).max(one).min(before);
    config.engine.kv_bytes = after.min(config.engine.kv_bytes);
    said("keys and values of running sequences", before, after)
}

/// What training does not keep it computes again.
fn activations(config: &mut Config, _: &Facts, over: u64) -> Option<String> {
    let before = config.activation_bytes;
    config.activation_bytes = before.saturating_sub(over);
    let what = "activations that training keeps";
    said(what, before, config.activation_bytes)
}

/// A copy of the folder answers operators, too.
fn operators(config: &mut Config, _: &Facts, _: u64) -> Option<String> {
    let before = std::mem::replace(&mut config.operators_compute, false);
    let said = "nothing is computed for operators (blame, bisect, replay, diff, export), to fit the budget; a copy of the folder answers them";
    before.then(|| said.to_owned())
}

fn said(what: &str, before: u64, after: u64) -> Option<String> {
    let [from, to] = [human(before), human(after)];
    (after < before).then(|| format!("{what}: {to} instead of {from}, to fit the budget"))
}

/// The table, and every single change that would do.
fn refusal(budget: u64, plan: &Plan, asked: &Config, facts: &Facts) -> String {
    let least = human(plan.total());
    let mut lines = vec![
        format!(
            "the memory budget is {}, and this host needs {least} at least; nothing was loaded",
            human(budget)
        ),
        plan.table(),
        "what to change:".to_owned(),
        format!(
            "  memory = \"{}MiB\" or more",
            plan.total().div_ceil(1 << 20)
        ),
    ];
    let fits = |change: &dyn Fn(&mut Config)| {
        let mut config = asked.clone();
        change(&mut config);
        fit_least(&mut config, facts) <= budget
    };
    let mut context = asked.engine.context.min(facts.model.context) / 2;
    while context >= LEAST_CONTEXT && !fits(&|config| config.engine.context = context) {
        context /= 2;
    }
    if context >= LEAST_CONTEXT {
        lines.push(format!("  [engine] context = {context}"));
    }
    if asked.model.dtype != Dtype::Q8 && fits(&|config| config.model.dtype = Dtype::Q8) {
        lines.push("  [model] dtype = \"q8\"".to_owned());
    }
    let rank = (1..asked.train.rank).rev();
    let rank = rank.filter(|rank| rank.is_power_of_two());
    if let Some(rank) = rank
        .into_iter()
        .find(|rank| fits(&|config| config.train.rank = *rank))
    {
        lines.push(format!("  [train] rank = {rank}"));
    }
    if lines.len() == 4 {
        lines.push("  or several at once: a smaller [engine] context, [model] dtype = \"q8\", a smaller [train] rank, a smaller model".to_owned());
    }
    lines.join("\n")
}

/// A conversation of less than this is none.
const LEAST_CONTEXT: usize = 256;

/// What is needed when everything that may shrink has.
fn fit_least(config: &mut Config, facts: &Facts) -> u64 {
    for shrink in SHRINK {
        shrink(config, facts, u64::MAX);
    }
    Plan::of(config, facts).total()
}

/// For people: three digits, powers of 1024.
fn human(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib < 1000.0 {
        format!("{mib:.0} MiB")
    } else {
        format!("{:.2} GiB", mib / 1024.0)
    }
}
