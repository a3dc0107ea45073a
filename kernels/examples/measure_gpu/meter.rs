//! Times work on a stream, and says what share of the machine's most it is.

use half::bf16;
use kernels::Result;
use kernels::cuda::{Buffer, Element, Stream};

/// Rounds of a measurement; the median counts.
const ROUNDS: usize = 7;

/// Time that a round takes at least, so that the clock's grain does not show.
const ROUND_US: f64 = 20_000.0;

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) op: &'static str,
    pub(crate) shape: String,
    pub(crate) us: f64,
    /// That must be read and written at least.
    pub(crate) bytes: f64,
    /// Floating-point operations on tensor cores; 0 where there are none.
    pub(crate) operations: f64,
}

#[derive(Debug)]
pub(crate) struct Meter {
    pub(crate) on: Stream,
    /// Sizes for an emulator.
    pub(crate) small: bool,
    /// Bytes a second, read and written.
    pub(crate) copy: f64,
    /// Operations a second.
    pub(crate) peak: f64,
}

impl Meter {
    pub(crate) fn new(on: Stream, small: bool) -> Result<Meter> {
        Ok(Meter {
            on,
            small,
            copy: f64::NAN,
            peak: f64::NAN,
        })
    }

    /// `large` on a GPU, `small` on an emulator.
    pub(crate) fn size<T>(&self, large: T, small: T) -> T {
        if self.small { small } else { large }
    }

    /// Microseconds of one call of `work`: the median of a few rounds of many calls.
    pub(crate) fn time(&self, mut work: impl FnMut(&Stream) -> Result<()>) -> Result<f64> {
        let once = self.round(1, &mut work)?;
        if self.small {
            return Ok(once);
        }
        let calls = (ROUND_US / once.max(1.0)).clamp(1.0, 2000.0) as usize;
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            times.push(self.round(calls, &mut work)?);
        }
        times.sort_by(f64::total_cmp);
        Ok(times[ROUNDS / 2])
    }

    fn round(&self, calls: usize, work: &mut impl FnMut(&Stream) -> Result<()>) -> Result<f64> {
        let gpu = self.on.gpu();
        let (before, after) = (gpu.timed_event()?, gpu.timed_event()?);
        self.on.record(&before)?;
        for _ in 0..calls {
            work(&self.on)?;
        }
        self.on.record(&after)?;
        after.wait()?;
        let milliseconds = f64::from(after.milliseconds_since(&before)?);
        Ok(1e3 * milliseconds / calls as f64)
    }

    /// A line of the table.
    pub(crate) fn line(&self, row: &Row) -> String {
        let seconds = row.us * 1e-6;
        let (bytes, operations) = (row.bytes / seconds, row.operations / seconds);
        let multiplied = if row.operations > 0.0 {
            format!(
                "{:.1} | {:.0} %",
                operations / 1e12,
                100.0 * operations / self.peak
            )
        } else {
            "– | –".to_owned()
        };
        format!(
            "| `{}` | {} | {:.1} | {:.0} | {:.0} % | {multiplied} |",
            row.op,
            row.shape,
            row.us,
            bytes / 1e9,
            100.0 * bytes / self.copy,
        )
    }

    /// A buffer of numbers in [-1, 1).
    pub(crate) fn noise(&self, seed: u64, len: usize) -> Result<Buffer<f32>> {
        self.on.upload(&values(seed, len))
    }

    /// The same as bf16.
    pub(crate) fn narrow(&self, seed: u64, len: usize) -> Result<Buffer<bf16>> {
        let narrow: Vec<bf16> = values(seed, len).into_iter().map(bf16::from_f32).collect();
        self.on.upload(&narrow)
    }

    /// A buffer whose every byte is 0xff: NaN.
    pub(crate) fn poisoned<T: Element>(&self, len: usize) -> Result<Buffer<T>> {
        let mut buffer = self.on.gpu().buffer(len)?;
        self.on.fill(&mut buffer.view_mut(), 0xff)?;
        Ok(buffer)
    }
}

/// A million numbers again and again: making them should not take longer than the measurement.
pub(crate) fn values(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let fresh: Vec<f32> = (0..len.min(1 << 20))
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect();
    fresh.iter().copied().cycle().take(len).collect()
}
