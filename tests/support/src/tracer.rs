//! Watches a server's system calls with ptrace(2), so that nothing has to be installed and no program has to help.
//!
//! A process belongs to the one thread that attached to it, so every tracer has a thread of its own, which does nothing
//! but wait for the server's next stop, note what it is, and let it go on. What it notes is shared: a check looks at the
//! calls made so far, or waits until they meet a condition.
//!
//! A tracer's stops are reported to every thread of its process that waits for the server with waitpid(2). So nobody may,
//! while it is attached, unless the server has ended: [`Server`] looks with WNOWAIT first.
//!
//! Attaching interrupts the server's wait once, with EINTR, as a debugger or SIGSTOP would (signal(7)). Detaching does
//! not disturb it at all.

use std::{
    collections::{HashMap, HashSet},
    io::IoSliceMut,
    mem::{offset_of, size_of},
    os::{fd::RawFd, unix::thread::JoinHandleExt},
    ptr,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, Once,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        ptrace,
        signal::{self, SaFlags, SigAction, SigHandler, SigSet, Signal},
        uio::{RemoteIoVec, process_vm_readv},
    },
    unistd::Pid,
};

use crate::{
    PATIENCE, Server, Trouble, proc_fs,
    proc_fs::Target,
    syscalls::{Call, Control, Kind, Outcome, Ready, first_fd, listing},
};

/// Most calls kept. A server that never rests would otherwise fill our memory.
const MOST_CALLS: usize = 2_000_000;

/// A server under observation, from [`Tracer::attach`] until it is dropped.
#[derive(Debug)]
pub struct Tracer {
    server: Pid,
    log: Arc<Log>,
    leave: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A place in the list of calls; the default is its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(usize);

#[derive(Debug, Default)]
struct Log {
    trace: Mutex<Trace>,
    changed: Condvar,
}

/// What was seen so far.
#[derive(Debug, Default)]
struct Trace {
    /// In the order in which they began.
    calls: Vec<Call>,
    /// Threads that run or wait, and those that a signal such as SIGSTOP has stopped.
    threads: HashMap<Pid, Thread>,
    /// The next call of this kind is to fail like this.
    planned: Option<(Kind, Errno)>,
    /// The server has ended.
    over: bool,
}

#[derive(Debug, Default)]
struct Thread {
    /// The call it is in, as an index into the calls.
    inside: Option<usize>,
    stopped: bool,
}

impl Tracer {
    /// Begins to watch a server: all its threads and children, and those that they start from now on.
    ///
    /// # Errors
    ///
    /// [`Trouble::Server`] when the kernel does not allow it, or the server has ended.
    pub fn attach(server: &Server) -> Result<Tracer, Trouble> {
        Tracer::attach_to(server.pid())
    }

    /// [`Tracer::attach`], by process.
    ///
    /// # Errors
    ///
    /// The same.
    pub fn attach_to(pid: Pid) -> Result<Tracer, Trouble> {
        make_waits_interruptible();
        let log = Arc::new(Log::default());
        let leave = Arc::new(AtomicBool::new(false));
        let (attached, on_attached) = mpsc::channel();
        let mut watcher = Watcher {
            server: pid,
            log: Arc::clone(&log),
            leave: Arc::clone(&leave),
            registrations: HashMap::new(),
            failing: HashMap::new(),
            unattached: HashSet::new(),
            on_attached: Some(attached),
        };
        let thread = thread::Builder::new()
            .name(format!("tracer of {pid}"))
            .spawn(move || watcher.run())
            .map_err(|error| Trouble::Server(format!("no thread for the tracer: {error}")))?;
        let tracer = Tracer {
            server: pid,
            log,
            leave,
            thread: Some(thread),
        };
        match on_attached.recv_timeout(PATIENCE) {
            Ok(Ok(())) => Ok(tracer),
            Ok(Err(errno)) => Err(refused(pid, errno)),
            Err(_) => Err(Trouble::Never {
                what: format!("process {pid} stopped for the tracer"),
                within: PATIENCE,
            }),
        }
    }

    /// The place after the last call that has begun.
    pub fn mark(&self) -> Mark {
        Mark(self.trace().calls.len())
    }

    /// The calls that began at or after `mark`.
    pub fn since(&self, mark: Mark) -> Vec<Call> {
        self.trace().calls[mark.0..].to_vec()
    }

