//! The boundaries of INIT: a USDT probe, `initprof:checkpoint(name, length)`,
//! which costs a nop where nobody listens, and a line where `DD_LOG_LEVEL` is
//! `debug`.

use std::{
    env,
    sync::{Mutex, OnceLock},
    time::Instant,
};

struct Log {
    start: Instant,
    previous: Mutex<Instant>,
    debug: bool,
}

static LOG: OnceLock<Log> = OnceLock::new();

/// Starts the clock of the log.
pub fn start() {
    let start = Instant::now();
    let debug = env::var("DD_LOG_LEVEL").is_ok_and(|level| level.eq_ignore_ascii_case("debug"));
    let log = LOG.get_or_init(|| Log { start, previous: Mutex::new(start), debug });
    if log.debug {
        let n = std::thread::available_parallelism().map_or(0, usize::from);
        eprintln!("DD_EXTENSION | DEBUG | checkpoint available_parallelism={n}");
    }
}

/// A checkpoint is reached.
pub fn reach(name: &'static str) {
    probe(name.as_ptr(), name.len());
    let Some(log) = LOG.get().filter(|log| log.debug) else { return };
    let now = Instant::now();
    let Ok(mut previous) = log.previous.lock() else { return };
    let delta = (now - *previous).as_secs_f64() * 1e3;
    let since = (now - log.start).as_secs_f64() * 1e3;
    *previous = now;
    eprintln!("DD_EXTENSION | DEBUG | checkpoint {name} delta_ms={delta:.6} since_main_ms={since:.6}");
}

/// The last checkpoint, and the line that an extension prints.
pub fn ready(settings: usize) {
    reach("ready");
    let Some(log) = LOG.get() else { return };
    let ms = log.start.elapsed().as_secs_f64() * 1e3;
    eprintln!("DD_EXTENSION | INFO | {settings} settings");
    eprintln!("DD_EXTENSION | INFO | rust-extension ready in {ms:.3} ms");
}

/// The probe, as sys/sdt.h describes it: a nop, and a note with its address, the
/// provider, the name and where the arguments are.
#[inline(never)]
fn probe(name: *const u8, length: usize) {
    macro_rules! note {
        ($arguments:literal, $first:tt, $second:tt) => {
            // SAFETY: it is a nop.
            unsafe {
                std::arch::asm!(
                    "990: nop",
                    ".pushsection .note.stapsdt,\"\",\"note\"",
                    ".balign 4",
                    ".4byte 992f-991f, 994f-993f, 3",
                    "991: .asciz \"stapsdt\"",
                    "992: .balign 4",
                    "993: .8byte 990b, _.stapsdt.base, 0",
                    ".asciz \"initprof\"",
                    ".asciz \"checkpoint\"",
                    concat!(".asciz \"", $arguments, "\""),
                    "994: .balign 4",
                    ".popsection",
                    // Where the linker put this byte tells how far the notes moved.
                    ".ifndef _.stapsdt.base",
                    ".pushsection .stapsdt.base,\"aGR\",\"progbits\",.stapsdt.base,comdat",
                    ".weak _.stapsdt.base",
                    ".hidden _.stapsdt.base",
                    "_.stapsdt.base: .space 1",
                    ".size _.stapsdt.base, 1",
                    ".popsection",
                    ".endif",
                    in($first) name,
                    in($second) length,
                    options(nostack, readonly, preserves_flags),
                )
            }
        };
    }
    #[cfg(target_arch = "x86_64")]
    note!("8@%rdi 8@%rsi", "rdi", "rsi");
    #[cfg(target_arch = "aarch64")]
    note!("8@x0 8@x1", "x0", "x1");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = (name, length);
}
