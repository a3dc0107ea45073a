//! Philox4x32-10: a random function of a counter and a key, without state.
//!
//! Not for secrets. Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011); checked against the
//! known-answer vectors of their Random123 library.

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
/// The golden ratio and the square root of 3, less 1, as the paper adds them to the key.
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: u32 = 10;

/// Four random words for a counter and a key.
pub fn philox4x32(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    let [mut k0, mut k1] = key;
    for _ in 0..ROUNDS {
        let (low0, high0) = product(MULTIPLIERS[0], c0);
        let (low1, high1) = product(MULTIPLIERS[1], c2);
        (c0, c1, c2, c3) = (high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0);
        k0 = k0.wrapping_add(WEYL[0]);
        k1 = k1.wrapping_add(WEYL[1]);
    }
    [c0, c1, c2, c3]
}

/// The low and the high half of a product.
fn product(a: u32, b: u32) -> (u32, u32) {
    let product = u64::from(a) * u64::from(b);
    (product as u32, (product >> 32) as u32)
}

/// A number in [0, 1) with 53 random bits for (seed, request, position).
pub fn uniform(seed: u64, request: u64, position: u64) -> f64 {
    let split = |n: u64| [n as u32, (n >> 32) as u32];
    let ([p0, p1], [r0, r1]) = (split(position), split(request));
    let [high, low, ..] = philox4x32([p0, p1, r0, r1], split(seed));
    let bits = (u64::from(high) << 32 | u64::from(low)) >> 11;
    bits as f64 / (1u64 << 53) as f64
}
