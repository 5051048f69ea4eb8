//! Time and chance in a thread that simulates: what the C library says of both is made up, so that a run repeats itself.
//!
//! Clocks follow tokio's paused one; random bytes, and with them the order of hash tables, follow from the seed. In all
//! other threads both are the kernel's.

use std::cell::Cell;
use std::time::Duration;

use libc::{c_int, c_long, c_uint, c_void, clockid_t, size_t, ssize_t, timespec};
use tokio::time::Instant;

/// The time at which all runs begin, since 1970.
pub(super) const EPOCH: Duration = Duration::from_secs(2_000_000_000);

thread_local! {
    /// State of the source of chance, where there is one.
    static CHANCE: Cell<Option<u64>> = const { Cell::new(None) };
    /// When tokio's clock was started.
    static ORIGIN: Cell<Option<Instant>> = const { Cell::new(None) };
    static ASKING: Cell<bool> = const { Cell::new(false) };
}

/// This thread simulates from now on; it must be a fresh one.
pub(super) fn begin(seed: u64) {
    CHANCE.set(Some(seed));
}

/// Within a runtime with a paused clock: time follows it.
pub(super) fn follow_clock() {
    ORIGIN.set(Some(Instant::now()));
}

/// Time since the beginning.
fn elapsed() -> Duration {
    let Some(origin) = ORIGIN.get() else {
        return Duration::ZERO;
    };
    // Without a runtime tokio asks the clock that asks here.
    if ASKING.replace(true) {
        return Duration::ZERO;
    }
    let elapsed = Instant::now().saturating_duration_since(origin);
    ASKING.set(false);
    elapsed
}

/// SplitMix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// In place of the C library's.
///
/// # Safety
/// As of getrandom(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut c_void, len: size_t, flags: c_uint) -> ssize_t {
    let Ok(Some(mut state)) = CHANCE.try_with(Cell::get) else {
        // SAFETY: the caller's arguments go to the kernel as they are.
        return unsafe { libc::syscall(libc::SYS_getrandom, buffer, len, flags) as ssize_t };
    };
    // SAFETY: the caller gives `len` bytes to write to.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), len) };
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&next(&mut state).to_ne_bytes()[..chunk.len()]);
    }
    CHANCE.set(Some(state));
    len as ssize_t
}

/// In place of the C library's.
///
/// # Safety
/// As of clock_gettime(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int {
    if !matches!(CHANCE.try_with(Cell::get), Ok(Some(_))) {
        // SAFETY: the caller's arguments go to the kernel as they are.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as c_int };
    }
    let now = EPOCH + elapsed();
    let now = timespec {
        tv_sec: now.as_secs() as libc::time_t,
        tv_nsec: c_long::from(now.subsec_nanos() as i32),
    };
    // SAFETY: the caller gives a place for the time.
    unsafe { time.write(now) };
    0
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::SystemTime;

    use super::*;

    fn order() -> Vec<u32> {
        let order = || {
            begin(7);
            (0..100).collect::<HashSet<u32>>().into_iter().collect()
        };
        std::thread::spawn(order).join().unwrap()
    }

    #[test]
    fn tables_have_the_order_of_their_seed() {
        assert_eq!(order(), order());
    }

    #[test]
    fn clocks_follow_tokios() {
        let run = || {
            begin(7);
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async {
                follow_clock();
                let (real, steady) = (SystemTime::now(), std::time::Instant::now());
                tokio::time::sleep(Duration::from_secs(60)).await;
                let minute = Duration::from_secs(60);
                assert_eq!(
                    (real.elapsed().unwrap(), steady.elapsed()),
                    (minute, minute)
                );
            });
        };
        std::thread::spawn(run).join().unwrap();
    }
}
