//! Tensor maps: how the copy engine of compute capability 9.0 finds a tile of a matrix.

use std::ffi::c_void;

use cudarc::driver::sys::{
    CUtensorMap, CUtensorMapDataType, CUtensorMapFloatOOBfill, CUtensorMapInterleave,
    CUtensorMapL2promotion, CUtensorMapSwizzle,
};
use half::bf16;

use super::View;
use super::driver::call;
use super::launch::Argument;
use crate::Result;
use crate::error::check;

/// A matrix in tiles whose rows are 128 bytes, swizzled; beyond its edges it reads as zeros.
#[derive(Clone, Copy, Debug)]
pub(super) struct TensorMap {
    map: CUtensorMap,
    address: u64,
}

/// Columns of a tile.
pub(super) const TILE_COLUMNS: u32 = 64;

impl TensorMap {
    /// The map of `matrix`, (rows, columns) row-major, in tiles of (`tile_rows`, 64).
    ///
    /// # Errors
    /// [`crate::Error::Shape`]; [`crate::Error::Driver`] for columns that are not a multiple of 8, or more than 256
    /// rows of a tile.
    pub(super) fn new(
        matrix: View<'_, bf16>,
        rows: usize,
        columns: usize,
        tile_rows: u32,
    ) -> Result<TensorMap> {
        check!("cuda.tensor_map", matrix: rows * columns);
        let stride = (columns * size_of::<bf16>()) as u64;
        encode(
            (*matrix.address(), BF16),
            [columns as u64, rows as u64],
            &[stride],
            [TILE_COLUMNS, tile_rows],
        )
    }

    /// The same of f32, in tiles of (`tile_rows`, 32).
    ///
    /// # Errors
    /// As [`TensorMap::new`], for columns that are not a multiple of 4.
    pub(super) fn wide(
        matrix: View<'_, f32>,
        rows: usize,
        columns: usize,
        tile_rows: u32,
    ) -> Result<TensorMap> {
        check!("cuda.tensor_map", matrix: rows * columns);
        let stride = (columns * size_of::<f32>()) as u64;
        encode(
            (*matrix.address(), F32),
            [columns as u64, rows as u64],
            &[stride],
            [TILE_COLUMNS / 2, tile_rows],
        )
    }

    /// The map of rows of `ld` elements, of which the first are heads of `head_dim` side by side: (rows, heads, `head_dim`) in tiles
    /// of (`tile`, 64).
    ///
    /// # Errors
    /// [`crate::Error::Driver`] for an `ld` that is not a multiple of 8, or more than 256 rows or heads of a tile.
    pub(super) fn of_heads(
        matrix: View<'_, bf16>,
        ld: usize,
        [heads, head_dim]: [usize; 2],
        [tile_rows, tile_heads]: [u32; 2],
    ) -> Result<TensorMap> {
        let strides = [head_dim, ld].map(|n| (n * size_of::<bf16>()) as u64);
        encode(
            (*matrix.address(), BF16),
            [head_dim, heads, matrix.len() / ld].map(|n| n as u64),
            &strides,
            [TILE_COLUMNS, tile_heads, tile_rows],
        )
    }
}

const BF16: CUtensorMapDataType = CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
const F32: CUtensorMapDataType = CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT32;

/// `strides`: bytes from one to the next, of all dimensions but the first.
fn encode<const RANK: usize>(
    (address, kind): (u64, CUtensorMapDataType),
    dimensions: [u64; RANK],
    strides: &[u64],
    tile: [u32; RANK],
) -> Result<TensorMap> {
    let mut map = CUtensorMap { opaque: [0; 16] };
    let steps = [1; RANK];
    // SAFETY: as many dimensions as each array describes, one more than there are strides; the arrays and the map outlive the
    // call.
    unsafe {
        call!(cuTensorMapEncodeTiled(
            &raw mut map,
            kind,
            RANK as u32,
            address as *mut c_void,
            dimensions.as_ptr(),
            strides.as_ptr(),
            tile.as_ptr(),
            steps.as_ptr(),
            CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
            CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
            CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        ))
    }?;
    Ok(TensorMap { map, address })
}

impl Argument for TensorMap {
    fn place(&self) -> (*const c_void, usize) {
        (
            std::ptr::from_ref(&self.map).cast(),
            size_of::<CUtensorMap>(),
        )
    }

    fn memory(&self) -> Option<u64> {
        Some(self.address)
    }
}
