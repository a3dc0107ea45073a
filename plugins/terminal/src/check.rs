//! The command that a check runs on the machine: the functions that probes are written in, and what keeps the model out of them.
//!
//! Knows no task and no expectation: those never enter the machine. What comes back is read by [`Task::judge`](crate::task::Task::judge).

use crate::{
    task::{Look, Probe},
    world::quote,
};

/// The command that looks at every probe, in an environment of its own and from a folder that the model cannot write. It prints a line for
/// each, in which a newline is `%0A` and a percent sign `%25`: nothing that a file holds can pass for the line of another probe.
pub(crate) fn command(probes: &[Probe]) -> String {
    let mut script = PRELUDE.to_owned();
    for probe in probes {
        let lines = match &probe.look {
            Look::Path(path) => ["look ", &quote(path), "\nput\n"].concat(),
            Look::Snippet(snippet) => ["found=$(\n", snippet, "\n)\nput\n"].concat(),
        };
        script.push_str(&lines);
    }
    format!(
        "cd /usr && exec /usr/bin/env -i {CLEAN} /bin/bash --noprofile --norc -c {} </dev/null",
        quote(&script)
    )
}

/// A text as `put` writes it.
pub(crate) fn line(found: &str) -> String {
    found.replace('%', "%25").replace('\n', "%0A")
}

/// The check's environment. Attack: a `git` or `sed` of the model's own, a pager, a replaced commit, a start-up file of Python.
const CLEAN: &str = "PATH=/usr/local/bin:/usr/bin:/bin HOME=/nonexistent LC_ALL=C TZ=UTC PYTHONDONTWRITEBYTECODE=1 \
GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 GIT_NO_REPLACE_OBJECTS=1 GIT_GRAFT_FILE=/dev/null \
GIT_OPTIONAL_LOCKS=0 GIT_PAGER=cat";

/// `look PATH` finds what lies at a path below `/work` and `put` prints what was found as a line, both without a process of their own, since a check
/// may run after each command; `show PATH` and `plain FILE` print it. `members FILE` lists what an archive holds; `running` and `ended` look for
/// a process by its command, `command_of` by its id, `ended` with a moment's patience; `gitq FOLDER ..` asks git, without what a
/// repository's own config could run. Of a file at most 100,000 bytes are read, and never a pipe or a device.
const PRELUDE: &str = r#"exec 2>/dev/null
look() {
  local path="/work/$1" text=
  if [ -L "$path" ]; then found="link to $(readlink "$path")"
  elif [ -f "$path" ]; then IFS= read -r -N 100000 text <"$path"; found="file"$'\n'"$text"
  elif [ -d "$path" ]; then found=folder
  elif [ -e "$path" ]; then found='something else'
  else found=nothing; fi
}
put() {
  while [ "${found%$'\n'}" != "$found" ]; do found=${found%$'\n'}; done
  found=${found//%/%25}
  printf '%s\n' "${found//$'\n'/%0A}"
}
show() { look "$1"; printf '%s\n' "$found"; }
plain() { [ -f "/work/$1" ] && [ ! -L "/work/$1" ] && head -c 100000 "/work/$1"; }
members() {
  python3 -I -c '
import posixpath, sys, tarfile, zipfile
path = sys.argv[1]
found = {}
if zipfile.is_zipfile(path):
    kind = "zip"
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if not name.endswith("/"):
                found[posixpath.normpath(name)] = archive.read(name).decode()
else:
    with open(path, "rb") as file:
        kind = "tar.gz" if file.read(2) == b"\x1f\x8b" else "tar"
    with tarfile.open(path) as archive:
        for member in archive.getmembers():
            if member.isfile():
                found[posixpath.normpath(member.name)] = archive.extractfile(member).read().decode()
print(kind)
for name in sorted(found):
    print(name, len(found[name]))
    print(found[name], end="")
' "/work/$1"
}
running() {
  local words
  for words in /proc/[0-9]*/cmdline; do
    [ "$(tr '\0' ' ' <"$words")" = "$1 " ] && return 0
  done
  return 1
}
ended() {
  local try
  for try in 1 2 3 4; do running "$1" || return 0; sleep 0.05; done
  return 1
}
command_of() {
  case "$1" in ''|*[!0-9]*) return 1 ;; esac
  tr '\0' ' ' <"/proc/$1/cmdline"
}
gitq() { local at="/work/$1"; shift; git -c core.fsmonitor=false -c core.hooksPath=/dev/null -C "$at" "$@"; }
"#;

/// What `members` prints for an archive of this kind (`tar`, `tar.gz`, `zip`) with these files.
pub(crate) fn archive_listing(kind: &str, files: &[(String, String)]) -> String {
    let mut files = files.to_vec();
    files.sort();
    let mut listing = format!("{kind}\n");
    for (name, text) in files {
        listing.extend([name, format!(" {}\n", text.len()), text]);
    }
    listing.trim_end_matches('\n').to_owned()
}
