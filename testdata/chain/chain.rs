// The chain of chain.c in Rust, with values that are dropped on the way back.
use std::fs::OpenOptions;
use std::io::Write;
use std::time::Duration;

extern "C" {
    fn mmap(at: *mut u8, size: usize, prot: i32, flags: i32, fd: i32, offset: i64) -> *mut u8;
    fn madvise(at: *mut u8, size: usize, advice: i32) -> i32;
    fn clock_gettime(clock: i32, to: *mut [i64; 2]) -> i32;
}

// What comes out is what went in, unknown to the compiler.
fn hide<T: Copy>(v: T) -> T {
    unsafe { std::ptr::read_volatile(&v) }
}

#[inline(never)]
fn do_sleep(n: u64) -> u64 {
    for _ in 0..50 {
        std::thread::sleep(Duration::from_micros(200));
    }
    n + 1
}

#[inline(never)]
fn do_fault(n: u64) -> u64 {
    const PAGES: usize = 256;
    unsafe {
        let at = mmap(std::ptr::null_mut(), PAGES * 4096, 3, 0x22, -1, 0);
        madvise(at, PAGES * 4096, 15); // MADV_NOHUGEPAGE
        for i in 0..PAGES {
            at.add(i * 4096).write_volatile(n as u8);
        }
        n + u64::from(at.read_volatile())
    }
}

#[inline(never)]
fn do_spin(n: u64) -> u64 {
    let mut now = [0, 0];
    let mut sum = n;
    unsafe { clock_gettime(3, &mut now) }; // CLOCK_THREAD_CPUTIME_ID
    let end = now[0] * 1_000_000_000 + now[1] + 100_000_000;
    while now[0] * 1_000_000_000 + now[1] < end {
        unsafe { clock_gettime(3, &mut now) };
        for i in 0..100_000 {
            sum = hide(sum ^ i);
        }
    }
    sum
}

#[inline(never)]
fn do_write(n: u64) -> u64 {
    let mut out = OpenOptions::new().write(true).open("/dev/null").unwrap();
    for _ in 0..200 {
        out.write_all(b"x").unwrap();
    }
    n + 2
}

#[inline(never)]
fn link0(deed: fn(u64) -> u64, n: u64) -> u64 {
    deed(n).wrapping_add(n)
}

macro_rules! link {
    ($($name:ident $below:ident $size:expr),*) => {$(
        #[inline(never)]
        fn $name(deed: fn(u64) -> u64, n: u64) -> u64 {
            let kept = vec![hide(n); $size];
            let room = hide([n; $size]);
            let r = $below(deed, n.wrapping_mul(3) + 1);
            r ^ kept[$size - 1] ^ room[0] ^ n
        }
    )*};
}

link!(link1 link0 1, link2 link1 2, link3 link2 9, link4 link3 4, link5 link4 15, link6 link5 6, link7 link6 7, link8 link7 8,
    link9 link8 1, link10 link9 2, link11 link10 9, link12 link11 4, link13 link12 15, link14 link13 6, link15 link14 7,
    link16 link15 8, link17 link16 1, link18 link17 2, link19 link18 9, link20 link19 4, link21 link20 15, link22 link21 6,
    link23 link22 7, link24 link23 8, link25 link24 1, link26 link25 2, link27 link26 9, link28 link27 4, link29 link28 15,
    link30 link29 6, link31 link30 7, link32 link31 8, link33 link32 1, link34 link33 2, link35 link34 9, link36 link35 4,
    link37 link36 15, link38 link37 6, link39 link38 7, link40 link39 8);

fn main() {
    for deed in [do_sleep, do_fault, do_spin, do_write] {
        hide(link40(deed, hide(7)));
    }
}
