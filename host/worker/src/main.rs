//! A worker without the rest of the host, for this crate's own tests: `worker-alone`, or `worker-alone probe`, which seals itself and then
//! tries, one a line, what a guest that broke out would.

use std::{
    fs::File,
    io::{self, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::net::UnixStream,
    process::Command,
    sync::OnceLock,
};

fn main() -> io::Result<()> {
    let argument = std::env::args().nth(1);
    if argument.is_some_and(|argument| argument == "probe") {
        return probe();
    }
    worker::run()
}

/// Asking who it is would be refused later.
static PARENT: OnceLock<Option<rustix::process::Pid>> = OnceLock::new();

type Attempt = fn() -> io::Result<()>;

fn probe() -> io::Result<()> {
    PARENT.get_or_init(rustix::process::getppid);
    worker::seal::seal(1 << 30)?;
    let attempts: [(&str, Attempt); 12] = [
        ("read a file", || File::open("/etc/passwd").map(drop)),
        ("write a file", || {
            File::create("/tmp/worker-probe").map(drop)
        }),
        ("list a folder", || std::fs::read_dir("/").map(drop)),
        ("listen", || TcpListener::bind("127.0.0.1:0").map(drop)),
        ("connect", || TcpStream::connect("127.0.0.1:80").map(drop)),
        ("send a datagram", || {
            UdpSocket::bind("127.0.0.1:0").map(drop)
        }),
        ("make a socket pair", || UnixStream::pair().map(drop)),
        ("run a program", || {
            Command::new("/bin/true").status().map(drop)
        }),
        ("signal its parent", || {
            use rustix::process::{Signal, kill_process};
            let parent = PARENT.get().copied().flatten();
            let parent = parent.ok_or(io::ErrorKind::NotFound)?;
            Ok(kill_process(parent, Signal::CONT)?)
        }),
        ("raise its own limit", || {
            use rustix::process::{Resource, Rlimit, setrlimit};
            let most = Rlimit {
                current: None,
                maximum: None,
            };
            Ok(setrlimit(Resource::Data, most)?)
        }),
        ("make a file without a name", || {
            use rustix::fs::{MemfdFlags, memfd_create};
            memfd_create("hoard", MemfdFlags::empty())?;
            Ok(())
        }),
        ("change its folder", || Ok(rustix::process::chdir("/tmp")?)),
    ];
    let mut out = io::stdout();
    for (what, attempt) in attempts {
        match attempt() {
            Ok(()) => writeln!(out, "{what}: done")?,
            Err(error) => writeln!(out, "{what}: {:?}", error.kind())?,
        }
    }
    // And what it needs still works.
    let sum = std::thread::spawn(|| (1..=10u64).sum::<u64>()).join();
    writeln!(out, "use a thread: {:?}", sum.ok())?;
    let memory = vec![1u8; 64 << 20];
    writeln!(
        out,
        "use memory: {}",
        memory.iter().map(|byte| u64::from(*byte)).sum::<u64>()
    )
}
