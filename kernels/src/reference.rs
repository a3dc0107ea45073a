//! The specification of each op: plain loops in `f64`, no blocking, no tricks.
//!
//! Tests compare the real ops with these; nothing else calls them.

/// `y = x·Wᵀ`: `x` (m, k), `w` (n, k).
pub fn matmul_t(m: usize, n: usize, k: usize, x: &[f32], w: &[f32]) -> Vec<f64> {
    let mut y = vec![0.0; m * n];
    for i in 0..m {
        for j in 0..n {
            for p in 0..k {
                y[i * n + j] += f64::from(x[i * k + p]) * f64::from(w[j * k + p]);
            }
        }
    }
    y
}

/// `y = x·W`: `x` (m, k), `w` (k, n).
pub fn matmul(m: usize, n: usize, k: usize, x: &[f32], w: &[f32]) -> Vec<f64> {
    let mut y = vec![0.0; m * n];
    for i in 0..m {
        for j in 0..n {
            for p in 0..k {
                y[i * n + j] += f64::from(x[i * k + p]) * f64::from(w[p * n + j]);
            }
        }
    }
    y
}

/// The rows of `table` (V, c) that the tokens name, one after the other.
pub fn embed(table: &[f32], c: usize, tokens: &[u32]) -> Vec<f32> {
    let mut out = Vec::new();
    for &token in tokens {
        out.extend_from_slice(&table[token as usize * c..][..c]);
    }
    out
}

/// Root-mean-square norm of one row.
pub fn rmsnorm(x: &[f64], weight: &[f64], eps: f64) -> Vec<f64> {
    let mean = x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64;
    let rms = (mean + eps).sqrt();
    x.iter().zip(weight).map(|(x, w)| x / rms * w).collect()
}

/// `silu(gate) * up`.
pub fn swiglu(gate: f64, up: f64) -> f64 {
    gate / (1.0 + (-gate).exp()) * up
}

/// Log-probabilities of one row at a temperature.
pub fn log_softmax(logits: &[f64], temperature: f64) -> Vec<f64> {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|l| ((l - max) / temperature).exp()).sum();
    logits
        .iter()
        .map(|l| (l - max) / temperature - sum.ln())
        .collect()
}

/// Sizes of [`attention`].
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    /// Query heads.
    pub heads: usize,
    /// Key heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
}

/// Causal attention of one whole sequence: `qkv` (n, (H + 2K)·D), result (n, H·D).
pub fn attention(n: usize, sizes: Heads, qkv: &[f64]) -> Vec<f64> {
    let Heads {
        heads,
        kv_heads,
        head_dim: d,
    } = sizes;
    let width = (heads + 2 * kv_heads) * d;
    let at = |row: usize, head: usize, i: usize| qkv[row * width + head * d + i];
    let mut out = vec![0.0; n * heads * d];
    for row in 0..n {
        for head in 0..heads {
            let key_head = heads + head / (heads / kv_heads);
            let score = |key: usize| -> f64 {
                (0..d)
                    .map(|i| at(row, head, i) * at(key, key_head, i))
                    .sum::<f64>()
                    / (d as f64).sqrt()
            };
            let scores: Vec<f64> = (0..=row).map(score).collect();
            let p = log_softmax(&scores, 1.0);
            for (key, p) in p.iter().enumerate() {
                for i in 0..d {
                    out[(row * heads + head) * d + i] += p.exp() * at(key, key_head + kv_heads, i);
                }
            }
        }
    }
    out
}

/// Rotates one head at a position, with plain angles.
pub fn rope(head: &[f64], position: usize, theta: f64) -> Vec<f64> {
    let half = head.len() / 2;
    let mut out = vec![0.0; head.len()];
    for i in 0..half {
        let angle = position as f64 / theta.powf(i as f64 / half as f64);
        out[i] = head[i] * angle.cos() - head[i + half] * angle.sin();
        out[i + half] = head[i + half] * angle.cos() + head[i] * angle.sin();
    }
    out
}

/// One AdamW step of one parameter: the new (parameter, first moment, second moment).
pub fn adamw(
    settings: &crate::adamw::AdamW,
    step: u64,
    (p, g, m, v): (f64, f64, f64, f64),
) -> (f64, f64, f64) {
    let (b1, b2) = (f64::from(settings.beta1), f64::from(settings.beta2));
    let lr = f64::from(settings.lr);
    let m = b1 * m + (1.0 - b1) * g;
    let v = b2 * v + (1.0 - b2) * g * g;
    let m_hat = m / (1.0 - b1.powf(step as f64));
    let v_hat = v / (1.0 - b2.powf(step as f64));
    let p = p * (1.0 - lr * f64::from(settings.weight_decay));
    (
        p - lr * m_hat / (v_hat.sqrt() + f64::from(settings.eps)),
        m,
        v,
    )
}
