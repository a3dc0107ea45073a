//! `train` from files to a folder, on the tiny model.

use std::fs;
use std::path::{Path, PathBuf};

use rl::{PolicyVersion, Sample, StepMetrics};

use super::{Args, METRICS, OPTIMIZER, RECORD, Record, run};
use crate::commands::opened::ModelArgs;
use crate::config::Dtype;
use policy::peft;

/// A folder with samples and a recipe.
struct Desk {
    folder: tempfile::TempDir,
}

const RECIPE: &str =
    "steps = 4\nbatch-size = 2\nseed = 5\n[train]\nlr = 1e-3\nrank = 4\nalpha = 8.0\n";

impl Desk {
    fn new(samples: &str, recipe: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("samples.jsonl"), samples).unwrap();
        fs::write(folder.path().join("recipe.toml"), recipe).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn train(&self, out: &str, resume: Option<&str>) -> Result<(), String> {
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policy/fixtures/tiny-llama");
        let model = tiny.to_str().unwrap().to_owned();
        let args = Args {
            model: ModelArgs {
                model,
                dtype: Dtype::F32,
                device: crate::placement::Placement::Cpu,
                threads: Some(2),
            },
            samples: self.path("samples.jsonl"),
            recipe: self.path("recipe.toml"),
            out: self.path(out),
            resume: resume.map(|name| self.path(name)),
        };
        run(args).map_err(|error| format!("{error:#}"))
    }

