//! `branch` and `tag`: names for versions. A tag stays where it is; a branch may be moved.

use ledger::lineage::{RefKind, RefRecord};

use super::response::kind_name;
use super::workbench::Workbench;

/// Longest name, in bytes.
const LONGEST: usize = 64;

pub(crate) fn list(bench: &Workbench, kind: RefKind) -> anyhow::Result<Vec<RefRecord>> {
    let lineage = bench.lineage()?;
    let all = lineage.refs(bench.adapter_name());
    Ok(all.filter(|name| name.kind == kind).cloned().collect())
}

pub(crate) fn set(
    bench: &Workbench,
    kind: RefKind,
    name: &str,
    version: &str,
) -> anyhow::Result<Vec<RefRecord>> {
    check(name)?;
    let lineage = bench.lineage()?;
    let point = bench.point(&lineage, version)?;
    let mut refs = lineage.refs(bench.adapter_name());
    if let Some(there) = refs.find(|there| there.name == name) {
        let is = kind_name(there.kind);
        anyhow::ensure!(
            there.kind == kind,
            "`{name}` is a {is}; a name is one or the other"
        );
        anyhow::ensure!(
            kind == RefKind::Branch,
            "the tag `{name}` is there already and tags are not moved; --delete it first"
        );
    }
    record(bench, kind, name, Some(point.number()))?;
    list(bench, kind)
}

pub(crate) fn remove(
    bench: &Workbench,
    kind: RefKind,
    name: &str,
) -> anyhow::Result<Vec<RefRecord>> {
    let there = list(bench, kind)?;
    let what = kind_name(kind);
    anyhow::ensure!(
        there.iter().any(|there| there.name == name),
        "there is no {what} `{name}`"
    );
    record(bench, kind, name, None)?;
    list(bench, kind)
}

pub(crate) fn record(
    bench: &Workbench,
    kind: RefKind,
    name: &str,
    version: Option<u64>,
) -> anyhow::Result<()> {
    let record = RefRecord {
        name: name.to_owned(),
        kind,
        adapter: bench.adapter_name().to_owned(),
        version,
    };
    let order = loops::orders::Order::Name(record);
    super::moves::give(bench, order, &mut |_| Ok(())).map(drop)
}

/// A name that could be read as a version, or not be typed, is refused.
pub(crate) fn check(name: &str) -> anyhow::Result<()> {
    let digits = name.strip_prefix('v').unwrap_or(name);
    let number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let hash = name.len() >= 6 && name.bytes().all(|b| b.is_ascii_hexdigit());
    anyhow::ensure!(
        !number && !hash && !matches!(name, "head" | "base"),
        "`{name}` could be read as a version; take another name"
    );
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    anyhow::ensure!(
        (1..=LONGEST).contains(&name.len()) && name.chars().all(plain) && !name.starts_with('-'),
        "`{name}` is not a name: 1 to {LONGEST} letters, digits and -_./ are"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn a_name_that_could_be_read_as_a_version_or_not_be_typed_is_refused() {
        for good in ["good", "before-poison", "release/1.0", "vega", "abc12", "é"] {
            assert!(check(good).is_ok(), "{good}");
        }
        let long = "x".repeat(65);
        for bad in [
            "", "7", "v7", "head", "base", "abc123", "a b", "a~1", "-x", &long,
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
