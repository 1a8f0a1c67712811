//! Signals, at the moment of sending: the only one at which the sender and the signal itself are both known.
//! (`signal_deliver` shows most fatal signals as 9.)

use aya_ebpf::{helpers::bpf_get_current_task, macros::raw_tracepoint, programs::RawTracePointContext};
use aya_log_ebpf::debug;
use probe_abi::{RecordKind, SignalRecord};

use super::{
    emit::emit,
    process::is_supervised,
    read::{Object, offset, setting},
    task,
};

/// State of a task between its making and its first wake-up.
const TASK_NEW: u32 = 0x800;
/// `SEND_SIG_NOINFO` and `SEND_SIG_PRIV` stand where a pointer to `kernel_siginfo` would.
const SEND_SIG_NOINFO: u64 = 0;
const SEND_SIG_PRIV: u64 = 1;
const SI_KERNEL: i32 = 0x80;
const SI_USER: i32 = 0;
const SI_QUEUE: i32 = -1;
const SI_TKILL: i32 = -6;

const SIGILL: u32 = 4;
const SIGTRAP: u32 = 5;
const SIGBUS: u32 = 7;
const SIGFPE: u32 = 8;
const SIGSEGV: u32 = 11;
const SIGPIPE: u32 = 13;
const SIGALRM: u32 = 14;
const SIGCHLD: u32 = 17;
const SIGURG: u32 = 23;
const SIGVTALRM: u32 = 26;
const SIGPROF: u32 = 27;
const SIGWINCH: u32 = 28;
const SIGIO: u32 = 29;
const SIG_DFL: u64 = 0;

/// TP_PROTO(int sig, struct kernel_siginfo *info, struct task_struct *task, int group, int result)
#[raw_tracepoint(tracepoint = "signal_generate")]
pub(super) fn signal_generate(ctx: RawTracePointContext) -> i32 {
    let target = Object(ctx.arg(2));
    let pid = task::pid(target);
    if !is_supervised(pid, target) && !is_newborn(target) {
        return 0;
    }
    let signal: u32 = ctx.arg(0);
    let info: u64 = ctx.arg(1);
    let code = match info {
        SEND_SIG_NOINFO => 0,
        SEND_SIG_PRIV => SI_KERNEL,
        _ => Object(info).read::<i32>(offset!(siginfo_code)),
    };
    // Other codes below zero are the kernel's: of a timer, of a message queue, of asynchronous input. The current task
    // is then whichever was running.
    let sent = info > SEND_SIG_PRIV && matches!(code, SI_USER | SI_QUEUE | SI_TKILL);
    // SAFETY: gives the current task, which lives as long as the program runs.
    let current = Object(unsafe { bpf_get_current_task() });
    let handler: u64 = target
        .follow(offset!(task_sighand))
        .inside(offset!(sighand_action))
        .inside(signal.wrapping_sub(1).wrapping_mul(setting!(sigaction_size)))
        .read(0);
    if is_noise(signal, handler, sent && task::pid(current) != pid) {
        return 0;
    }
    debug!(&ctx, "signal {} to {}", signal, pid);
    emit(RecordKind::Signal, |record: &mut SignalRecord| {
        task::describe(&raw mut record.target, target);
        record.target_tid = target.read(offset!(task_pid));
        record.signal = signal;
        record.code = code;
        record.group = ctx.arg(3);
        record.result = ctx.arg(4);
        record.handler = handler;
        record.blocked = target.read(offset!(task_blocked));
        if info > SEND_SIG_PRIV && code > 0 && matches!(signal, SIGILL | SIGBUS | SIGFPE | SIGSEGV) {
            record.fault_addr = Object(info).read(offset!(siginfo_addr));
        }
        if sent {
            record.has_sender = 1;
            task::describe(&raw mut record.sender, current);
            task::exe_path(&raw mut record.sender_exe, task::exe(current));
        }
    });
    0
}

/// A child can be signalled before its fork reaches the hook, by up to some 80 µs: then its parent is supervised. Until the
/// hook has run, it is not woken for the first time; what the state says costs strangers the least.
#[inline(always)]
fn is_newborn(target: Object) -> bool {
    if target.read::<u32>(offset!(task_state)) != TASK_NEW {
        return false;
    }
    let parent = target.follow(offset!(task_real_parent));
    is_supervised(task::pid(parent), parent)
}

/// What comes in floods and tells nothing:
/// - CHLD, URG, WINCH, which do nothing by default, unless another process sent them: a child ended, a Go program
///   preempts its own threads, a terminal changed its size;
/// - what a process brings on itself and has asked for or ignores: timers, broken pipes, input and faults that it
///   catches. With the default action they end it, and are reported. A signal that a terminal or a dying parent sends
///   (INT, HUP, TERM) comes from the kernel too, and is always reported.
///
/// CONT and the stop signals are always reported.
#[inline(always)]
fn is_noise(signal: u32, handler: u64, by_another: bool) -> bool {
    if by_another {
        return false;
    }
    match signal {
        SIGCHLD | SIGURG | SIGWINCH => true,
        SIGALRM | SIGVTALRM | SIGPROF | SIGPIPE | SIGIO | SIGILL | SIGTRAP | SIGBUS | SIGFPE | SIGSEGV => {
            handler != SIG_DFL
        }
        _ => false,
    }
}
