//! What an op can refuse, and the check at every op's door.
//!
//! Sizes are compared once, before any work; the loops behind the door assume them.

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an op refused to run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A slice has another number of elements than the other arguments imply.
    #[error("{op}: `{what}` has {found} elements, expected {expected}")]
    Shape {
        /// The op, as `module.function`.
        op: &'static str,
        /// The argument.
        what: &'static str,
        /// Elements that the other arguments imply.
        expected: usize,
        /// Elements that were given.
        found: usize,
    },
    /// A scalar argument is outside its range.
    #[error("{op}: `{what}` is {found}, but {rule}")]
    Argument {
        /// The op, as `module.function`.
        op: &'static str,
        /// The argument.
        what: &'static str,
        /// The range, as the end of a sentence.
        rule: &'static str,
        /// What was given.
        found: f64,
    },
    /// A compute thread could not be started.
    #[error("start compute thread {index}")]
    Thread {
        /// Which of the pool's threads.
        index: usize,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// No GPU can be used.
    #[error("no GPU can be used: {0}")]
    NoGpu(#[from] crate::cuda::devices::Absent),
    /// No embedded image runs on a GPU.
    #[error(
        "load the kernels of `{module}`: no image for compute capability {compute} is in this program"
    )]
    Image {
        /// The source file, without its ending.
        module: &'static str,
        /// The GPU's.
        compute: crate::cuda::Compute,
    },
    /// A kernel was launched in a way that is not its own.
    #[error("launch `{kernel}`: {why}")]
    Kernel {
        /// The kernel.
        kernel: &'static str,
        /// What does not fit.
        why: &'static str,
    },
    /// The CUDA driver refused a call, or reports with it what failed before.
    #[error("{call}: {name} ({code})")]
    Driver {
        /// The driver's function.
        call: &'static str,
        /// Its answer.
        code: u32,
        /// The answer's name.
        name: String,
    },
}

/// Refuses slices whose length is not the one that the other arguments imply.
macro_rules! check {
    ($op:literal, $($what:ident : $expected:expr),+ $(,)?) => {
        $(
            if $what.len() != $expected {
                return Err($crate::Error::Shape {
                    op: $op,
                    what: stringify!($what),
                    expected: $expected,
                    found: $what.len(),
                });
            }
        )+
    };
}

/// Refuses a scalar that breaks a rule.
macro_rules! require {
    ($op:literal, $what:ident = $found:expr, $holds:expr, $rule:literal) => {
        if !$holds {
            return Err($crate::Error::Argument {
                op: $op,
                what: stringify!($what),
                rule: $rule,
                found: $found,
            });
        }
    };
}

pub(crate) use {check, require};
