//! Weight matrices in panels of 32 output columns, the form in which every product reads them.
//!
//! A panel holds, for each input k, the weights of its 32 outputs side by side, so that a product streams memory in
//! order with k ascending. The same panels serve `x·Wᵀ`, `dy·W` and the embedding lookup: there is no second copy.
//! The last panel is padded with zeros. Read [`crate::gemm`] next.

use crate::error::{check, require};
use crate::{Pool, Result};
use half::bf16;

/// Output columns of a panel.
pub(crate) const PANEL: usize = 32;

/// How weights are stored. They are always computed with in f32.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dtype {
    /// Rounded to bfloat16: half the memory and bandwidth.
    Bf16,
    /// As given.
    F32,
}

/// One panel row, on a cache line of its own.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Line<T>(pub(crate) [T; PANEL]);

/// The panels; all of panel 0 (one line for each k), then panel 1, and so on.
pub(crate) enum Panels {
    /// Column c of the first half at 2c, of the second half at 2c + 1: a vector of 32-bit words holds one half in its
    /// low parts and the other in its high parts.
    Bf16(Vec<Line<u16>>),
    F32(Vec<Line<f32>>),
}

/// A weight matrix (N, K): N outputs, K inputs.
pub struct Packed {
    n: usize,
    k: usize,
    pub(crate) panels: Panels,
}

impl std::fmt::Debug for Packed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Packed({}, {}, {:?})", self.n, self.k, self.dtype())
    }
}

impl Packed {
    /// Packs matrices with the same inputs under one another, as one matrix.
    ///
    /// # Shapes
    /// each of `parts`: (Nᵢ, K), row-major.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] for no inputs; [`crate::Error::Shape`] for a part that is no whole number of rows.
    pub fn pack(pool: &Pool, parts: &[&[f32]], k: usize, dtype: Dtype) -> Result<Packed> {
        require!("packed.pack", k = k as f64, k > 0, "a matrix needs inputs");
        for part in parts {
            check!("packed.pack", part: part.len() / k * k);
        }
        let n: usize = parts.iter().map(|part| part.len() / k).sum();
        let row = |mut i: usize| {
            for part in parts {
                if i < part.len() / k {
                    return Some(&part[i * k..][..k]);
                }
                i -= part.len() / k;
            }
            None
        };
        let lines = n.div_ceil(PANEL) * k;
        let panels = match dtype {
            Dtype::Bf16 => {
                let mut all = vec![Line([0u16; PANEL]); lines];
                fill(pool, &mut all, k, |panel, lines| {
                    for c in 0..PANEL {
                        let Some(row) = row(panel * PANEL + c) else {
                            break;
                        };
                        let at = bf16_slot(c);
                        for (line, &v) in lines.iter_mut().zip(row) {
                            line.0[at] = bf16::from_f32(v).to_bits();
                        }
                    }
                });
                Panels::Bf16(all)
            }
            Dtype::F32 => {
                let mut all = vec![Line([0f32; PANEL]); lines];
                fill(pool, &mut all, k, |panel, lines| {
                    for c in 0..PANEL {
                        let Some(row) = row(panel * PANEL + c) else {
                            break;
                        };
                        for (line, &v) in lines.iter_mut().zip(row) {
                            line.0[c] = v;
                        }
                    }
                });
                Panels::F32(all)
            }
        };
        Ok(Packed { n, k, panels })
    }

    /// Outputs, N.
    pub fn outputs(&self) -> usize {
        self.n
    }

    /// Inputs, K.
    pub fn inputs(&self) -> usize {
        self.k
    }

    /// How the weights are stored.
    pub fn dtype(&self) -> Dtype {
        match self.panels {
            Panels::Bf16(_) => Dtype::Bf16,
            Panels::F32(_) => Dtype::F32,
        }
    }

    /// Memory of the weights, padding included.
    pub fn bytes(&self) -> usize {
        match &self.panels {
            Panels::Bf16(lines) => std::mem::size_of_val(lines.as_slice()),
            Panels::F32(lines) => std::mem::size_of_val(lines.as_slice()),
        }
    }

    /// Row `i` of the matrix: the embedding lookup.
    ///
    /// # Shapes
    /// `out`: (K).
    ///
    /// # Errors
    /// [`crate::Error::Argument`] for a row that is not there; [`crate::Error::Shape`].
    pub fn row(&self, i: usize, out: &mut [f32]) -> Result<()> {
        check!("packed.row", out: self.k);
        require!(
            "packed.row",
            i = i as f64,
            i < self.n,
            "the matrix has fewer rows"
        );
        let (first, c) = (i / PANEL * self.k, i % PANEL);
        match &self.panels {
            Panels::Bf16(lines) => {
                for (v, line) in out.iter_mut().zip(&lines[first..]) {
                    *v = f32::from_bits(u32::from(line.0[bf16_slot(c)]) << 16);
                }
            }
            Panels::F32(lines) => {
                for (v, line) in out.iter_mut().zip(&lines[first..]) {
                    *v = line.0[c];
                }
            }
        }
        Ok(())
    }

    pub(crate) fn panel_count(&self) -> usize {
        self.n.div_ceil(PANEL)
    }
}

/// Where column `c` of a bf16 panel row is stored.
pub(crate) fn bf16_slot(c: usize) -> usize {
    2 * (c % 16) + c / 16
}

/// Fills the panels, on all threads.
fn fill<T: Send>(
    pool: &Pool,
    lines: &mut [Line<T>],
    k: usize,
    one: impl Fn(usize, &mut [Line<T>]) + Sync,
) {
    let panels: Vec<parking_lot::Mutex<&mut [Line<T>]>> =
        lines.chunks_mut(k).map(parking_lot::Mutex::new).collect();
    pool.run(panels.len(), &|p| one(p, &mut panels[p].lock()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_matrix_gives_its_rows_back() {
        let pool = Pool::new(2).unwrap();
        for (n, k) in [(1, 1), (31, 5), (32, 16), (33, 17), (100, 3)] {
            let rows: Vec<f32> = (0..n * k).map(|i| i as f32 * 0.5 - 7.0).collect();
            let (a, b) = rows.split_at(n / 2 * k);
            let exact = Packed::pack(&pool, &[a, b], k, Dtype::F32).unwrap();
            let rounded = Packed::pack(&pool, &[&rows], k, Dtype::Bf16).unwrap();
            let mut out = vec![0.0; k];
            for i in 0..n {
                exact.row(i, &mut out).unwrap();
                assert_eq!(out, rows[i * k..][..k]);
                rounded.row(i, &mut out).unwrap();
                let expected: Vec<f32> = rows[i * k..][..k]
                    .iter()
                    .map(|&v| bf16::from_f32(v).to_f32())
                    .collect();
                assert_eq!(out, expected);
            }
            assert!(exact.row(n, &mut out).is_err());
        }
    }

    #[test]
    fn a_part_of_a_row_is_refused() {
        let pool = Pool::new(1).unwrap();
        assert!(Packed::pack(&pool, &[&[1.0; 7]], 3, Dtype::F32).is_err());
        assert!(Packed::pack(&pool, &[&[1.0; 7]], 0, Dtype::F32).is_err());
    }
}