    /// The calls that began at or after `from`, and before `to`.
    pub fn between(&self, from: Mark, to: Mark) -> Vec<Call> {
        self.trace().calls[from.0..to.0].to_vec()
    }

    /// The number of calls that began at or after `mark`.
    pub fn count_since(&self, mark: Mark) -> usize {
        self.trace().calls.len() - mark.0
    }

    /// Waits until the calls that began at or after `mark` meet `condition`, and gives them.
    ///
    /// # Errors
    ///
    /// [`Trouble::Never`] with `what` and the calls seen, when they do not within [`PATIENCE`].
    pub fn wait_for(
        &self,
        what: &str,
        mark: Mark,
        mut condition: impl FnMut(&[Call]) -> bool,
    ) -> Result<Vec<Call>, Trouble> {
        self.wait(what, mark, |trace| {
            let calls = &trace.calls[mark.0..];
            condition(calls).then(|| calls.to_vec())
        })
    }

    /// Waits until the server sleeps in `epoll_wait`, having finished what it was told before this call: no message may
    /// be on its way whose answer the caller has not received. Gives the place of that wait.
    ///
    /// # Errors
    ///
    /// [`Trouble::Never`].
    pub fn wait_until_resting(&self) -> Result<Mark, Trouble> {
        let what = "the server was back in epoll_wait, asleep";
        self.wait(what, Mark(0), |trace| {
            // A wait that was entered before the answer left is not the one meant: the thread is not in it any more.
            let waits = trace.threads.values().filter_map(|thread| thread.inside);
            let resting = waits
                .filter(|&index| trace.calls[index].is_resting())
                .max()?;
            let last_answer = trace.calls.iter().rposition(|call| call.kind == Kind::Send);
            (last_answer < Some(resting)).then_some(Mark(resting))
        })
    }

    /// SIGSTOP, and back when every thread has stopped: from now on the kernel queues what clients do, and the server
    /// sees all of it at once when [`Tracer::resume`] lets it go on. (To `/proc` a traced thread looks stopped at every
    /// system call; only its tracer can tell.)
    ///
    /// # Errors
    ///
    /// [`Trouble::Never`].
    pub fn pause(&self) -> Result<(), Trouble> {
        self.send(Signal::SIGSTOP)?;
        self.wait("the server stopped", self.mark(), |trace| {
            let mut threads = trace.threads.values();
            (threads.len() > 0 && threads.all(|thread| thread.stopped)).then_some(())
        })
    }

    /// SIGCONT: ends what [`Tracer::pause`] began.
    ///
    /// # Errors
    ///
    /// [`Trouble::Server`] when the server has ended.
    pub fn resume(&self) -> Result<(), Trouble> {
        self.send(Signal::SIGCONT)
    }

    /// The next call of this kind fails with `errno`, and does nothing. It is tampered with on its way into the kernel,
    /// which finds no such descriptor, and on its way back.
    pub fn fail_next(&self, kind: Kind, errno: Errno) {
        self.log.update(|trace| trace.planned = Some((kind, errno)));
    }

    fn send(&self, signal: Signal) -> Result<(), Trouble> {
        signal::kill(self.server, signal).map_err(|errno| {
            Trouble::Server(format!("cannot send {signal} to the server: {errno}"))
        })
    }

    fn trace(&self) -> MutexGuard<'_, Trace> {
        self.log.trace()
    }

