//! Where chromium is, and the command line that starts it: in a jail or not, with its own sandbox or not.
//!
//! Only composes commands; `chromium` runs them.

use std::{
    env,
    ffi::OsString,
    fs,
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{Error, Result};

use super::{Config, Jail};

/// Where distributions put the program itself. The names on `PATH` mostly are scripts around these.
const PROGRAMS: [&str; 6] = [
    "/usr/lib/chromium/chromium",
    "/usr/lib/chromium-browser/chromium-browser",
    "/usr/lib64/chromium-browser/chromium-browser",
    "/opt/google/chrome/chrome",
    "/opt/chromium/chrome",
    "/usr/lib/chromium/chrome",
];

/// Names on `PATH`, where they are programs.
const NAMES: [&str; 6] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "chrome-headless-shell",
];

/// Where the profile is within the jail.
const PROFILE: &str = "/profile";

/// A way to start chromium, from the safest to the last resort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Way {
    /// Within `bwrap`.
    pub(super) jailed: bool,
    /// With chromium's own sandbox around each page's process.
    pub(super) sandboxed: bool,
}

/// The ways that this config and this machine allow, the safest first.
pub(super) fn ways(config: &Config) -> Result<Vec<Way>> {
    let jail = config.jail != Jail::Off && on_path("bwrap").is_some();
    if config.jail == Jail::Required && !jail {
        let why = "`bwrap` is not there and `jail` is required; install the package bubblewrap";
        return Err(unavailable(why));
    }
    let open = config.jail != Jail::Required;
    // Chromium refuses to be root with its sandbox. In the jail it is an ordinary user, whoever starts it.
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    let all = [
        (jail, true, true),
        (jail, true, false),
        (open && !is_root, false, true),
        (open, false, false),
    ];
    Ok(all
        .into_iter()
        .filter(|(possible, ..)| *possible)
        .map(|(_, jailed, sandboxed)| Way { jailed, sandboxed })
        .collect())
}

/// Chromium's program.
pub(super) fn find(config: &Config) -> Result<PathBuf> {
    if let Some(binary) = &config.binary {
        let shown = binary.display();
        if !binary.is_file() {
            let why = format!("`binary` is {shown}, which is not there");
            return Err(unavailable(&why));
        }
        if !is_program(binary) {
            let why = format!(
                "`binary` is {shown}, which is no program but, for example, a script around it; name the program itself, as in {}",
                PROGRAMS[0]
            );
            return Err(unavailable(&why));
        }
        return absolute(binary);
    }
    let found = PROGRAMS
        .iter()
        .map(PathBuf::from)
        .chain(NAMES.iter().filter_map(|name| on_path(name)))
        .find(|path| is_program(path));
    match found {
        Some(path) => absolute(&path),
        None => Err(unavailable(
            "there is no chromium; install the package chromium, or name its program as `binary`",
        )),
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    path.canonicalize()
        .map_err(|error| unavailable(&format!("{} cannot be read: {error}", path.display())))
}

fn unavailable(why: &str) -> Error {
    let (capability, why) = ("browser", why.to_owned());
    Error::Unavailable { capability, why }
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

fn is_program(path: &Path) -> bool {
    let mut magic = [0; 4];
    let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    read.is_ok() && magic == *b"\x7fELF"
}

/// The command that starts chromium with its pipe on stdin and stdout and the profile in this folder.
pub(super) fn command(config: &Config, binary: &Path, profile: &Path, way: Way) -> Command {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", SHELL])
        .arg((config.memory_mib * 1_024).to_string());
    let seen = if way.jailed {
        command.arg(on_path("bwrap").unwrap_or_else(|| "bwrap".into()));
        command.args(jail(binary, profile));
        Path::new(PROFILE)
    } else {
        profile
    };
    command.arg(binary);
    command.args(FLAGS);
    command.arg(joined("--user-data-dir=", seen));
    if !way.sandboxed {
        command.arg("--no-sandbox");
    }
    command
        .env_clear()
        // Of no program: a page's `mailto:` link would start one.
        .env("PATH", seen)
        .env("HOME", seen)
        .env("TMPDIR", seen)
        .env("LANG", "C.UTF-8")
        .env("TZ", "UTC")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Puts the pipes where chromium wants them (it reads 3 and writes 4), which the standard library cannot, and limits the memory
/// of each process. It must be data, not address space: chromium reserves terabytes of the latter.
const SHELL: &str = r#"ulimit -d "$0" && ulimit -c 0 && exec "$@" 3<&0 4>&1 </dev/null >/dev/null"#;

/// `bwrap`'s arguments: the system's programs and fonts to read, the profile to write, an ordinary user, no network.
fn jail(binary: &Path, profile: &Path) -> Vec<OsString> {
    let mut all: Vec<OsString> = [
        "--unshare-all",
        "--unshare-user",
        "--uid",
        "65534",
        "--gid",
        "65534",
        "--die-with-parent",
        "--new-session",
        "--ro-bind",
        "/usr",
        "/usr",
    ]
    .map(OsString::from)
    .to_vec();
    for (option, paths) in [
        ("--ro-bind-try", ["/lib", "/lib64", "/bin"]),
        (
            "--ro-bind-try",
            ["/etc/fonts", "/etc/alternatives", "/etc/ld.so.cache"],
        ),
    ] {
        for path in paths {
            all.extend([option, path, path].map(OsString::from));
        }
    }
    if let (false, Some(folder)) = (binary.starts_with("/usr"), binary.parent()) {
        all.extend(["--ro-bind".into(), folder.into(), folder.into()]);
    }
    let memory = [
        "--proc", "/proc", "--dev", "/dev", "--size", SHARED, "--tmpfs", "/dev/shm",
    ];
    all.extend(memory.map(OsString::from));
    all.extend(["--size", SHARED, "--tmpfs", "/tmp"].map(OsString::from));
    all.extend(["--bind".into(), profile.into(), PROFILE.into(), "--".into()]);
    all
}

/// Most memory that chromium's processes share, and most of `/tmp`: 1 GiB each.
const SHARED: &str = "1073741824";

fn joined(flag: &str, path: &Path) -> OsString {
    let mut all = OsString::from(flag);
    all.push(path);
    all
}

const FLAGS: [&str; 31] = [
    "--headless",
    "--remote-debugging-pipe",
    "--no-startup-window",
    "--no-first-run",
    "--no-default-browser-check",
    "--window-size=640,480",
    "--force-device-scale-factor=1",
    "--hide-scrollbars",
    "--lang=en-US",
    "--mute-audio",
    "--noerrdialogs",
    "--use-mock-keychain",
    "--password-store=basic",
    // No network: no name resolves, addresses included, and the proxy that everything has to go through is one of those names.
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--proxy-server=http://nowhere.invalid:9",
    "--proxy-bypass-list=<-loopback>",
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
    // Nothing of its own to do.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-extensions",
    "--disable-sync",
    "--disable-breakpad",
    "--disable-gpu",
    "--disable-software-rasterizer",
    // Pages that nobody looks at run as any other.
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    // All frames of a page in one process, hence in one session: they share one fate, and what they may reach is the same.
    "--disable-site-isolation-trials",
    "--disable-features=IsolateOrigins,site-per-process,IsolateSandboxedIframes,BackForwardCache,Translate,MediaRouter,OptimizationHints,AutofillServerCommunication",
];
