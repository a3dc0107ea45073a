//! What the stand-in driver was had done.
#![expect(unsafe_code, reason = "asks the stand-in driver")]

/// `Done` of kernels/emulator/driver.cpp.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Done {
    pub(crate) frees: u64,
    pub(crate) replays: u64,
    pub(crate) ran: u64,
    pub(crate) blocks: u64,
    pub(crate) deepest: u64,
    pub(crate) waits: u64,
    pub(crate) spins: u64,
}

/// What this thread has had done so far; none on another driver, which does not count. A driver is loaded.
pub(crate) fn done() -> Option<Done> {
    // SAFETY: a library under this name is loaded already.
    let library = unsafe { libloading::Library::new("libcuda.so") }.ok()?;
    // SAFETY: the type is that of `ns_done`.
    let ask = unsafe { library.get::<unsafe extern "C" fn(*mut Done)>(b"ns_done") }.ok()?;
    let mut done = Done::default();
    // SAFETY: it writes one `Done`.
    unsafe { ask(&raw mut done) };
    Some(done)
}
