//! What `lora_pack` is told: which matrices one launch packs.
//!
//! Knows nothing of where an adapter keeps them. Start at [`Pack::add`].

use super::{STEP, ints};
use crate::Result;
use crate::cuda::View;
use crate::cuda::launch::Argument;

/// Projections that one launch packs.
pub(super) const PACKED: usize = 7;

/// `lora::Matrix` of cuda/lora.cu.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct RawMatrix {
    from: u64,
    to: [u64; 2],
    /// Rows, columns, and elements of a row of each of `to`.
    sizes: [i32; 4],
    first: i32,
    unused: i32,
}

/// `lora::Matrices`.
#[repr(C)]
#[derive(Debug)]
struct RawMatrices([RawMatrix; 2 * PACKED]);

/// A launch that packs matrices.
#[derive(Debug)]
pub(super) struct Pack {
    raw: RawMatrices,
    count: usize,
    pub(super) blocks: usize,
}

impl Default for Pack {
    fn default() -> Self {
        let none = RawMatrix {
            from: 0,
            to: [0; 2],
            sizes: [0; 4],
            first: i32::MAX,
            unused: 0,
        };
        Pack {
            raw: RawMatrices([none; 2 * PACKED]),
            count: 0,
            blocks: 0,
        }
    }
}

impl Pack {
    /// One more, to (`tall`, `wide`) and (`wide`, `tall`).
    pub(super) fn add(
        &mut self,
        from: View<'_, f32>,
        (rows, columns): (usize, usize),
        (tall, wide): (usize, usize),
        to: [u64; 2],
    ) -> Result<()> {
        let [rows, columns, ld, ld_t, first] =
            ints("adapters.pack", [rows, columns, wide, tall, self.blocks])?;
        self.raw.0[self.count] = RawMatrix {
            from: *from.address(),
            to,
            sizes: [rows, columns, ld, ld_t],
            first,
            unused: 0,
        };
        self.count += 1;
        self.blocks += tall / STEP * (wide / STEP);
        Ok(())
    }
}

impl Argument for Pack {
    fn place(&self) -> (*const std::ffi::c_void, usize) {
        (
            std::ptr::from_ref(&self.raw).cast(),
            size_of::<RawMatrices>(),
        )
    }
}
