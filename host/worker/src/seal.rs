//! What a worker process gives up before it sees a component: limits of the kernel, and nearly all of its calls.
//!
//! What stays is memory, threads, time, random bytes, and reading and writing what is open already: its socket to the host, its
//! standard error. There is no call left that opens a file, makes a socket, starts a program, or looks at another process.

use std::io;

/// Gives it up, for every thread of this process and for good.
///
/// # Errors
/// The kernel refuses; the worker must not go on then.
#[cfg(target_os = "linux")]
pub fn seal(memory_bytes: u64) -> io::Result<()> {
    linux::limit(memory_bytes)?;
    linux::filter().map_err(io::Error::other)
}

/// There is no such thing on this system.
///
/// # Errors
/// Always.
#[cfg(not(target_os = "linux"))]
pub fn seal(_memory_bytes: u64) -> io::Result<()> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "worker processes need Linux: they are sealed by its system call filter",
    ))
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{collections::BTreeMap, io};

    use rustix::process::{
        DumpableBehavior, Resource, Rlimit, Signal, getrlimit, set_dumpable_behavior,
        set_parent_process_death_signal, setpriority_process, setrlimit,
    };
    use seccompiler::{
        BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
        SeccompFilter, SeccompRule, TargetArch, apply_filter_all_threads,
    };

    /// Serving comes first when a guest keeps a core busy.
    const NICE: i32 = 5;

    const OPEN_FILES: u64 = 64;

    pub(super) fn limit(memory_bytes: u64) -> io::Result<()> {
        let most = |resource, most: u64| {
            // Whoever started the host may have allowed less.
            let allowed = getrlimit(resource).maximum.unwrap_or(most);
            let most = most.min(allowed);
            let limit = Rlimit {
                current: Some(most),
                maximum: Some(most),
            };
            setrlimit(resource, limit).map_err(io::Error::from)
        };
        most(Resource::Core, 0)?;
        most(Resource::Fsize, 0)?;
        most(Resource::Nofile, OPEN_FILES)?;
        // Not the address space: instances reserve far more of it than they ever use.
        most(Resource::Data, memory_bytes)?;
        set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        // It ends with the host, even should a guest have kept it from noticing.
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // Being less nice than the host is a favour; not being allowed to be is no reason to stop.
        let _ = setpriority_process(None, NICE);
        Ok(())
    }

    fn arch() -> Result<TargetArch, Error> {
        Ok(std::env::consts::ARCH.try_into()?)
    }

    pub(super) fn filter() -> Result<(), Error> {
        // Of two filters that refuse, the later one's word counts: this one, which says that two calls are absent, comes first, and the other
        // allows them. Without `clone3`, whose arguments are behind a pointer where no filter sees them, the C library uses `clone`; without
        // `memfd_create`, whose files count towards no limit of a process, wasmtime copies a memory's first state.
        let absent = SeccompFilter::new(
            BTreeMap::from([
                (libc::SYS_clone3, Vec::new()),
                (libc::SYS_memfd_create, Vec::new()),
            ]),
            SeccompAction::Allow,
            SeccompAction::Errno(errno(libc::ENOSYS)),
            arch()?,
        )?;
        let allowed = SeccompFilter::new(
            rules()?,
            SeccompAction::Errno(errno(libc::EPERM)),
            SeccompAction::Allow,
            arch()?,
        )?;
        for filter in [absent, allowed] {
            let program: BpfProgram = filter.try_into()?;
            apply_filter_all_threads(&program)?;
        }
        Ok(())
    }

    fn errno(number: i32) -> u32 {
        number.unsigned_abs()
    }

    type Rules = BTreeMap<libc::c_long, Vec<SeccompRule>>;

    fn rules() -> Result<Rules, Error> {
        let mut rules: Rules = ALWAYS.iter().map(|call| (*call, Vec::new())).collect();
        let when = |argument, operator, value| -> Result<_, Error> {
            let length = SeccompCmpArgLen::Qword;
            let condition = SeccompCondition::new(argument, length, operator, value)?;
            Ok(SeccompRule::new(vec![condition])?)
        };
        let wide = |number: i32| u64::from(number.unsigned_abs());
        // Threads, not processes.
        let thread = wide(libc::CLONE_THREAD | libc::CLONE_VM | libc::CLONE_SIGHAND);
        rules.insert(
            libc::SYS_clone,
            vec![when(0, SeccompCmpOp::MaskedEq(thread), thread)?],
        );
        // Private memory, which the limit of data counts; what is shared or grows downwards it does not.
        let kind = wide(libc::MAP_TYPE | libc::MAP_GROWSDOWN);
        rules.insert(
            libc::SYS_mmap,
            vec![when(
                3,
                SeccompCmpOp::MaskedEq(kind),
                wide(libc::MAP_PRIVATE),
            )?],
        );
        // Not those that take pages from the whole machine.
        rules.insert(
            libc::SYS_madvise,
            vec![when(2, SeccompCmpOp::Le, wide(libc::MADV_COLLAPSE))?],
        );
        // Plain sending and receiving: out-of-band data and addresses are code of the kernel that nothing here needs.
        rules.insert(libc::SYS_recvfrom, vec![when(3, SeccompCmpOp::Eq, 0)?]);
        rules.insert(
            libc::SYS_sendto,
            vec![
                when(3, SeccompCmpOp::Eq, 0)?,
                when(3, SeccompCmpOp::Eq, wide(libc::MSG_NOSIGNAL))?,
            ],
        );
        // A thread's name, and names of memory.
        rules.insert(
            libc::SYS_prctl,
            vec![
                when(0, SeccompCmpOp::Eq, wide(libc::PR_SET_NAME))?,
                when(0, SeccompCmpOp::Eq, wide(libc::PR_SET_VMA))?,
            ],
        );
        // Reading a limit, for the size of a stack; not setting one.
        rules.insert(libc::SYS_prlimit64, vec![when(2, SeccompCmpOp::Eq, 0)?]);
        // Which pages were written to: how a used memory is cleaned.
        rules.insert(
            libc::SYS_ioctl,
            vec![when(1, SeccompCmpOp::Eq, PAGEMAP_SCAN)?],
        );
        // A signal to itself is how a process aborts.
        let own = u64::from(std::process::id());
        rules.insert(libc::SYS_tgkill, vec![when(0, SeccompCmpOp::Eq, own)?]);
        // Closing on exec and asking for flags, as the standard library does with a file that is open.
        rules.insert(
            libc::SYS_fcntl,
            vec![
                when(1, SeccompCmpOp::Eq, wide(libc::F_GETFD))?,
                when(1, SeccompCmpOp::Eq, wide(libc::F_GETFL))?,
                when(1, SeccompCmpOp::Eq, wide(libc::F_DUPFD_CLOEXEC))?,
            ],
        );
        Ok(rules)
    }

    /// `_IOWR('f', 16, struct pm_scan_arg)`
    const PAGEMAP_SCAN: u64 = 0xc060_6610;

    const ALWAYS: &[libc::c_long] = &[
        libc::SYS_read,
        libc::SYS_readv,
        libc::SYS_pread64,
        libc::SYS_write,
        libc::SYS_writev,
        libc::SYS_pwrite64,
        libc::SYS_close,
        libc::SYS_lseek,
        libc::SYS_fstat,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_mprotect,
        libc::SYS_madvise,
        libc::SYS_mincore,
        libc::SYS_brk,
        libc::SYS_membarrier,
        libc::SYS_futex,
        libc::SYS_set_robust_list,
        libc::SYS_set_tid_address,
        libc::SYS_rseq,
        // Said to be absent by the other filter.
        libc::SYS_clone3,
        libc::SYS_memfd_create,
        libc::SYS_exit,
        libc::SYS_exit_group,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sigaltstack,
        libc::SYS_restart_syscall,
        libc::SYS_sched_yield,
        libc::SYS_sched_getaffinity,
        libc::SYS_getpid,
        libc::SYS_gettid,
        libc::SYS_getcpu,
        libc::SYS_clock_gettime,
        libc::SYS_clock_getres,
        libc::SYS_clock_nanosleep,
        libc::SYS_nanosleep,
        libc::SYS_gettimeofday,
        libc::SYS_getrandom,
    ];

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_filters_compile_for_this_machine() {
            let calls = rules().unwrap();
            assert!(!calls.contains_key(&libc::SYS_openat));
            assert!(!calls.contains_key(&libc::SYS_socket));
            assert!(!calls.contains_key(&libc::SYS_execve));
        }
    }
}
