//! Stored numbers to f32: plain floats and the block formats of ggml.
//!
//! Bit-identical to the `gguf` Python package (a fixture holds its answers). Does not quantise and does not compute on quantised
//! numbers. Callers guarantee whole blocks. Source of the layouts: `ggml-common.h` and `ggml-quants.c` of llama.cpp.

use half::{bf16, f16};

/// How a tensor's numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(non_camel_case_types, reason = "the names that the formats use")]
pub enum Dtype {
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// The upper half of a single.
    BF16,
    /// 32 numbers: a half scale, 32 signed bytes.
    Q8_0,
    /// 32 numbers: a half scale, 4 bits each, minus 8.
    Q4_0,
    /// 32 numbers: a half scale, a half minimum, 4 bits each.
    Q4_1,
    /// 256 numbers in 8 groups with 6-bit scales and minima, 4 bits each.
    Q4_K,
    /// As `Q4_K` with a fifth bit each.
    Q5_K,
    /// 256 numbers in 16 groups with 8-bit scales, 6 bits each.
    Q6_K,
}

/// Numbers in a super-block of the K formats.
const SUPER: usize = 256;

impl Dtype {
    /// Numbers in one block, and its bytes.
    pub fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::BF16 => (1, 2),
            Self::Q8_0 => (32, 34),
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q4_K => (SUPER, 144),
            Self::Q5_K => (SUPER, 176),
            Self::Q6_K => (SUPER, 210),
        }
    }

    /// ggml's number for the type.
    pub(crate) fn from_ggml(id: u32) -> Option<Self> {
        Some(match id {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            8 => Self::Q8_0,
            12 => Self::Q4_K,
            13 => Self::Q5_K,
            14 => Self::Q6_K,
            30 => Self::BF16,
            _ => return None,
        })
    }

    /// What [`Dtype::from_ggml`] reads.
    pub(crate) fn to_ggml(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q8_0 => 8,
            Self::Q4_K => 12,
            Self::Q5_K => 13,
            Self::Q6_K => 14,
            Self::BF16 => 30,
        }
    }

    /// The name that safetensors uses.
    pub(crate) fn from_safetensors(name: &str) -> Option<Self> {
        Some(match name {
            "F32" => Self::F32,
            "F16" => Self::F16,
            "BF16" => Self::BF16,
            _ => return None,
        })
    }

    /// Appends the numbers of whole blocks. A trailing partial block is not read; the tensor tables rule it out.
    pub fn decode(self, bytes: &[u8], out: &mut Vec<f32>) {
        match self {
            Self::F32 => out.extend(bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b))),
            Self::F16 => out.extend(bytes.as_chunks().0.iter().map(|&b| half(b))),
            Self::BF16 => {
                out.extend(
                    bytes
                        .as_chunks()
                        .0
                        .iter()
                        .map(|&b| bf16::from_le_bytes(b).to_f32()),
                );
            }
            Self::Q8_0 => bytes.as_chunks().0.iter().for_each(|b| q8_0(b, out)),
            Self::Q4_0 => bytes.as_chunks().0.iter().for_each(|b| q4_0(b, out)),
            Self::Q4_1 => bytes.as_chunks().0.iter().for_each(|b| q4_1(b, out)),
            Self::Q4_K => bytes.as_chunks().0.iter().for_each(|b| q4_k(b, out)),
            Self::Q5_K => bytes.as_chunks().0.iter().for_each(|b| q5_k(b, out)),
            Self::Q6_K => bytes.as_chunks().0.iter().for_each(|b| q6_k(b, out)),
        }
    }
}

fn half(bytes: [u8; 2]) -> f32 {
    f16::from_le_bytes(bytes).to_f32()
}

fn q8_0(b: &[u8; 34], out: &mut Vec<f32>) {
    let d = half([b[0], b[1]]);
    out.extend(b[2..].iter().map(|&q| d * f32::from(q.cast_signed())));
}

