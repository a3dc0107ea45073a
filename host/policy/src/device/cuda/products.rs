//! What serving and training launch alike: products with the adapters beside them, and the rotation of heads.

use super::memory::Grown;
use super::pages::Pages;
use super::{Cuda, Map, Site};
use crate::adapter::Projection;
use crate::error::Result;
use half::bf16;
use kernels::cuda::adapters::{Adapters, Part};
use kernels::cuda::gemm::{self, Beside};
use kernels::cuda::{lora, rope};

impl Cuda {
    /// Calls with the adapters beside a product, when rows of the pass have any.
    pub(super) fn beside<R>(
        &self,
        at: Site<'_, Cuda>,
        map: Map,
        then: impl FnOnce(Option<&Adapters<'_>>) -> Result<R>,
    ) -> Result<R> {
        let Some(segments) = at.plan.segments() else {
            return then(None);
        };
        let (parts, count) = map.parts(at.config);
        let parts = parts.map(|(projection, column)| Part {
            projection: at.layer * Projection::ALL.len() + projection as usize,
            outputs: column..column + projection.shape(at.config).0,
        });
        then(Some(&Adapters {
            table: &self.shared.table,
            segments,
            parts: &parts[..count],
        }))
    }

    /// A product of the pass's rows, with the adapters of those that have one.
    pub(super) fn product(
        &self,
        at: Site<'_, Cuda>,
        map: Map,
        x: &Grown<bf16>,
        inner: &mut [Grown<bf16>; 4],
        y: gemm::Output<'_, '_>,
    ) -> Result<()> {
        let (on, weights, rows) = (self.stream(), at.matrix(map), at.plan.rows);
        let operands = (x.view()?, weights.data.view());
        self.beside(at, map, |adapters| {
            let beside = match adapters {
                Some(adapters) => {
                    let len = rows * adapters.inner();
                    let u = &mut inner[map as usize];
                    lora::down(
                        on,
                        rows,
                        weights.map,
                        x.view()?,
                        adapters,
                        &mut u.fit(self, len)?,
                    )?;
                    Some(Beside {
                        adapters: *adapters,
                        inner: u.view()?,
                    })
                }
                None => None,
            };
            Ok(gemm::forward(on, rows, weights.map, operands, beside, y)?)
        })
    }

    /// The rotation of a layer's heads.
    pub(super) fn rotation<'a>(&self, at: Site<'a, Cuda>) -> Result<rope::Rotation<'a>> {
        let norms = at.weights.qk_norm.as_ref();
        Ok(rope::Rotation {
            heads: rope::Heads {
                heads: at.config.heads,
                kv_heads: at.config.kv_heads,
                head_dim: at.config.head_dim,
            },
            q_norm: norms.map(|(q, _)| q.view()),
            k_norm: norms.map(|(_, k)| k.view()),
            eps: at.config.rms_eps,
            table: at.angles.view(),
            positions: at.plan.positions.view()?,
        })
    }

    /// Rotates queries into `q`, and writes keys and values to the pages.
    pub(super) fn rotate(
        &self,
        at: Site<'_, Cuda>,
        pages: &Pages,
        qkv: &Grown<bf16>,
        q: &mut Grown<bf16>,
    ) -> Result<()> {
        let (rotation, table) = (self.rotation(at)?, at.plan.table()?);
        let mut layer = pages.layer(at.slot)?;
        let width = at.config.heads * at.config.head_dim;
        let mut q = q.fit(self, at.plan.rows * width)?;
        let mut cache = rope::Cache {
            layer: &mut layer,
            table,
            sequences: at.plan.sequences.view()?,
        };
        Ok(rope::forward(
            self.stream(),
            &rotation,
            qkv.view()?,
            &mut q,
            &mut cache,
        )?)
    }
}
