//! Two versions' updates of the base weights compared, layer by layer ([`policy::compare`]).

use policy::compare::{Change, compare as changes};

use super::response::{Delta, Weights};
use super::workbench::{Point, Workbench};

pub(crate) fn compare(bench: &Workbench, a: &Point, b: &Point) -> anyhow::Result<Weights> {
    let (a, b) = (bench.adapter(a)?, bench.adapter(b)?);
    let config = bench.loaded()?.model.config();
    let found = changes(config, a.as_deref(), b.as_deref())?;
    let layers = found.layers.iter().map(|layer| delta(layer.total));
    Ok(Weights {
        all: delta(found.total),
        layers: layers.collect(),
    })
}

fn delta(change: Change) -> Delta {
    Delta {
        norm_a: change.norm_a,
        norm_b: change.norm_b,
        difference: change.norm_difference,
        cosine: change.cosine,
    }
}
