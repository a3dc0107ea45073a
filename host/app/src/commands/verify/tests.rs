//! `verify on-policy` on the tiny model.

use std::path::Path;

use policy::{Adapter, Checkpoint, peft};

use super::{OnPolicy, find, on_policy, report};
use crate::config::Dtype;
use crate::placement::Placement;

fn tiny() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policy/fixtures/tiny-llama");
    folder.to_str().unwrap().to_owned()
}

fn args() -> OnPolicy {
    OnPolicy {
        model: tiny(),
        adapter: Vec::new(),
        dtype: Dtype::Bf16,
        device: Placement::Cpu,
        threads: vec![1, 2],
        tokens: 600,
        seed: 3,
        json: false,
    }
}

#[test]
fn serving_and_training_agree_on_every_bit_under_everything_that_is_varied() {
    let folder = tempfile::tempdir().unwrap();
    let config = Checkpoint::open(Path::new(&tiny())).unwrap().config;
    let adapter = Adapter::random(&config, 3, 6.0, 9).unwrap();
    let own = folder.path().join("own");
    std::fs::create_dir(&own).unwrap();
    peft::save(&own, "tiny", &adapter).unwrap();
    let args = OnPolicy {
        adapter: vec![own.clone()],
        ..args()
    };
    let (loaded, found) = find(&args).unwrap();
    assert_eq!(
        found.mismatched,
        0,
        "{}",
        report::page(&loaded, &args, &found)
    );
    assert!(found.tokens >= 600 && found.reused > 200, "{found:?}");
    let of = |variation: &str| -> Vec<&str> {
        let rows = found.rows.iter().filter(|r| r.variation == variation);
        rows.map(|row| row.value.as_str()).collect()
    };
    assert_eq!(of("threads"), ["1", "2"]);
    assert_eq!(of("prompt rows"), ["5", "32", "128"]);
    assert_eq!(of("requests at once"), ["1", "3", "16"]);
    assert_eq!(of("prefix cache"), ["cold", "warm"]);
    let own = own.to_str().unwrap();
    assert_eq!(of("weights"), ["base", "rank 1", "rank 7", "rank 16", own]);
    assert_eq!(of("temperature").len(), 4);
    assert_eq!(of("the same again").len(), 1);
    // Several whole requests with the plain instruction set, and more where it costs less; both numbers of threads.
    let sets = found
        .rows
        .iter()
        .filter(|r| r.variation == "instruction set");
    let tokens: Vec<u64> = sets.map(|row| row.tokens).collect();
    assert_eq!(tokens.len(), kernels::Isa::available().len() - 1);
    assert!(
        tokens.iter().all(|tokens| *tokens >= 2 * 2 * 5),
        "{tokens:?}"
    );
    // Each token is counted once under each thing that was varied.
    for variation in [
        "threads",
        "prompt rows",
        "requests at once",
        "prefix cache",
        "weights",
    ] {
        let rows = found.rows.iter().filter(|r| r.variation == variation);
        let tokens: u64 = rows.map(|row| row.tokens).sum();
        assert_eq!(tokens, found.tokens, "{variation}");
    }
    let page = report::page(&loaded, &args, &found);
    assert!(page.contains("0 mismatched"), "{page}");
    let json = serde_json::to_value(report::json(&loaded, &args, &found)).unwrap();
    assert_eq!(
        (&json["mismatched"], &json["dtype"], &json["device"]),
        (&0.into(), &"bf16".into(), &"cpu".into())
    );
    assert_eq!(json["variations"][0]["variation"], "threads");
}

#[test]
fn they_agree_however_the_weights_are_stored() {
    for dtype in [Dtype::F32, Dtype::Q8, Dtype::Bf16Pairs] {
        let args = OnPolicy {
            dtype,
            tokens: 100,
            ..args()
        };
        let (loaded, found) = find(&args).unwrap();
        let page = report::page(&loaded, &args, &found);
        assert_eq!(found.mismatched, 0, "{page}");
        assert!(found.tokens >= 100, "{page}");
    }
}

#[test]
fn what_cannot_be_verified_is_refused_with_a_reason() {
    let nowhere = OnPolicy {
        model: "no/such/folder".into(),
        ..args()
    };
    assert!(on_policy(&nowhere).is_err());
    let no_adapter = OnPolicy {
        adapter: vec!["no-such-adapter".into()],
        ..args()
    };
    let error = format!("{:#}", on_policy(&no_adapter).unwrap_err());
    assert!(
        error.contains("load the adapter no-such-adapter"),
        "{error}"
    );
}