    fn wait<T>(
        &self,
        what: &str,
        shown_from: Mark,
        mut found: impl FnMut(&Trace) -> Option<T>,
    ) -> Result<T, Trouble> {
        let deadline = Instant::now() + PATIENCE;
        let mut trace = self.trace();
        loop {
            if let Some(found) = found(&trace) {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || trace.over {
                let calls = &trace.calls[shown_from.0.max(trace.calls.len().saturating_sub(24))..];
                let end = if trace.over {
                    " (it ended while it was watched)"
                } else {
                    ""
                };
                return Err(Trouble::Never {
                    what: format!("{what}{end}; its last system calls:{}", listing(calls)),
                    within: PATIENCE,
                });
            }
            trace = self
                .log
                .changed
                .wait_timeout(trace, left)
                .unwrap_or_else(|poisoned| poisoned.into_inner())
                .0;
        }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        self.leave.store(true, Ordering::SeqCst);
        // The end of the tracing thread is what detaches: the kernel then lets the server go on from wherever it is,
        // while PTRACE_DETACH would need it stopped, which interrupts its wait. A signal gets the thread out of its own
        // wait; it may arrive in the moment before that wait begins, and so is repeated.
        while !thread.is_finished() {
            let _ = nix::sys::pthread::pthread_kill(thread.as_pthread_t(), WAKE_UP);
            thread::sleep(Duration::from_millis(1));
        }
        let _ = thread.join();
    }
}

impl Log {
    fn trace(&self) -> MutexGuard<'_, Trace> {
        // Only a condition given by a check can panic while it holds the lock, and conditions change nothing.
        self.trace
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn update(&self, change: impl FnOnce(&mut Trace)) {
        change(&mut self.trace());
        self.changed.notify_all();
    }
}

/// What interrupts a tracing thread's wait. Nobody else uses it, and its default is to be ignored.
const WAKE_UP: Signal = Signal::SIGURG;

/// Gives [`WAKE_UP`] a handler, without which it would be dropped instead of interrupting.
fn make_waits_interruptible() {
    extern "C" fn nothing(_: libc::c_int) {}
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // No SA_RESTART: interrupting is all it is for.
        let action = SigAction::new(
            SigHandler::Handler(nothing),
            SaFlags::empty(),
            SigSet::empty(),
        );
        #[allow(unsafe_code, reason = "a signal handler has no safe interface")]
        // SAFETY: the handler does nothing, so it may run at any moment.
        unsafe { signal::sigaction(WAKE_UP, &action) }.expect("SIGURG may be handled");
    });
}

fn refused(pid: Pid, errno: Errno) -> Trouble {
    let hint = match errno {
        Errno::EPERM => {
            "\n  In a container, allow it with `--cap-add=SYS_PTRACE`. Elsewhere, look at \
             /proc/sys/kernel/yama/ptrace_scope (2 and 3 forbid it), and whether a debugger or strace has it already."
        }
        Errno::ESRCH => "\n  It has ended.",
        _ => "",
    };
    Trouble::Server(format!("cannot trace process {pid}: {errno}{hint}"))
}

/// What runs in a tracing thread.
struct Watcher {
    server: Pid,
    log: Arc<Log>,
    leave: Arc<AtomicBool>,
    /// Which descriptor an epoll instance means by which token.
    registrations: HashMap<(RawFd, u64), RawFd>,
    /// Calls that are made to fail: how, and what their first argument was.
    failing: HashMap<Pid, (Errno, u64)>,
    /// Threads that were asked to stop for the first time and have not yet.
    unattached: HashSet<Pid>,
    /// Whom to tell that all threads are watched, until it was told.
    on_attached: Option<mpsc::Sender<Result<(), Errno>>>,
}

/// What a wait gave: a thread has stopped or ended.
struct Change {
    tid: Pid,
    /// How it stopped, as ptrace(2) describes it; `None` when it has ended.
    stop: Option<Stop>,
}

#[derive(Clone, Copy)]
enum Stop {
    /// At the beginning or the end of a system call.
    Syscall,
    /// SIGSTOP or another job-control signal has stopped the process.
    Group,
    /// This signal is about to be delivered.
    Signal(i32),
    /// A clone, fork, exec, the first stop of a thread, the end of a group stop.
    Event,
}

impl Watcher {
    fn run(&mut self) {
        let end = self.seize_all();
        if let Err(errno) = end {
            self.attached(Err(errno));
        }
        while end.is_ok() && !self.leave.load(Ordering::SeqCst) {
            match next_change() {
                Ok(Change {
                    tid,
                    stop: Some(stop),
                }) => self.handle(tid, stop),
                // The end of the server itself belongs to whoever started it: to take it here would leave nothing for
                // `Child::wait`.
                Ok(Change { tid, stop: None }) if tid == self.server => break,
                Ok(Change { tid, stop: None }) => {
                    consume(tid, libc::WEXITED);
                    self.note_attached(tid);
                    self.log.update(|trace| _ = trace.threads.remove(&tid));
                }
                Err(Errno::EINTR) => {}
                // ECHILD: nobody is left to wait for.
                Err(_) => break,
            }
        }
        self.attached(Err(Errno::ESRCH));
        self.log.update(|trace| trace.over = true);
    }

