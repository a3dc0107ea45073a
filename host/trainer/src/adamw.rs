//! The optimizer's memory: AdamW's two moments and the number of its steps, in memory and as bytes.
//!
//! The arithmetic is [`kernels::adamw`]'s. Bytes are a safetensors file with the F32 tensors `exp_avg` and `exp_avg_sq`
//! (PyTorch's names; flat, in the order of `Adapter::params`) and the U64 tensor `step` of one element.

use std::borrow::Cow;

use safetensors::tensor::{Dtype, View};
use safetensors::{SafeTensors, serialize};

use crate::{Error, Result};

const FIRST: &str = "exp_avg";
const SECOND: &str = "exp_avg_sq";
const STEP: &str = "step";

/// AdamW's state for a flat vector of parameters.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Moments<'a> {
    pub(crate) step: u64,
    pub(crate) first: Cow<'a, [f32]>,
    pub(crate) second: Cow<'a, [f32]>,
}

/// The bytes of an optimizer that has made no step, for an adapter that was trained elsewhere.
///
/// # Errors
/// [`Error::Optimizer`], which only an adapter beyond the format's limits causes.
pub fn fresh_optimizer(adapter: &policy::Adapter) -> Result<Vec<u8>> {
    let zeros = vec![0.0; adapter.params().len()];
    let moments = Moments {
        step: 0,
        first: Cow::Borrowed(&zeros),
        second: Cow::Borrowed(&zeros),
    };
    moments.to_bytes()
}

impl Moments<'static> {
    /// Of no parameters, before the first step.
    pub(crate) fn fresh() -> Self {
        Self {
            step: 0,
            first: Cow::default(),
            second: Cow::default(),
        }
    }

    /// Reads [`Moments::to_bytes`]; both moments must have `params` numbers, all finite, the second none below 0.
    pub(crate) fn from_bytes(bytes: &[u8], params: usize) -> Result<Self> {
        let file = SafeTensors::deserialize(bytes).map_err(refused)?;
        let moments = Self {
            step: read_step(&file)?,
            first: floats(&file, FIRST, params)?.into(),
            second: floats(&file, SECOND, params)?.into(),
        };
        match moments.second.iter().position(|v| *v < 0.0) {
            Some(at) => Err(refused(format!("`{SECOND}` is negative at element {at}"))),
            None => Ok(moments),
        }
    }
}

impl Moments<'_> {
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
        let step = self.step.to_le_bytes();
        let tensors = [
            (FIRST, Tensor::Floats(&self.first, [self.first.len()])),
            (SECOND, Tensor::Floats(&self.second, [self.second.len()])),
            (STEP, Tensor::Step(&step)),
        ];
        serialize(tensors, None).map_err(refused)
    }

    /// The number of steps alone, whatever the moments are.
    pub(crate) fn step_in(bytes: &[u8]) -> Result<u64> {
        read_step(&SafeTensors::deserialize(bytes).map_err(refused)?)
    }
}

/// A tensor whose bytes are made when they are written: both moments as bytes beside the file would be twice its memory.
enum Tensor<'a> {
    Floats(&'a [f32], [usize; 1]),
    Step(&'a [u8; 8]),
}

impl View for Tensor<'_> {
    fn dtype(&self) -> Dtype {
        match self {
            Self::Floats(..) => Dtype::F32,
            Self::Step(_) => Dtype::U64,
        }
    }

    fn shape(&self) -> &[usize] {
        match self {
            Self::Floats(_, shape) => shape,
            Self::Step(_) => &[1],
        }
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Floats(values, _) => {
                let mut bytes = vec![0; size_of_val(*values)];
                for (to, v) in bytes.as_chunks_mut().0.iter_mut().zip(*values) {
                    *to = v.to_le_bytes();
                }
                bytes.into()
            }
            Self::Step(bytes) => Cow::Borrowed(*bytes),
        }
    }

    fn data_len(&self) -> usize {
        match self {
            Self::Floats(values, _) => size_of_val(*values),
            Self::Step(bytes) => bytes.len(),
        }
    }
}

fn read_step(file: &SafeTensors<'_>) -> Result<u64> {
    let tensor = file.tensor(STEP).map_err(refused)?;
    match <[u8; 8]>::try_from(tensor.data()) {
        Ok(bytes) if tensor.dtype() == Dtype::U64 => Ok(u64::from_le_bytes(bytes)),
        _ => Err(refused(format!("`{STEP}` is not one U64"))),
    }
}

fn floats(file: &SafeTensors<'_>, name: &str, count: usize) -> Result<Vec<f32>> {
    let tensor = file.tensor(name).map_err(refused)?;
    if tensor.dtype() != Dtype::F32 || tensor.shape() != [count] {
        let (dtype, shape) = (tensor.dtype(), tensor.shape());
        return Err(refused(format!(
            "`{name}` is {dtype:?} {shape:?}, expected F32 [{count}]"
        )));
    }
    let values: Vec<f32> = tensor
        .data()
        .as_chunks::<4>()
        .0
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect();
    match values.iter().position(|v| !v.is_finite()) {
        Some(at) => Err(refused(format!("`{name}` is not finite at element {at}"))),
        None => Ok(values),
    }
}

fn refused(why: impl ToString) -> Error {
    Error::Optimizer {
        why: why.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::Moments;

    fn moments() -> Moments<'static> {
        Moments {
            step: 7,
            first: vec![0.5, -0.25, 0.0].into(),
            second: vec![1.0, 0.0, 2.0].into(),
        }
    }

    #[test]
    fn bytes_hold_every_bit_and_equal_states_have_equal_bytes() {
        let bytes = moments().to_bytes().unwrap();
        assert_eq!(Moments::from_bytes(&bytes, 3).unwrap(), moments());
        assert_eq!(bytes, moments().to_bytes().unwrap());
    }

    #[test]
    fn foreign_bytes_are_refused_with_the_reason() {
        let says = |bytes: &[u8], params, part: &str| {
            let error = Moments::from_bytes(bytes, params).unwrap_err().to_string();
            assert!(error.contains(part), "{error} does not say {part}");
        };
        says(b"", 3, "optimizer state");
        says(&moments().to_bytes().unwrap(), 4, "expected F32 [4]");
        let nan = Moments {
            first: vec![0.0, f32::NAN, 0.0].into(),
            ..moments()
        };
        says(&nan.to_bytes().unwrap(), 3, "not finite at element 1");
        let negative = Moments {
            second: vec![0.0, 0.0, -1.0].into(),
            ..moments()
        };
        says(&negative.to_bytes().unwrap(), 3, "negative at element 2");
        let whole = moments().to_bytes().unwrap();
        for cut in 0..whole.len() {
            assert!(Moments::from_bytes(&whole[..cut], 3).is_err());
        }
    }
}
