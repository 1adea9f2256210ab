//! A clock that a check can turn on while a server runs, so that 30 seconds are over in a moment.
//!
//! A server that is started with this library in `LD_PRELOAD` (ld.so(8)) finds its `clock_gettime` before that of the C
//! library. It gives what the kernel gives, and adds to CLOCK_MONOTONIC as many seconds as the file that `TURNED_CLOCK`
//! names says at that moment. Without the variable it adds nothing.

use std::{env, ffi::c_int, fs::File, os::unix::fs::FileExt, sync::OnceLock};

/// The environment variable that names the file, which holds the seconds as eight bytes in the machine's order
/// (`tests/support/src/clock.rs` writes both).
const CLOCK: &str = "TURNED_CLOCK";

/// Seconds that the clock was turned on by so far.
fn turned() -> i64 {
    static FILE: OnceLock<Option<File>> = OnceLock::new();
    let file = FILE.get_or_init(|| File::open(env::var_os(CLOCK)?).ok());
    let mut seconds = [0; 8];
    match file {
        Some(file) if file.read_exact_at(&mut seconds, 0).is_ok() => i64::from_ne_bytes(seconds),
        _ => 0,
    }
}

/// clock_gettime(2).
///
/// # Safety
///
/// As the C library's: `now` points to what may be written.
#[allow(
    unsafe_code,
    reason = "a function of the C library can be replaced by another of its name and kind only"
)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, now: *mut libc::timespec) -> c_int {
    // SAFETY: the kernel checks both, and writes to `now` what it gives.
    let outcome = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, now) };
    if outcome == 0 && clock == libc::CLOCK_MONOTONIC {
        // SAFETY: the kernel has just written there.
        unsafe { (*now).tv_sec += turned() };
    }
    outcome as c_int
}
