//! File systems in memory that have an end.

use std::ffi::CString;

use rustix::{
    io::{Errno, Result},
    mount::{MountFlags, mount},
};

/// Bytes for each file that may exist: what a page takes.
const BYTES_A_FILE: u64 = 4_096;

/// Files that may exist however few bytes there are: a folder takes none, and a copy of a small repository is mostly folders.
const FILES: u64 = 1_024;

/// Mounts one, for `owner`. Within the jail's mounts.
pub(super) fn mount_memory(place: &str, owner: u32, bytes: u64, mode: u32) -> Result<()> {
    let files = bytes / BYTES_A_FILE + FILES;
    let options = format!("size={bytes},nr_inodes={files},mode={mode:o},uid={owner},gid={owner}");
    let options = CString::new(options).map_err(|_| Errno::INVAL)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("tmpfs", place, "tmpfs", flags, options.as_c_str())
}
