//! Log-probs of given tokens, and of those that were sampled, by the same kernels.

use super::memory::Grown;
use super::{Cuda, Matrix};
use crate::error::{Error, Result};
use half::bf16;
use kernels::cuda::output::{self, Head, Normalizer, Targets, Work};
use kernels::cuda::{Buffer, Stream};
use kernels::softmax::{self, Target};

/// What a pass leaves for its gradient; its memory serves the next pass, too.
#[derive(Default, Debug)]
pub(crate) struct Output {
    targets: Option<Targets>,
    /// With the rows and targets that it has room for.
    work: Option<([usize; 2], Work)>,
    /// Of each row.
    inverse: Grown<f32>,
    normalizers: Grown<Normalizer>,
    /// Of each target.
    found: Grown<f32>,
    upstream: Grown<f32>,
}

impl Output {
    pub(super) fn log_probs(
        &mut self,
        device: &Cuda,
        x: &Grown<bf16>,
        w: &Matrix,
        targets: &[Target],
        temperature: f32,
        out: &mut [f32],
    ) -> Result<()> {
        let (on, gpu) = (device.stream(), device.gpu());
        let (rows, vocabulary) = (x.len() / w.map.inputs, w.map.outputs);
        let inverse = inverse(temperature)?;
        let tokens: Vec<u32> = targets.iter().map(|t| t.token).collect();
        let mut begins = vec![0; rows + 1];
        for target in targets {
            begins[target.row + 1] += 1;
        }
        for row in 0..rows {
            begins[row + 1] += begins[row];
        }
        let of = |row: usize| &tokens[begins[row]..begins[row + 1]];
        let asked = [rows, targets.len()];
        let (room, mut work) = match self.work.take() {
            Some((room, work)) if room[0] >= asked[0] && room[1] >= asked[1] => (room, work),
            _ => (asked, Work::new(gpu, rows, vocabulary, asked[1])?),
        };
        device.put(&vec![inverse; rows], &mut self.inverse)?;
        let targets = match self.targets.take() {
            Some(mut targets) => targets
                .replace(on, vocabulary, (0..rows).map(of))
                .map(|()| targets)?,
            None => Targets::upload(on, vocabulary, (0..rows).map(of))?,
        };
        let mut normalizers = self.normalizers.fit(device, rows)?;
        let mut found = self.found.fit(device, asked[1])?;
        let head = head(x, w, &self.inverse)?;
        output::log_probs(on, head, &targets, &mut work, &mut normalizers, &mut found)?;
        on.read(self.found.view()?, out)?;
        self.targets = Some(targets);
        self.work = Some((room, work));
        Ok(())
    }

    pub(super) fn backward(
        &mut self,
        device: &Cuda,
        x: &Grown<bf16>,
        w: &Matrix,
        upstream: &[f32],
        dx: &mut Grown<f32>,
    ) -> Result<()> {
        let (Some(targets), Some((_, work))) = (&self.targets, &mut self.work) else {
            return Err(refuse(
                "forward pass",
                "there is one before its gradient",
                0.0,
            ));
        };
        device.put(upstream, &mut self.upstream)?;
        let mut dx = dx.fit(device, x.len())?;
        let head = head(x, w, &self.inverse)?;
        Ok(output::backward(
            device.stream(),
            head,
            targets,
            self.normalizers.view()?,
            self.upstream.view()?,
            work,
            &mut dx,
        )?)
    }
}

fn head<'a>(x: &'a Grown<bf16>, w: &'a Matrix, inverse: &'a Grown<f32>) -> Result<Head<'a>> {
    Ok(Head {
        hidden: x.view()?,
        weights: w.data.view(),
        inverse_temperature: inverse.view()?,
    })
}

/// Space for one row.
#[derive(Debug)]
pub(super) struct One {
    logits: Buffer<f32>,
    inverse: Buffer<f32>,
    work: Work,
    normalizer: Buffer<Normalizer>,
}

impl One {
    fn new(on: &Stream, vocabulary: usize) -> Result<One> {
        let gpu = on.gpu();
        Ok(One {
            logits: gpu.buffer(vocabulary)?,
            inverse: gpu.buffer(1)?,
            work: Work::new(gpu, 1, vocabulary, 1)?,
            normalizer: gpu.buffer(1)?,
        })
    }
}

/// The normalizer of logits that are in the host's memory.
pub(super) fn normalizer(
    device: &Cuda,
    one: &mut Option<One>,
    logits: &[f32],
    temperature: f32,
) -> Result<softmax::Normalizer> {
    let (on, vocabulary) = (device.stream(), logits.len());
    let inverse = inverse(temperature)?;
    let mut space = match one.take() {
        Some(space) if space.logits.len() == vocabulary => space,
        _ => One::new(on, vocabulary)?,
    };
    on.write(logits, &mut space.logits.view_mut())?;
    on.write(&[inverse], &mut space.inverse.view_mut())?;
    let of = (space.logits.view(), space.inverse.view());
    let to = &mut space.normalizer.view_mut();
    output::normalizers(on, of.0, vocabulary, of.1, &mut space.work, to)?;
    let found = on.download(space.normalizer.view())?;
    *one = Some(space);
    let Normalizer { max, log_sum } = found.first().copied().unwrap_or_default();
    Ok(softmax::Normalizer::new(max, log_sum, inverse))
}

pub(super) fn inverse(temperature: f32) -> Result<f32> {
    if temperature > 0.0 && temperature.is_finite() {
        return Ok(1.0 / temperature);
    }
    Err(refuse(
        "temperature",
        "it must be positive",
        f64::from(temperature),
    ))
}

fn refuse(what: &'static str, rule: &'static str, found: f64) -> Error {
    let op = "policy.cuda";
    Error::Compute(kernels::Error::Argument {
        op,
        what,
        rule,
        found,
    })
}
