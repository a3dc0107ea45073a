//! A GGUF file like another, with other numbers in the adapted linear maps.
//!
//! Knows where the parts of the file go; the arithmetic is [`super::merge`]'s.

use std::collections::BTreeMap;

use super::Progress;
use super::merge::Merge;
use super::part::Sink;
use crate::checkpoint::gguf::Gguf;
use crate::checkpoint::{Dtype, TensorInfo, names};
use crate::error::{Error, Result};

/// What becomes of one tensor of the base.
pub(super) struct Plan<'a> {
    name: &'a str,
    info: &'a TensorInfo,
    /// Hugging Face's name, when it is merged.
    merged: Option<&'a str>,
}

impl Plan<'_> {
    fn dtype(&self) -> Dtype {
        self.merged.map_or(self.info.dtype, |_| Dtype::BF16)
    }

    fn bytes(&self) -> u64 {
        match self.merged {
            None => self.info.bytes,
            Some(_) => 2 * self.info.shape.iter().map(|&n| n as u64).product::<u64>(),
        }
    }
}

pub(super) fn write(
    file: &Gguf,
    merge: &Merge<'_>,
    plans: &[Plan<'_>],
    sink: &mut Sink,
    progress: &Progress<'_>,
) -> Result<()> {
    let align = file.alignment();
    let data: u64 = plans
        .iter()
        .map(|p| p.bytes().next_multiple_of(align))
        .sum();
    header(file, plans, sink)?;
    let total = sink.written() + data;
    progress(sink.written(), total);
    for plan in plans {
        match plan.merged {
            None => {
                let range = plan.info.offset..plan.info.offset + plan.info.bytes;
                file.copy(range, &mut |bytes| sink.write(bytes))?;
            }
            Some(name) => {
                let shape = &plan.info.shape;
                let numbers = merge.tensor(name, shape)?;
                let numbers = Gguf::own_order(merge.config(), plan.name, shape, numbers);
                sink.write(&merge.bf16(plan.name, &numbers)?)?;
            }
        }
        sink.pad(align)?; // after the last one too, as ggml's own writer does
        progress(sink.written(), total);
    }
    Ok(())
}

/// The tensors in the order of their bytes. Every adapted one must be there in its shape.
pub(super) fn plan<'a>(file: &'a Gguf, merge: &'a Merge<'_>) -> Result<Vec<Plan<'a>>> {
    let path = file.metadata().path();
    let mut merged = BTreeMap::new();
    for (name, shape) in merge.adapted() {
        let missing = || Error::MissingTensor {
            path: path.into(),
            name: name.into(),
        };
        let own = names::to_gguf(name).ok_or_else(missing)?;
        let found = file.tensors().get(&own).ok_or_else(missing)?;
        if found.shape != shape {
            return Err(Error::TensorShape {
                path: path.into(),
                name: own,
                expected: shape.into(),
                found: found.shape.clone(),
            });
        }
        merged.insert(own, name);
    }
    let tensors = file.tensors().iter();
    let mut plans: Vec<_> = tensors
        .map(|(name, info)| Plan {
            name,
            info,
            merged: merged.get(name).copied(),
        })
        .collect();
    plans.sort_by_key(|plan| plan.info.offset);
    Ok(plans)
}

/// Everything before the data.
fn header(file: &Gguf, plans: &[Plan<'_>], sink: &mut Sink) -> Result<()> {
    let (pairs, count) = file.pairs();
    sink.write(b"GGUF")?;
    sink.write(&file.version().to_le_bytes())?;
    sink.write(&(plans.len() as u64).to_le_bytes())?;
    sink.write(&count.to_le_bytes())?;
    file.copy(pairs, &mut |bytes| sink.write(bytes))?;
    let mut offset = 0u64;
    for plan in plans {
        sink.write(&(plan.name.len() as u64).to_le_bytes())?;
        sink.write(plan.name.as_bytes())?;
        sink.write(&(plan.info.shape.len() as u32).to_le_bytes())?;
        for &axis in plan.info.shape.iter().rev() {
            sink.write(&(axis as u64).to_le_bytes())?;
        }
        sink.write(&plan.dtype().to_ggml().to_le_bytes())?;
        sink.write(&offset.to_le_bytes())?;
        offset += plan.bytes().next_multiple_of(file.alignment());
    }
    sink.pad(file.alignment())
}