    fn attached(&mut self, result: Result<(), Errno>) {
        if let Some(to) = self.on_attached.take() {
            // Nobody listens when it took too long.
            let _ = to.send(result);
        }
    }

    /// Attaches to all threads of all processes of the server.
    fn seize_all(&mut self) -> Result<(), Errno> {
        let options = ptrace::Options::PTRACE_O_TRACESYSGOOD
            | ptrace::Options::PTRACE_O_TRACECLONE
            | ptrace::Options::PTRACE_O_TRACEFORK
            | ptrace::Options::PTRACE_O_TRACEVFORK
            | ptrace::Options::PTRACE_O_TRACEEXEC;
        // A thread that is not attached yet may start another: look until nobody is new.
        loop {
            let mut found_new = false;
            for process in proc_fs::family(self.server) {
                for tid in proc_fs::threads(process).unwrap_or_default() {
                    if self.log.trace().threads.contains_key(&tid) {
                        continue;
                    }
                    match ptrace::seize(tid, options) {
                        Ok(()) => {}
                        // A helper may be gone by now; the server may not. A new thread of an attached one is
                        // attached by the kernel, and refuses to be attached again.
                        Err(Errno::ESRCH | Errno::EPERM) if tid != self.server => continue,
                        Err(errno) => return Err(errno),
                    }
                    // Without this it would not stop at its system calls, and not even at its next one.
                    let _ = ptrace::interrupt(tid);
                    self.unattached.insert(tid);
                    self.log
                        .update(|trace| _ = trace.threads.entry(tid).or_default());
                    found_new = true;
                }
            }
            if !found_new {
                return match self.unattached.is_empty() {
                    true => Err(Errno::ESRCH),
                    false => Ok(()),
                };
            }
        }
    }

    /// A thread has stopped for the first time, or has ended before it could.
    fn note_attached(&mut self, tid: Pid) {
        if self.unattached.remove(&tid) && self.unattached.is_empty() {
            // Now: every thread stands still or is traced, so no registration is missed, and none is seen twice.
            for watch in proc_fs::watches(self.server).unwrap_or_default() {
                self.registrations
                    .insert((watch.epoll, watch.data), watch.fd);
            }
            self.attached(Ok(()));
        }
    }

    fn handle(&mut self, tid: Pid, stop: Stop) {
        self.note_attached(tid);
        match stop {
            Stop::Syscall => {
                self.note_syscall(tid);
                resume(libc::PTRACE_SYSCALL, tid, 0);
            }
            Stop::Group => {
                // PTRACE_LISTEN leaves it stopped, and tells us when SIGCONT comes. The order matters: whoever sees
                // it marked as stopped may send SIGCONT at once.
                resume(libc::PTRACE_LISTEN, tid, 0);
                self.log
                    .update(|trace| trace.threads.entry(tid).or_default().stopped = true);
            }
            Stop::Signal(signal) => resume(libc::PTRACE_SYSCALL, tid, signal),
            Stop::Event => {
                self.log
                    .update(|trace| trace.threads.entry(tid).or_default().stopped = false);
                resume(libc::PTRACE_SYSCALL, tid, 0);
            }
        }
    }

