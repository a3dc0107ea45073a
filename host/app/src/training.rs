//! What is trained: the learner, the shelf that its versions are served from, and the bench on which steps are computed again.
//!
//! Here the loops' seams meet `trainer` and `policy`; a host and the commands that work on a folder both build on it.

use std::sync::Arc;

use anyhow::Context as _;
use loops::Trained;
use loops::bench::{Bench, MakeBench};
use loops::records::RunRecord;
use policy::local::Local;
use policy::{Deployed, Slot, SlotShelf};
use rl::{AdapterName, candidate_of};
use trainer::LoraLearner;

use crate::config::Config;
use crate::host::Loaded;

/// The learner of a host and what belongs to it. `slot` is what is served, `candidate` where a proposal can be asked.
///
/// # Errors
/// Settings that are refused, or do not fit what is in the slot.
pub fn trained(
    config: &Config,
    loaded: &Loaded,
    slot: Arc<Slot>,
    candidate: Arc<Slot>,
) -> anyhow::Result<Trained> {
    let (model, settings) = (Arc::clone(&loaded.model), config.train.clone());
    let shelf = SlotShelf::new(
        Arc::clone(&slot),
        model.config().clone(),
        settings.rank,
        settings.alpha,
    );
    let learner = LoraLearner::new(model, slot, settings, config.loops.seed)
        .context("failed to set up the learner")?
        .with_workspace(loaded.workspace.clone())
        .with_candidate(candidate);
    Ok(Trained {
        learner: Box::new(learner),
        settings: config.train.to_json(),
        model: loaded.name.clone(),
        shelf: Arc::new(shelf),
        bench: whole(loaded, &config.loops.adapter),
        turn: Arc::clone(&loaded.aside),
        erased: Arc::new(|_| {}),
        forgotten: Arc::new(|_| {}),
    })
}

/// Makes learners of recorded runs, each with slots of its own: nobody is served by them.
pub fn bench(loaded: &Loaded, adapter: &AdapterName) -> MakeBench {
    let (loaded, adapter) = (loaded.clone(), adapter.clone());
    Arc::new(move |run| on_bench(&loaded, &adapter, run))
}

/// The same for steps that forgetting takes again: with samples of any length. What is to be forgotten is forgotten, also where it was trained
/// with more memory than is planned for now.
fn whole(loaded: &Loaded, adapter: &AdapterName) -> MakeBench {
    let workspace = loaded.workspace.clone().without_longest();
    let loaded = Loaded {
        workspace,
        ..loaded.clone()
    };
    bench(&loaded, adapter)
}

fn on_bench(loaded: &Loaded, adapter: &AdapterName, run: &RunRecord) -> rl::Result<Bench> {
    let refuse = |error: trainer::Error| error.at_seam("the bench");
    let config = trainer::Config::from_json(&run.learner).map_err(refuse)?;
    let slot = || Arc::new(Slot::new(Deployed::default()));
    let (live, candidate) = (slot(), slot());
    let model = Arc::clone(&loaded.model);
    let learner = LoraLearner::new(Arc::clone(&model), Arc::clone(&live), config, run.seed);
    let learner = learner
        .map_err(refuse)?
        .with_one_version()
        .with_workspace(loaded.workspace.clone())
        .with_candidate(Arc::clone(&candidate));
    let policy = Local::new(
        &loaded.name,
        model,
        Arc::clone(&loaded.tokenizer),
        Arc::clone(&loaded.template),
    );
    let policy = policy
        .with_adapter(adapter.clone(), live)
        .with_adapter(candidate_of(adapter), candidate);
    Ok(Bench {
        learner: Box::new(learner),
        policy: Arc::new(policy),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ledger::Seq;

    use super::*;

    #[test]
    fn what_is_forgotten_is_taken_again_whatever_its_length_and_nothing_else_is() {
        let mut config = Config::default();
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policy/fixtures/tiny-llama");
        config.model.name = tiny.to_string_lossy().into_owned();
        let mut loaded = Loaded::from_config(&config.model).unwrap();
        loaded.workspace = loaded.workspace.with_longest(3);
        let slot = || Arc::new(Slot::new(Deployed::default()));
        let trained = trained(&config, &loaded, slot(), slot()).unwrap();
        let run = RunRecord {
            adapter: config.loops.adapter.to_string(),
            model: loaded.name.clone(),
            seed: config.loops.seed,
            rules: config.loops.train.rules(),
            learner: config.train.to_json(),
            through: Seq::ZERO,
        };
        let long = rl::Sample {
            id: "long".into(),
            turn: "turn".into(),
            adapter: config.loops.adapter.clone(),
            version: rl::PolicyVersion::BASE,
            prompt: vec![1, 2, 3],
            response: vec![4, 5],
            behaviour: vec![-1.0; 2],
            advantage: vec![1.0; 2],
            weight: vec![1.0; 2],
            temperature: 1.0,
        };
        assert!(trained.learner.no_room_for(&long).is_some());
        let of_operators = bench(&loaded, &config.loops.adapter)(&run).unwrap();
        assert!(of_operators.learner.no_room_for(&long).is_some());
        let mut again = (trained.bench)(&run).unwrap();
        assert_eq!(again.learner.no_room_for(&long), None);
        let samples = vec![long];
        let taken = again.learner.step(&rl::Batch { samples });
        assert!(taken.is_ok(), "{taken:?}");
    }
}
