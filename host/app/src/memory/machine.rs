//! What the machine has, or what its control group lets this process have of it.

use std::path::Path;

/// Most bytes, and in words whose limit that is; none where the system does not say.
pub(super) fn most() -> Option<(u64, &'static str)> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let (groups, memory) = (read("/proc/self/cgroup"), read("/proc/meminfo"));
    let group = group(&groups, Path::new("/sys/fs/cgroup"))
        .map(|most| (most, "its control group lets it have"));
    let machine = total(&memory).map(|most| (most, "this machine has"));
    // The smaller one binds; of two that are alike, the group's.
    group
        .into_iter()
        .chain(machine)
        .min_by_key(|(most, _)| *most)
}

fn total(memory: &str) -> Option<u64> {
    let line = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// The tightest limit of the groups that this process is in, in the first or the second version of control groups.
fn group(groups: &str, root: &Path) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?.trim_start_matches('/'));
        let (top, file) = if controllers.is_empty() {
            (root.to_path_buf(), "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            (root.join("memory"), "memory.limit_in_bytes")
        } else {
            return None;
        };
        // A container sees its own group as the top, though the path is the machine's.
        let above = Path::new(path)
            .ancestors()
            .map(|part| top.join(part).join(file));
        above.filter_map(|file| limit(&file)).min()
    });
    limits.min()
}

fn limit(file: &Path) -> Option<u64> {
    // "max", or in the first version a number near 2^63, is none.
    let bytes: u64 = std::fs::read_to_string(file).ok()?.trim().parse().ok()?;
    (bytes < 1 << 60).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_limit_on_the_way_up_counts_in_both_versions() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let put = |path: &str, text: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("a/b/memory.max", "max\n");
        put("a/memory.max", "3000\n");
        put("memory/x/memory.limit_in_bytes", "2000\n");
        put("memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(group("0::/a/b\n", root), Some(3000));
        assert_eq!(group("0::/a/b\n4:cpu,memory:/x\n", root), Some(2000));
        assert_eq!(group("4:memory:/not/here\n", root), None);
        assert_eq!(group("4:cpu:/x\n", root), None);
        assert_eq!(total("MemTotal:  100 kB\nMemFree: 1 kB\n"), Some(102_400));
        assert_eq!(total(""), None);
    }
}
