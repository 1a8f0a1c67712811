//! Unrelated work pays nothing for probe: the number of instructions that a system call takes is the same with and without
//! it. They can only be counted where QEMU's clock counts them: `cargo xtask vm --icount` runs this and prints the table.

use std::{
    env,
    ffi::CString,
    fs::{self, File},
    os::fd::{AsRawFd, IntoRawFd},
    path::{Path, PathBuf},
};

use probe_tests::{Daemon, Sandbox, Watch};

/// The least of so many calls: interrupts only ever add.
const CALLS: usize = 1000;
/// Any tracepoint on a system call makes every system call of every task dearer.
const TRACEPOINT: &str = "/sys/kernel/tracing/events/syscalls/sys_enter_getpid/enable";

/// A system call, and what it takes.
struct Cost {
    call: &'static str,
    instructions: u64,
    /// What it may take more while probe watches; for what is unrelated, nothing.
    more: u64,
}

/// A file in a watched directory tells its directory what happens to it; the directory's mark says that it is not interested.
const WATCHED_BESIDE: u64 = 400;

/// The clock of the machine, which moves by one with each instruction.
fn instructions() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: reads a counter.
    return unsafe { std::arch::x86_64::_rdtsc() };
    #[cfg(not(target_arch = "x86_64"))]
    panic!("only x86-64 has the counter that is read here");
}

/// What `call` takes at least; `prepare` is not counted.
fn least<T>(mut prepare: impl FnMut() -> T, mut call: impl FnMut(T)) -> u64 {
    let mut least = u64::MAX;
    for _ in 0..CALLS {
        let prepared = prepare();
        let before = instructions();
        call(prepared);
        least = least.min(instructions() - before);
    }
    least
}

/// `apart`: a file where nothing is watched; `beside`: one in the directory of a declared socket.
fn measure(apart: &Path, beside: &Path) -> [Cost; 6] {
    let close = |path: &Path| {
        least(
            || File::open(path).expect("a file").into_raw_fd(),
            |fd| {
                // SAFETY: the descriptor was just opened, for this call alone.
                unsafe { libc::close(fd) };
            },
        )
    };
    let read = |path: &Path| {
        let file = File::open(path).expect("a file");
        let mut bytes = [0_u8; 64];
        least(
            || (),
            |()| {
                // SAFETY: the buffer is as large as said.
                unsafe { libc::pread(file.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), 0) };
            },
        )
    };
    let unlinked = apart.with_extension("unlinked");
    let unlinked = CString::new(unlinked.as_os_str().as_encoded_bytes()).expect("a path");
    let unlink = least(
        || fs::write(unlinked.to_str().expect("a path"), "").expect("a file"),
        |()| {
            // SAFETY: the path ends with a NUL.
            unsafe { libc::unlink(unlinked.as_ptr()) };
        },
    );
    let getpid = least(
        || (),
        |()| {
            // SAFETY: takes nothing and gives a number.
            unsafe { libc::syscall(libc::SYS_getpid) };
        },
    );
    let cost = |call, instructions, more| Cost {
        call,
        instructions,
        more,
    };
    [
        cost("getpid", getpid, 0),
        cost("close", close(apart), 0),
        cost("read", read(apart), 0),
        cost("unlink", unlink, 0),
        cost("close beside a declared socket", close(beside), WATCHED_BESIDE),
        cost("read beside a declared socket", read(beside), WATCHED_BESIDE),
    ]
}

#[test]
fn system_calls_of_others_take_as_many_instructions_as_without_probe() {
    let Some(apart) = env::var_os("PROBE_TEST_ICOUNT").map(PathBuf::from) else {
        eprintln!("skipped: only `cargo xtask vm --icount` counts instructions");
        return;
    };
    let sandbox = Sandbox::new();
    let exe = Daemon::install(&sandbox, "annad");
    let (apart, beside) = (apart.join("file"), sandbox.write("file", &"x".repeat(64)));
    fs::write(&apart, "x".repeat(64)).expect("a file");
    // What the kernel sets up when something is done for the first time is no price.
    measure(&apart, &beside);
    let without = measure(&apart, &beside);

    let socket = sandbox.path("annad.sock");
    let listen = format!(
        "listen = [\"unix:{}\", \"tcp:127.0.0.1:1\", \"udp:127.0.0.1:1\"]\nexpected = false",
        socket.display()
    );
    let watch = Watch::start(&sandbox, &Daemon::service("annad", &exe, &listen));
    let mut daemon = Daemon::at(&exe).start();
    daemon.tell(&format!("listen unix:{}", socket.display()));
    watch.expect_event("listen", "annad", "of the declared socket", |_| true);
    let with = measure(&apart, &beside);
    daemon.kill("KILL");
    daemon.wait_gone();
    watch.expect_event("close", "annad", "of the declared socket", |_| true);
    watch.stop();

    // What a price looks like, so that a measurement which sees none is known to work.
    fs::write(TRACEPOINT, "1").expect("tracefs");
    let taxed = measure(&apart, &beside);
    fs::write(TRACEPOINT, "0").expect("tracefs");

    let mut wrong = Vec::new();
    for ((without, with), taxed) in without.iter().zip(&with).zip(&taxed) {
        let (call, more) = (without.call, without.more);
        let (without, with, taxed) = (without.instructions, with.instructions, taxed.instructions);
        println!("VM-COST {call}: {without} {with} {taxed}");
        if with > without + more {
            wrong.push(format!("{call}: {with} with probe, {without} without it"));
        }
        if taxed <= without {
            wrong.push(format!("{call}: a price that is not seen"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("; "));
}