    /// The thread stands at the beginning or the end of a system call.
    #[allow(
        unsafe_code,
        reason = "a union, whose tag says which part is filled in"
    )]
    fn note_syscall(&mut self, tid: Pid) {
        let Ok(info) = ptrace::syscall_info(tid) else {
            return;
        };
        match info.op {
            libc::PTRACE_SYSCALL_INFO_ENTRY => {
                // SAFETY: `op` says that `entry` is filled in.
                let entry = unsafe { info.u.entry };
                self.note_entry(tid, entry.nr as i64, entry.args);
            }
            libc::PTRACE_SYSCALL_INFO_EXIT => {
                // SAFETY: `op` says that `exit` is filled in.
                let exit = unsafe { info.u.exit };
                self.note_exit(tid, exit.sval, exit.is_error != 0);
            }
            _ => {}
        }
    }

    fn note_entry(&mut self, tid: Pid, number: i64, args: [u64; 6]) {
        let kind = Kind::of(number, || {
            matches!(proc_fs::target(tid, first_fd(&args)), Ok(Target::Socket(_)))
        });
        let control = (kind == Kind::EpollCtl).then(|| {
            let (events, data) = match read_events(tid, args[3], 1).first() {
                Some(&event) if args[1] as i32 != libc::EPOLL_CTL_DEL => event,
                _ => (0, 0),
            };
            Control {
                operation: args[1] as i32,
                fd: args[2] as RawFd,
                events,
                data,
            }
        });
        let call = Call {
            tid,
            kind,
            number,
            args,
            outcome: Outcome::InProgress,
            ready: Vec::new(),
            control,
            sleeps: sleeps(tid, number, &args),
        };
        self.log.update(|trace| {
            if trace.calls.len() >= MOST_CALLS {
                return;
            }
            let index = trace.calls.len();
            trace.calls.push(call);
            trace.threads.entry(tid).or_default().inside = Some(index);
            let planned = trace.planned.take_if(|(planned, _)| *planned == kind);
            if let Some((_, errno)) = planned
                && change_registers(tid, |registers| *first_argument(registers) = u64::MAX)
            {
                self.failing.insert(tid, (errno, args[0]));
            }
        });
    }

    fn note_exit(&mut self, tid: Pid, mut value: i64, is_error: bool) {
        if let Some((errno, argument)) = self.failing.remove(&tid) {
            value = -i64::from(errno as i32);
            // The argument first: on aarch64 the result takes its place.
            change_registers(tid, |registers| {
                *first_argument(registers) = argument;
                *result(registers) = value.cast_unsigned();
            });
        }
        let mut trace = self.log.trace();
        let Some(index) = trace
            .threads
            .get_mut(&tid)
            .and_then(|thread| thread.inside.take())
        else {
            return;
        };
        let call = &mut trace.calls[index];
        call.outcome = match (is_error, -value) {
            (false, _) => Outcome::Returned(value),
            // ERESTARTSYS to ERESTART_RESTARTBLOCK: never seen by the program itself, only here.
            (true, 512..=516) => Outcome::Restarted,
            (true, errno) => Outcome::Failed(Errno::from_raw(errno as i32)),
        };
        let epoll = first_fd(&call.args);
        match (call.kind, call.control) {
            (Kind::Wait, _) if value > 0 && !is_error => {
                let events = read_events(tid, call.args[1], value as usize);
                let ready = events.into_iter().map(|(events, data)| Ready {
                    fd: self.registrations.get(&(epoll, data)).copied(),
                    events,
                    data,
                });
                call.ready = ready.collect();
            }
            (Kind::EpollCtl, Some(control))
                if !is_error && control.operation != libc::EPOLL_CTL_DEL =>
            {
                self.registrations.insert((epoll, control.data), control.fd);
            }
            _ => {}
        }
        drop(trace);
        self.log.changed.notify_all();
    }
}

/// Waits for the next stop or end of any thread that this thread traces, and of no other: __WNOTHREAD leaves the
/// servers of other tests to their own tracers.
fn next_change() -> Result<Change, Errno> {
    // First a look (WNOWAIT): what has ended may not be ours to take.
    let (tid, code, status) = wait(
        libc::P_ALL,
        0,
        libc::WSTOPPED | libc::WEXITED | libc::WNOWAIT,
    )?;
    if code != libc::CLD_TRAPPED {
        return Ok(Change { tid, stop: None });
    }
    consume(tid, libc::WSTOPPED);
    let (signal, event) = (status & 0xff, status >> 8);
    let stop = match (signal, event) {
        (signal, 0) if signal == libc::SIGTRAP | 0x80 => Stop::Syscall,
        (signal, 0) => Stop::Signal(signal),
        (libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU, _) => Stop::Group,
        _ => Stop::Event,
    };
    Ok(Change {
        tid,
        stop: Some(stop),
    })
}

/// Takes a change that has been looked at off the kernel's hands.
fn consume(tid: Pid, what: libc::c_int) {
    // It can be gone only when SIGKILL came in between, and then its end is the next change.
    let _ = wait(
        libc::P_PID,
        tid.as_raw() as libc::id_t,
        what | libc::WNOHANG,
    );
}

/// waitid(2): whose state changed, how (`CLD_*`), and the status that goes with it. nix knows no real-time signals, and
/// fails for a thread that stops at one.
fn wait(
    whose: libc::idtype_t,
    id: libc::id_t,
    options: libc::c_int,
) -> Result<(Pid, libc::c_int, libc::c_int), Errno> {
    let options = options | libc::__WALL | libc::__WNOTHREAD;
    #[allow(unsafe_code, reason = "see above: nix' own waitid is not enough")]
    // SAFETY: all bits zero is a siginfo_t; the kernel fills in the parts of SIGCHLD, which is what is read.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        Errno::result(libc::waitid(whose, id, &raw mut info, options))?;
        Ok((Pid::from_raw(info.si_pid()), info.si_code, info.si_status()))
    }
}