    fn metrics(&self, out: &str) -> Vec<StepMetrics> {
        let text = fs::read_to_string(self.path(out).join(METRICS)).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn record(&self, out: &str) -> Record {
        serde_json::from_slice(&fs::read(self.path(out).join(RECORD)).unwrap()).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn samples() -> String {
    let sample = |number: u32| Sample {
        id: format!("s{number}").as_str().into(),
        turn: "t".into(),
        adapter: "main".into(),
        version: PolicyVersion::BASE,
        prompt: vec![1, 2 + number],
        response: vec![3, 4, 5 + number],
        behaviour: vec![-5.0; 3],
        advantage: vec![1.0, -1.0, 0.5],
        weight: vec![1.0; 3],
        temperature: 1.0,
    };
    (0..3)
        .map(|i| serde_json::to_string(&sample(i)).unwrap() + "\n")
        .collect()
}

#[test]
fn steps_give_a_peft_folder_their_metrics_and_the_state_to_go_on() {
    let desk = Desk::new(&samples(), RECIPE);
    desk.train("out", None).unwrap();
    let mut names: Vec<_> = fs::read_dir(desk.path("out"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [peft::CONFIG, peft::WEIGHTS, METRICS, OPTIMIZER, RECORD]
    );
    let metrics = desk.metrics("out");
    assert_eq!(
        metrics.iter().map(|m| m.step).collect::<Vec<_>>(),
        [1, 2, 3, 4]
    );
    assert!(
        metrics
            .iter()
            .all(|m| m.tokens == 6 && m.samples == 2 && m.grad_norm > 0.0)
    );
    let record = desk.record("out");
    assert_eq!(record.version, PolicyVersion::new(4));
    assert_eq!(
        record.recipe.train.clip_high,
        Some(0.28),
        "defaults are filled in"
    );
    let config = policy::Checkpoint::open(Path::new(&record.model))
        .unwrap()
        .config;
    let adapter = peft::load(&desk.path("out"), &config).unwrap();
    assert_eq!(adapter.digest(), record.adapter_digest);
    assert_eq!((adapter.rank(), adapter.alpha()), (4, 8.0));
    assert_eq!(
        desk.names(),
        ["out", "recipe.toml", "samples.jsonl"],
        "nothing is left over"
    );
}

#[test]
fn two_and_two_steps_are_four_bit_for_bit() {
    // Resuming starts the file again, so a batch is the whole file.
    let recipe = |steps: u32| RECIPE.replace("steps = 4", &format!("steps = {steps}"));
    let one_batch = |steps| recipe(steps).replace("batch-size = 2", "batch-size = 3");
    let desk = Desk::new(&samples(), &one_batch(4));
    desk.train("whole", None).unwrap();
    fs::write(desk.path("recipe.toml"), one_batch(2)).unwrap();
    desk.train("half", None).unwrap();
    desk.train("rest", Some("half")).unwrap();
    for name in [peft::CONFIG, peft::WEIGHTS, OPTIMIZER] {
        let read = |folder: &str| fs::read(desk.path(folder).join(name)).unwrap();
        assert_eq!(read("whole"), read("rest"), "{name} differs");
        assert!(
            name == peft::CONFIG || read("half") != read("rest"),
            "{name} did not move"
        );
    }
    assert_eq!(desk.record("rest").version, PolicyVersion::new(4));
    assert_eq!(desk.metrics("rest")[0].step, 3);
}

#[test]
fn without_steps_the_samples_are_walked_over_once() {
    let desk = Desk::new(&samples(), "batch-size = 2\n[train]\nrank = 2\n");
    desk.train("out", None).unwrap();
    let sizes: Vec<u64> = desk.metrics("out").iter().map(|m| m.samples).collect();
    assert_eq!(sizes, [2, 1]);
}

#[test]
fn a_bad_sample_is_named_by_its_line_and_nothing_is_written() {
    let good = samples();
    for (bad, says) in [
        (good.replacen("[1.0,-1.0,0.5]", "[1.0,-1.0]", 1), "line 1: "),
        (
            format!("{good}\n{{\"id\":\"x\"}}\n"),
            "line 5: missing field",
        ),
        (format!("{good}not json\n"), "line 4: "),
        (
            good.replacen("\"temperature\":1.0", "\"temperature\":0.0", 1),
            "temperature is 0",
        ),
        (
            good.replacen("\"weight\"", "\"mass\"", 1),
            "unknown field `mass`",
        ),
        (String::new(), "holds no sample"),
    ] {
        let desk = Desk::new(&bad, RECIPE);
        let error = desk.train("out", None).unwrap_err();
        assert!(error.contains(says), "{error} does not say: {says}");
        assert_eq!(desk.names(), ["recipe.toml", "samples.jsonl"]);
    }
}

#[test]
fn a_refused_step_writes_nothing_and_says_which() {
    let desk = Desk::new(&samples().replacen("-5.0", "-400.0", 1), RECIPE);
    let error = desk.train("out", None).unwrap_err();
    assert!(
        error.starts_with("step 1: ") && error.contains("`max-ratio`"),
        "{error}"
    );
    let desk = Desk::new(&samples().replacen("[3,4,", "[3,9999,", 1), RECIPE);
    let error = desk.train("out", None).unwrap_err();
    assert!(error.contains("sample s0: token 9999"), "{error}");
    assert_eq!(desk.names(), ["recipe.toml", "samples.jsonl"]);
}

#[test]
fn a_recipe_that_makes_no_sense_is_refused_by_its_key() {
    for (recipe, says) in [
        ("[train]\nlearning-rate = 1", "learning-rate"),
        ("epochs = 1", "epochs"),
        ("batch-size = 0", "batch-size"),
        ("[train]\nlr = -1.0", "`lr`"),
        (
            "[train]\npolicy-loss = \"cispo\"\nclip-low = 0.1",
            "`clip-low`",
        ),
        ("[train\n", "recipe"),
    ] {
        let error = Desk::new(&samples(), recipe)
            .train("out", None)
            .unwrap_err();
        assert!(error.contains(says), "{error} does not say: {says}");
    }
}

#[test]
fn an_out_folder_with_files_is_left_alone() {
    let desk = Desk::new(&samples(), RECIPE);
    fs::create_dir(desk.path("out")).unwrap();
    fs::write(desk.path("out").join("mine"), "kept").unwrap();
    let error = desk.train("out", None).unwrap_err();
    assert!(error.contains("is not empty"), "{error}");
    fs::create_dir(desk.path("empty")).unwrap();
    desk.train("empty", None).unwrap();
    let error = desk.train("next", Some("out")).unwrap_err();
    assert!(error.contains(RECORD), "{error}");
}