fn q4_0(b: &[u8; 18], out: &mut Vec<f32>) {
    let d = half([b[0], b[1]]);
    let number = |nibble: u8| d * (f32::from(nibble) - 8.0);
    out.extend(b[2..].iter().map(|&q| number(q & 15)));
    out.extend(b[2..].iter().map(|&q| number(q >> 4)));
}

fn q4_1(b: &[u8; 20], out: &mut Vec<f32>) {
    let (d, m) = (half([b[0], b[1]]), half([b[2], b[3]]));
    out.extend(b[4..].iter().map(|&q| d * f32::from(q & 15) + m));
    out.extend(b[4..].iter().map(|&q| d * f32::from(q >> 4) + m));
}

/// The 6-bit scale and minimum of group `g` (0..8) from the 12 packed bytes.
fn scale_min(g: usize, packed: &[u8]) -> (f32, f32) {
    let (scale, min) = if g < 4 {
        (packed[g] & 63, packed[g + 4] & 63)
    } else {
        let low = packed[g + 4];
        (
            (low & 15) | ((packed[g - 4] >> 6) << 4),
            (low >> 4) | ((packed[g] >> 6) << 4),
        )
    };
    (f32::from(scale), f32::from(min))
}

fn q4_k(b: &[u8; 144], out: &mut Vec<f32>) {
    let (d, dmin) = (half([b[0], b[1]]), half([b[2], b[3]]));
    let (scales, quants) = b[4..].split_at(12);
    for (pair, q) in quants.chunks_exact(32).enumerate() {
        let (s, m) = scale_min(2 * pair, scales);
        let (s, m) = (d * s, dmin * m);
        out.extend(q.iter().map(|&q| s * f32::from(q & 15) - m));
        let (s, m) = scale_min(2 * pair + 1, scales);
        let (s, m) = (d * s, dmin * m);
        out.extend(q.iter().map(|&q| s * f32::from(q >> 4) - m));
    }
}

fn q5_k(b: &[u8; 176], out: &mut Vec<f32>) {
    let (d, dmin) = (half([b[0], b[1]]), half([b[2], b[3]]));
    let (scales, rest) = b[4..].split_at(12);
    let (high, quants) = rest.split_at(32);
    for (pair, q) in quants.chunks_exact(32).enumerate() {
        let fifth = |h: u8, group: usize| ((h >> group) & 1) << 4;
        let (s, m) = scale_min(2 * pair, scales);
        let (s, m) = (d * s, dmin * m);
        let low = q
            .iter()
            .zip(high)
            .map(|(&q, &h)| (q & 15) | fifth(h, 2 * pair));
        out.extend(low.map(|q| s * f32::from(q) - m));
        let (s, m) = scale_min(2 * pair + 1, scales);
        let (s, m) = (d * s, dmin * m);
        let upper = q
            .iter()
            .zip(high)
            .map(|(&q, &h)| (q >> 4) | fifth(h, 2 * pair + 1));
        out.extend(upper.map(|q| s * f32::from(q) - m));
    }
}

fn q6_k(b: &[u8; 210], out: &mut Vec<f32>) {
    let (low, rest) = b.split_at(128);
    let (high, rest) = rest.split_at(64);
    let (scales, d) = rest.split_at(16);
    let d = half([d[0], d[1]]);
    for side in 0..2 {
        let (ql, qh, sc) = (&low[64 * side..], &high[32 * side..], &scales[8 * side..]);
        for quarter in 0..4 {
            for l in 0..32 {
                let four = ql[l + 32 * (quarter % 2)] >> (4 * (quarter / 2)) & 15;
                let two = qh[l] >> (2 * quarter) & 3;
                let scale = d * f32::from(sc[2 * quarter + l / 16].cast_signed());
                out.push(scale * (f32::from(four | two << 4) - 32.0));
            }
        }
    }
}