/// Lets a stopped thread go on, delivering `signal` to it if that is not 0.
fn resume(request: libc::c_uint, tid: Pid, signal: i32) {
    let no_address = ptr::null_mut::<libc::c_void>();
    let signal = ptr::without_provenance_mut::<libc::c_void>(signal as usize);
    #[allow(
        unsafe_code,
        reason = "nix has no PTRACE_LISTEN, and no real-time signals"
    )]
    // SAFETY: neither request touches our memory. ESRCH means that SIGKILL was faster.
    unsafe {
        libc::ptrace(request, tid.as_raw(), no_address, signal);
    }
}

/// Whether a wait or poll sleeps when nothing is ready.
fn sleeps(tid: Pid, number: i64, args: &[u64; 6]) -> bool {
    let milliseconds = |argument: u64| argument as i32 != 0;
    let timespec = |address: u64| {
        // No timespec means to wait for ever; one of all zeros, not at all. (A timeval is as long.)
        address == 0
            || read_memory(tid, address, size_of::<libc::timespec>())
                .iter()
                .any(|&byte| byte != 0)
    };
    match number {
        libc::SYS_epoll_pwait => milliseconds(args[3]),
        libc::SYS_epoll_pwait2 => timespec(args[3]),
        libc::SYS_ppoll => timespec(args[2]),
        libc::SYS_pselect6 => timespec(args[4]),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_epoll_wait => milliseconds(args[3]),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_poll => milliseconds(args[2]),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_select => timespec(args[4]),
        _ => false,
    }
}

/// Changes the registers of a stopped thread; `false` where that is not possible.
fn change_registers(tid: Pid, change: impl FnOnce(&mut libc::user_regs_struct)) -> bool {
    let Ok(mut registers) = ptrace::getregs(tid) else {
        return false;
    };
    change(&mut registers);
    ptrace::setregs(tid, registers).is_ok()
}

/// Where a system call finds its first argument.
fn first_argument(registers: &mut libc::user_regs_struct) -> &mut u64 {
    #[cfg(target_arch = "x86_64")]
    return &mut registers.rdi;
    #[cfg(target_arch = "aarch64")]
    return &mut registers.regs[0];
}

/// Where a system call leaves its result.
fn result(registers: &mut libc::user_regs_struct) -> &mut u64 {
    #[cfg(target_arch = "x86_64")]
    return &mut registers.rax;
    #[cfg(target_arch = "aarch64")]
    return &mut registers.regs[0];
}

/// Masks and tokens of an array of `epoll_event` in the server's memory.
fn read_events(tid: Pid, address: u64, count: usize) -> Vec<(u32, u64)> {
    // The structure is packed on x86-64 and nowhere else, so its own definition says where things are.
    const SIZE: usize = size_of::<libc::epoll_event>();
    const EVENTS: usize = offset_of!(libc::epoll_event, events);
    const DATA: usize = offset_of!(libc::epoll_event, u64);
    let memory = read_memory(tid, address, count * SIZE);
    memory
        .chunks_exact(SIZE)
        .filter_map(|event| {
            let events = u32::from_ne_bytes(*event[EVENTS..].first_chunk()?);
            let data = u64::from_ne_bytes(*event[DATA..].first_chunk()?);
            Some((events, data))
        })
        .collect()
}

