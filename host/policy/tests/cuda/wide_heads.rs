//! Heads of 128 elements, as large models have them: on Hopper they have kernels of their own for attention's gradient.

use super::*;

fn config() -> ModelConfig {
    ModelConfig {
        hidden: 64,
        layers: 2,
        heads: 2,
        head_dim: 128,
        ffn: 64,
        ..super::config(true)
    }
}

#[test]
fn what_attempts_share_is_trained_once_with_the_bits_that_were_served_and_the_cpus_gradients() {
    if !driver::present() {
        return;
    }
    let gpu = Model::random_on_gpu(config(), 7, 0, 1024, pool()).unwrap();
    let cpu = Model::random(config(), 7, Dtype::Bf16, pool()).unwrap();
    let adapter = Adapter::random(&config(), 4, 16.0, 8).unwrap();
    // A page of keys is shared, and the rest of the beginning is there for each.
    let (prompt, mut pack) = (text(14, 70), Pack::default());
    let mut sequences = Vec::new();
    for seed in [15, 16] {
        let tokens = [prompt.clone(), text(seed, 4 + seed)].concat();
        let targets: Vec<Target> = next_tokens(&tokens)[40..].to_vec();
        pack.push(&tokens, &targets).unwrap();
        sequences.push((tokens, targets));
    }
    let together = |model: &Model| {
        let (mut tape, mut grads) = (Tape::new(), AdapterGrads::zeros(&adapter));
        let found = model
            .train_pack(&mut tape, Some(&adapter), &pack, 1.0)
            .unwrap();
        let upstream: Vec<f32> = (0..found.len())
            .map(|i| (i % 7) as f32 * 0.1 - 0.25)
            .collect();
        model
            .backward(&mut tape, &adapter, &upstream, &mut grads)
            .unwrap();
        (found, grads.values().unwrap().into_owned())
    };
    let (log_probs, gradients) = together(&gpu);
    let (_, expected) = together(&cpu);
    let error = relative(&gradients, &expected);
    assert!(error < 0.02, "{error}");
    let mut rest = &log_probs[..];
    for ((tokens, targets), sizes) in sequences.iter().zip([&[33][..], &[64, 1, 1, 7]]) {
        let (own, others) = rest.split_at(targets.len());
        let mut found = Vec::new();
        let (mut kv, mut scratch) = (Kv::new(gpu.config()), Scratch::new());
        for &size in sizes.iter().cycle() {
            let left = &tokens[kv.len()..];
            if left.is_empty() {
                break;
            }
            let segment = Segment {
                kv: &mut kv,
                tokens: &left[..size.min(left.len())],
                adapter: Some(&adapter),
                logits: Logits::All,
            };
            gpu.forward(&mut scratch, &mut [segment]).unwrap();
            let rows = scratch
                .logits(0)
                .zip(tokens[tokens.len() - left.len()..].iter().skip(1));
            found.extend(rows.map(|(row, next)| {
                let normalizer = gpu.normalizer(row, 1.0).unwrap();
                normalizer.log_prob(row[*next as usize])
            }));
        }
        assert!(bits(own) == bits(&found[40..]));
        rest = others;
    }
}
