//! Shares rows among the threads, for the ops that treat each row alone.

use crate::Pool;
use crate::gemm::SMALL;
use std::ops::Range;

/// Calls `some` with ranges of rows that cover `0..rows`; `cost` is a row's work in elements.
pub(crate) fn share(pool: &Pool, rows: usize, cost: usize, some: &(dyn Fn(Range<usize>) + Sync)) {
    let tasks = if rows * cost < SMALL / 4 {
        1
    } else {
        rows.min(pool.threads() * 4)
    };
    pool.run(tasks, &|task| {
        some(rows * task / tasks..rows * (task + 1) / tasks)
    });
}