/// Bytes of the server's memory; fewer where some are not mapped.
fn read_memory(tid: Pid, address: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let remote = RemoteIoVec {
        base: address as usize,
        len,
    };
    let read = process_vm_readv(tid, &mut [IoSliceMut::new(&mut bytes)], &[remote]).unwrap_or(0);
    bytes.truncate(read);
    bytes
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Write},
        process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    };

    use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};

    use super::*;
    use crate::wait_until;

    /// A program that does nothing until it is told to, and the pipes to it.
    fn start(script: &str) -> (Child, ChildStdin, BufReader<ChildStdout>, Pid) {
        let mut child = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let pid = Pid::from_raw(child.id().cast_signed());
        (child, stdin, stdout, pid)
    }

    /// Waits for the end as [`Server`] does. A tracer may still be there.
    fn exit_code(mut child: Child) -> Option<i32> {
        let only_look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        let pid = Pid::from_raw(child.id().cast_signed());
        wait_until("its end", PATIENCE, || {
            matches!(waitid(Id::Pid(pid), only_look), Ok(WaitStatus::Exited(..)))
        })
        .unwrap();
        child.wait().unwrap().code()
    }

    fn says(stdout: &mut BufReader<ChildStdout>, expected: &str) {
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), expected);
    }

    #[test]
    fn follows_children_and_leaves_the_exit_status_to_the_parent() {
        let (child, mut stdin, _stdout, pid) = start("read line; (exit 1); (exit 2); exit 7");
        let tracer = Tracer::attach_to(pid).unwrap();
        stdin.write_all(b"go\n").unwrap();
        tracer
            .wait_for("the exits of three processes", Mark::default(), |calls| {
                calls
                    .iter()
                    .filter(|call| call.name() == "exit_group")
                    .count()
                    == 3
            })
            .unwrap();
        let processes: HashSet<Pid> = tracer
            .since(Mark::default())
            .iter()
            .map(|call| call.tid)
            .collect();
        assert_eq!(processes.len(), 3);
        assert_eq!(exit_code(child), Some(7));
    }

    /// Not a test, but the program that the next one watches.
    #[test]
    #[ignore = "run by follows_threads_old_and_new"]
    fn starts_three_threads_when_told_to() {
        std::io::stdin().read_line(&mut String::new()).unwrap();
        let threads = [(); 3].map(|()| thread::spawn(|| thread::sleep(Duration::from_millis(1))));
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
    }

    #[test]
    fn follows_threads_old_and_new() {
        let this = std::env::current_exe().unwrap();
        let this = this.display();
        let (child, mut stdin, _stdout, pid) = start(&format!(
            "exec '{this}' --ignored starts_three_threads_when_told_to"
        ));
        // The harness runs it in a thread of its own: that one is there before the tracer.
        let is_ready = || proc_fs::threads(pid).is_ok_and(|threads| threads.len() > 1);
        wait_until("a second thread", PATIENCE, is_ready).unwrap();
        let tracer = Tracer::attach_to(pid).unwrap();
        stdin.write_all(b"go\n").unwrap();
        tracer
            .wait_for("three threads that sleep", Mark::default(), |calls| {
                let sleeping = calls
                    .iter()
                    .filter(|call| call.name().ends_with("nanosleep"));
                let sleeping: HashSet<Pid> = sleeping.map(|call| call.tid).collect();
                sleeping.len() == 3 && !sleeping.contains(&pid)
            })
            .unwrap();
        assert_eq!(exit_code(child), Some(0));
    }

    #[test]
    fn stops_and_goes_on_with_the_process() {
        let (child, mut stdin, mut stdout, pid) = start("while read line; do echo $line; done");
        let tracer = Tracer::attach_to(pid).unwrap();
        for _ in 0..10 {
            tracer.pause().unwrap();
            let stopped = tracer.mark();
            stdin.write_all(b"hello\n").unwrap();
            assert_eq!(
                tracer.count_since(stopped),
                0,
                "a stopped process makes no calls"
            );
            tracer.resume().unwrap();
            says(&mut stdout, "hello");
        }
        drop(stdin);
        assert_eq!(exit_code(child), Some(0));
    }

    #[test]
    fn comes_and_goes_without_a_trace() {
        let (child, mut stdin, mut stdout, pid) = start("while read line; do echo $line; done");
        for _ in 0..20 {
            let tracer = Tracer::attach_to(pid).unwrap();
            stdin.write_all(b"watched\n").unwrap();
            says(&mut stdout, "watched");
            assert!(tracer.count_since(Mark::default()) > 0);
            drop(tracer);
            stdin.write_all(b"alone\n").unwrap();
            says(&mut stdout, "alone");
        }
        drop(stdin);
        assert_eq!(exit_code(child), Some(0));
    }

    #[test]
    fn says_why_it_cannot_attach() {
        let (mut child, stdin, _stdout, pid) = start("read line");
        drop(stdin);
        child.wait().unwrap();
        let trouble = Tracer::attach_to(pid).unwrap_err();
        assert!(trouble.to_string().contains("It has ended."), "{trouble}");
    }
}
