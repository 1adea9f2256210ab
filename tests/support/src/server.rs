//! Start a server, ours or the reader's, watch it, and be certain that it ends.

use std::{
    collections::HashMap,
    env,
    ffi::OsString,
    fmt,
    fs::{self, File},
    io::{self, PipeReader, PipeWriter, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::{
        linux::net::SocketAddrExt,
        unix::{
            self,
            fs::OpenOptionsExt,
            net::UnixListener,
            process::{CommandExt, ExitStatusExt},
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt},
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        signal::{self, SigHandler, Signal},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::Pid,
};
use socket2::{Domain, Socket, Type};

use crate::{PATIENCE, Trouble, clock::Clock, proc_fs, skipped, wait_until};

/// How long a server may take to start. An interpreter on a busy machine needs more than a server that runs.
pub const START_PATIENCE: Duration = Duration::from_secs(60);

/// A server that a contract can judge: one of the milestones, or a program of the reader's.
#[derive(Clone, Debug)]
pub struct Program {
    name: String,
    source: Source,
    /// What every command line of this milestone begins with.
    options: Vec<OsString>,
    protocol: Protocol,
}

/// What a program speaks with its clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// What a client sends comes back to it.
    #[default]
    Echo,
    /// A client gives its name, and its lines go to the others.
    Chat,
    /// The answer to a request is the request.
    Http,
    /// HTTP, if the first read of a connection holds a whole request line; if not, echo.
    EchoOrHttp,
}

#[derive(Clone, Debug)]
enum Source {
    /// A milestone: its command line, banner and messages are known.
    Ours { binary: PathBuf },
    /// Anything that serves when it is started as `COMMAND PORT`.
    Foreign { command: String },
}

impl Program {
    /// What this run of a contract judges: the milestone `package`, built as `binary`, unless the
    /// environment names another program in `SERVER` (`SERVER="python3 my_server.py" cargo test -p
    /// …`), or another build of this milestone in `MILESTONE_BINARY`. Such a build is judged as
    /// ours, with its walls and its command line: so `cargo xtask bugs` has a contract judge the
    /// milestone with a bug in it, and need not compile the contract again.
    ///
    /// A contract calls it with `env!("CARGO_PKG_NAME")` and the path that
    /// `assert_cmd::cargo::cargo_bin!` gives.
    pub fn under_test(package: &str, binary: impl AsRef<Path>) -> Program {
        match env::var("SERVER") {
            Ok(command) if !command.trim().is_empty() => Program::foreign(&command),
            _ => match env::var_os("MILESTONE_BINARY") {
                Some(build) if !build.is_empty() => Program::ours(package, Path::new(&build)),
                _ => Program::ours(package, binary),
            },
        }
    }

    /// The milestone `package`, whatever `SERVER` says.
    pub fn ours(package: &str, binary: impl AsRef<Path>) -> Program {
        Program {
            name: package.to_owned(),
            source: Source::Ours {
                binary: binary.as_ref().to_owned(),
            },
            options: Vec::new(),
            protocol: Protocol::default(),
        }
    }

    /// Any program: a shell starts it as `command PORT`, so quotes and options may be part of
    /// `command`.
    pub fn foreign(command: &str) -> Program {
        Program {
            name: command.to_owned(),
            source: Source::Foreign {
                command: command.to_owned(),
            },
            options: Vec::new(),
            protocol: Protocol::default(),
        }
    }

    /// The same program, of which `protocol` is expected.
    pub fn speaking(mut self, protocol: Protocol) -> Program {
        self.protocol = protocol;
        self
    }

    /// The same milestone, started with these words on every command line. (A reader's program is
    /// started as `COMMAND PORT`, whatever they are.)
    pub fn with_options<A: Into<OsString>>(
        mut self,
        options: impl IntoIterator<Item = A>,
    ) -> Program {
        self.options.extend(options.into_iter().map(Into::into));
        self
    }

    /// Whether it can be started as it is to be judged: a reader's program takes no options. Where
    /// it cannot, the reader is told.
    pub fn can_be_started(&self) -> bool {
        let can = self.options.is_empty() || !self.is_foreign();
        if !can {
            skipped("only our own servers are told what to speak");
        }
        can
    }

    /// What it speaks.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The milestone's package, or the reader's command.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether this is the reader's program, of which only behaviour and mechanism are judged.
    pub fn is_foreign(&self) -> bool {
        matches!(self.source, Source::Foreign { .. })
    }

    /// The milestone's executable; `None` for the reader's program.
    pub fn binary(&self) -> Option<&Path> {
        match &self.source {
            Source::Ours { binary } => Some(binary),
            Source::Foreign { .. } => None,
        }
    }

    /// A server on a port of its own, listening when this returns.
    ///
    /// # Panics
    ///
    /// When it does not listen within [`START_PATIENCE`]; the message holds what it wrote.
    #[track_caller]
    pub fn start(&self) -> Server {
        self.start_with(Setup::default())
    }

    /// Like [`Program::start`], with other arguments, limits or standard output.
    ///
    /// # Panics
    ///
    /// When it does not listen within [`START_PATIENCE`], or `setup` asks for what only a milestone
    /// understands and the program is the reader's.
    #[track_caller]
    pub fn start_with(&self, setup: Setup) -> Server {
        match self.try_start_with(setup) {
            Ok(server) => server,
            Err(trouble) => panic!("{trouble}"),
        }
    }

    /// The same, for checks whose lesson is about the start itself.
    ///
    /// # Errors
    ///
    /// [`Trouble::Server`] when it does not listen within [`PATIENCE`].
    ///
    /// # Panics
    ///
    /// When `setup` asks for what only a milestone understands and the program is the reader's.
    pub fn try_start_with(&self, setup: Setup) -> Result<Server, Trouble> {
        raise_our_descriptor_limit();
        let_servers_hear_ctrl_c();
        // Only a milestone's banner can tell which port the kernel gave it.
        let port = match (setup.port, &self.source, setup.stdout) {
            (0, Source::Ours { .. }, StandardOutput::Collected) => 0,
            (0, ..) => free_port(),
            (port, ..) => port,
        };
        let (mut command, other_end) = self.command(&setup, port);
        let clock = setup
            .turned_clock
            .then(|| Clock::new().expect("a file in memory"));
        if let Some(clock) = &clock {
            clock.give(&mut command);
        }
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                let what = format!("cannot start {}: {error}\n  {command:?}", self.name);
                return Err(Trouble::Server(what));
            }
        };
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id fits in an i32"));
        // With this copy, a terminal would not end with the server.
        drop(command);
        let (stdout, unread) = match (child.stdout.take(), other_end) {
            (Some(pipe), _) => (Output::collect(pipe), None),
            (None, Some(OtherEnd::Terminal(master))) => (Output::collect(master), None),
            (None, Some(OtherEnd::Unread(reader))) => (Output::uncollected(), Some(reader)),
            (None, None) => (Output::uncollected(), None),
        };
        let stderr = child
            .stderr
            .take()
            .map_or_else(Output::uncollected, Output::collect);
        let mut server = Server {
            program: self.clone(),
            setup,
            pid,
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            process: Mutex::new(Process::Running(child)),
            stdout,
            stderr,
            clock,
            _unread: unread,
        };
        let addr = match port {
            0 => server.addr_from_banner(),
            _ => server.addr_from_kernel(port),
        };
        match addr {
            Ok(addr) => server.addr = addr,
            Err(what) => {
                server.kill();
                server.stderr.wait_for_end(Duration::from_secs(1));
                let wrote = match server.stderr() {
                    text if text.is_empty() => "it wrote nothing to standard error".to_owned(),
                    text => format!("it wrote to standard error:\n{}", indented(text.trim_end())),
                };
                let wrote = wrote.trim_end();
                return Err(Trouble::Server(format!("{what}; {wrote}")));
            }
        }
        Ok(server)
    }

    /// How to start it, and the other end of its standard output where the command itself does not
    /// have it.
    fn command(&self, setup: &Setup, port: u16) -> (Command, Option<OtherEnd>) {
        let limits = setup.limits();
        let redirect = match setup.stdout {
            StandardOutput::Closed => " >&-",
            _ => "",
        };
        let mut command = match &self.source {
            Source::Ours { binary } if limits.is_empty() && redirect.is_empty() => {
                let mut command = Command::new(binary);
                command
                    .args(&self.options)
                    .args(setup.options())
                    .arg(port.to_string());
                command
            }
            Source::Ours { binary } => {
                let mut command = Command::new("sh");
                command
                    .arg("-c")
                    .arg(format!("{limits}exec \"$0\" \"$@\"{redirect}"))
                    .arg(binary)
                    .args(&self.options)
                    .args(setup.options())
                    .arg(port.to_string());
                command
            }
            Source::Foreign { command: theirs } => {
                assert!(
                    setup.options().is_empty(),
                    "{theirs} is started as `$SERVER PORT`; it cannot be asked for {:?}",
                    setup.options()
                );
                let mut command = Command::new("sh");
                command
                    .arg("-c")
                    .arg(format!("{limits}exec {theirs} \"$0\"{redirect}"))
                    .arg(port.to_string())
                    .current_dir(directory_of(theirs));
                command
            }
        };
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        if setup.own_group {
            command.process_group(0);
        }
        let mut other_end = None;
        command.stdout(match setup.stdout {
            StandardOutput::Collected => Stdio::piped(),
            StandardOutput::Closed => Stdio::null(),
            StandardOutput::Full => Stdio::from(
                fs::OpenOptions::new()
                    .write(true)
                    .open("/dev/full")
                    .expect("every Linux has /dev/full"),
            ),
            StandardOutput::ReaderLeft => Stdio::from(io::pipe().expect("a pipe").1),
            StandardOutput::ReaderStopped => {
                let (reader, writer) = nearly_full_pipe().expect("a pipe");
                other_end = Some(OtherEnd::Unread(reader));
                Stdio::from(writer)
            }
            StandardOutput::Terminal => {
                let (master, terminal) = terminal().expect("a terminal");
                other_end = Some(OtherEnd::Terminal(master));
                Stdio::from(terminal)
            }
        });
        (command, other_end)
    }
}

/// Longest banner, in bytes, and fewer than a block of statistics has.
const A_BANNER: usize = 60;

/// What is at the other end of a server's standard output.
enum OtherEnd {
    /// A pipe that must stay open while the server runs, and that nobody reads.
    Unread(PipeReader),
    /// A terminal.
    Terminal(PtyMaster),
}

/// A terminal, and its other end. Neither is inherited by servers that start meanwhile.
fn terminal() -> io::Result<(PtyMaster, File)> {
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let terminal = File::options()
        .write(true)
        .custom_flags(OFlag::O_NOCTTY.bits())
        .open(ptsname_r(&master)?)?;
    Ok((master, terminal))
}

/// A pipe with room for [`A_BANNER`].
fn nearly_full_pipe() -> io::Result<(PipeReader, PipeWriter)> {
    let (reader, mut writer) = io::pipe()?;
    // As small as the kernel allows: a page.
    let capacity = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(1))?;
    let filling = usize::try_from(capacity).unwrap_or(0) - A_BANNER;
    writer.write_all(&vec![b'.'; filling])?;
    Ok((reader, writer))
}

/// How to start a server, where the defaults will not do.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    args: Vec<OsString>,
    bind: Option<String>,
    port: u16,
    soft_descriptors: Option<u64>,
    hard_descriptors: Option<u64>,
    stdout: StandardOutput,
    own_group: bool,
    turned_clock: bool,
}

/// Where the server's standard output goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StandardOutput {
    /// Into a pipe that is read at all times.
    #[default]
    Collected,
    /// Nowhere: the descriptor is closed, as after `>&-`.
    Closed,
    /// Into `/dev/full`, where every write fails with ENOSPC.
    Full,
    /// Into a pipe whose reader is gone, where every write fails with EPIPE.
    ReaderLeft,
    /// Into a pipe that nobody reads and that has room for [`A_BANNER`] and no more: the next write
    /// waits for ever.
    ReaderStopped,
    /// To a terminal, where it is read at all times. (The terminal ends each line with `\r\n`.)
    Terminal,
}

impl Setup {
    /// A server as [`Program::start`] starts it.
    pub fn new() -> Setup {
        Setup::default()
    }

    /// One more word on the milestone's command line, before the port.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Setup {
        self.args.push(arg.into());
        self
    }

    /// Words on the milestone's command line, before the port.
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Setup {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// The milestone's `--bind`.
    pub fn bind(mut self, addr: &str) -> Setup {
        self.bind = Some(addr.to_owned());
        self
    }

    /// This port, and not a free one.
    pub fn port(mut self, port: u16) -> Setup {
        self.port = port;
        self
    }

    /// The soft limit on descriptors (RLIMIT_NOFILE), which a program may raise for itself.
    pub fn soft_descriptors(mut self, limit: u64) -> Setup {
        self.soft_descriptors = Some(limit);
        self
    }

    /// The hard limit on descriptors, which only a privileged program may raise. The soft one is
    /// lowered with it.
    pub fn hard_descriptors(mut self, limit: u64) -> Setup {
        self.hard_descriptors = Some(limit);
        self
    }

    /// Where standard output goes.
    pub fn stdout(mut self, stdout: StandardOutput) -> Setup {
        self.stdout = stdout;
        self
    }

    /// In a process group of its own, so that Ctrl-C in the terminal does not reach it.
    pub fn in_its_own_group(mut self) -> Setup {
        self.own_group = true;
        self
    }

    /// With a clock that [`Server::turn_clock`] turns on.
    pub fn with_a_clock_to_turn(mut self) -> Setup {
        self.turned_clock = true;
        self
    }

    fn options(&self) -> Vec<OsString> {
        let bind = self
            .bind
            .iter()
            .flat_map(|addr| ["--bind".into(), addr.into()]);
        bind.chain(self.args.iter().cloned()).collect()
    }

    /// The shell that sets the limits, and then becomes the server: nothing else sets a child's
    /// limits without touching our own, which every test of this process shares.
    fn limits(&self) -> String {
        // The soft limit first: a hard limit below the soft one is refused.
        let soft = match (self.soft_descriptors, self.hard_descriptors) {
            (Some(soft), Some(hard)) => Some(soft.min(hard)),
            (soft, hard) => soft.or(hard),
        };
        if soft.is_none() {
            return String::new();
        }
        // What this program inherited, the server need not: each of them would take one from the
        // few.
        let mut script: String = (3..=9).map(|fd| format!("exec {fd}<&-; ")).collect();
        for (flag, limit) in [("-Sn", soft), ("-Hn", self.hard_descriptors)] {
            if let Some(limit) = limit {
                script += &format!("ulimit {flag} {limit} && ");
            }
        }
        script
    }
}

/// A running server. Dropping it kills it and waits for its end; when that happens in a failing
/// check, what it wrote and how it died are shown.
#[derive(Debug)]
pub struct Server {
    program: Program,
    setup: Setup,
    pid: Pid,
    addr: SocketAddr,
    process: Mutex<Process>,
    stdout: Output,
    stderr: Output,
    clock: Option<Clock>,
    /// The other end of its standard output, where nobody is to read it.
    _unread: Option<PipeReader>,
}

#[derive(Debug)]
enum Process {
    Running(Child),
    Ended(ExitStatus),
    /// Somebody else waited for it: a tracer in this process may.
    Reaped,
}

impl Server {
    /// The program that was started.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// How it was started.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// The server's process.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Where a client on this machine reaches it.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Waits until a line of standard error holds `part`, and gives that line.
    pub fn wait_for_stderr_line(&self, part: &str, within: Duration) -> Result<String, Trouble> {
        self.stderr
            .wait_for_line(part, within)
            .ok_or_else(|| self.never_wrote("standard error", part, &self.stderr, within))
    }

    /// Waits until a line of standard output holds `part`, and gives that line.
    pub fn wait_for_stdout_line(&self, part: &str, within: Duration) -> Result<String, Trouble> {
        self.stdout
            .wait_for_line(part, within)
            .ok_or_else(|| self.never_wrote("standard output", part, &self.stdout, within))
    }

    /// Sends a signal to the server's process.
    ///
    /// # Panics
    ///
    /// When it has ended.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        // While the lock is held nobody reaps it, so the process id cannot have become another's.
        let mut process = self.process();
        if let Some(end) = process.end() {
            panic!(
                "cannot send {signal} to {}: it had ended ({end})",
                self.program.name
            );
        }
        signal::kill(self.pid, signal).expect("our own child can be sent a signal");
    }

    /// SIGSTOP, and back when every thread has stopped: from now on the kernel queues what clients
    /// do, and the server sees all of it at once when [`Server::resume`] lets it go on.
    #[track_caller]
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
        wait_until("the server stopped", PATIENCE, || {
            // `T`: stopped by a signal. `t`: the same, while a tracer watches.
            self.states()
                .is_some_and(|states| states.iter().all(|state| matches!(state, 'T' | 't')))
        })
        .unwrap();
    }

    /// Turns the server's clock on by whole seconds when the server sleeps, and wakes it: the wait for events ends early
    /// (EINTR) when a process was stopped and goes on. Back when it sleeps again, so it has done what was due. Where no
    /// library can be loaded into the server, its clock is everybody's, and this takes as long as it says.
    ///
    /// # Errors
    ///
    /// [`Trouble::Never`], when it does not sleep.
    ///
    /// # Panics
    ///
    /// When the server was not started [with such a clock](Setup::with_a_clock_to_turn).
    #[track_caller]
    pub fn turn_clock(&self, by: Duration) -> Result<(), Trouble> {
        let clock = self.clock.as_ref().expect("a clock that can be turned");
        let sleeps = || wait_until("the server asleep", PATIENCE, || self.is_asleep());
        // A server that is awake may have asked for the time already, and not yet begun to wait for it to pass.
        sleeps()?;
        match Clock::is_used_by(self.pid) {
            true => {
                clock.turn(by).expect("a file in memory can be written to");
                self.pause();
                self.resume();
            }
            false => thread::sleep(by),
        }
        sleeps()
    }

    /// Whether every thread of the server sleeps at this moment: in a wait for events, or in a call
    /// that blocks. After a client's bytes have been acknowledged, a server that sleeps has either
    /// dealt with them or is not looking.
    pub fn is_asleep(&self) -> bool {
        self.states()
            .is_some_and(|states| states.iter().all(|state| *state == 'S'))
    }

    /// The system call in which the server's first thread sleeps, as one of `libc::SYS_*`; `None`
    /// while it runs.
    pub fn sleeps_in(&self) -> Option<libc::c_long> {
        // proc_pid_syscall(5): the number and six arguments, or "running".
        let call = fs::read_to_string(format!("/proc/{}/syscall", self.pid)).ok()?;
        call.split_whitespace().next()?.parse().ok()
    }

    /// Whether every descriptor that a limit of `limit` allows is taken. What the server inherited
    /// may have a number beyond it, and then costs nothing.
    pub fn has_used_up(&self, limit: u64) -> bool {
        let fds = format!("/proc/{}/fd", self.pid);
        let numbers = fs::read_dir(fds).into_iter().flatten().flatten();
        let below = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        below.filter(|number: &u64| *number < limit).count() as u64 == limit
    }

    /// How many descriptors the server has open.
    pub fn open_descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid)).map_or(0, Iterator::count)
    }

    /// SIGCONT: ends what [`Server::pause`] began.
    #[track_caller]
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Whether the process has ended.
    pub fn has_ended(&self) -> bool {
        self.process().end().is_some()
    }

    /// Waits for the server's end, and until all that it wrote is here.
    ///
    /// # Errors
    ///
    /// [`Trouble::Never`].
    pub fn wait_exit(&self, within: Duration) -> Result<ExitStatus, Trouble> {
        wait_until("the server ended", within, || self.has_ended())?;
        for output in [&self.stdout, &self.stderr] {
            // A child of its own may outlive it and keep the pipe open.
            output.wait_for_end(Duration::from_secs(1));
        }
        match *self.process() {
            Process::Ended(status) => Ok(status),
            _ => Err(Trouble::Server(
                "its exit status was taken by somebody else".to_owned(),
            )),
        }
    }

    /// SIGKILL, and back when it is gone, with every process that it had started.
    pub fn kill(&self) {
        let mut process = self.process();
        if process.end().is_some() {
            return;
        }
        // A command such as `npm start` only starts the server; its children would outlive it.
        let family = match self.program.source {
            Source::Ours { .. } => Vec::new(),
            Source::Foreign { .. } => proc_fs::family(self.pid).split_off(1),
        };
        if let Process::Running(child) = &mut *process {
            let _ = child.kill();
            *process = match child.wait() {
                Ok(status) => Process::Ended(status),
                Err(_) => Process::Reaped,
            };
        }
        for pid in family {
            let _ = signal::kill(pid, Signal::SIGKILL);
        }
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        // A check that panicked while it held the lock left nothing half done.
        self.process
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The states of the threads, as in the third field of `/proc/PID/task/TID/stat`; `None` when
    /// it is gone.
    fn states(&self) -> Option<Vec<char>> {
        let mut states = Vec::new();
        for task in fs::read_dir(format!("/proc/{}/task", self.pid)).ok()? {
            let stat = fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
            // The name before the state stands in parentheses and may hold anything, parentheses
            // too.
            let state = stat.rsplit_once(") ")?.1.chars().next()?;
            states.push(state);
        }
        Some(states)
    }

    /// The error says in words why there is none.
    fn addr_from_banner(&self) -> Result<SocketAddr, String> {
        let banner = match self.wait_for_stdout_line("", START_PATIENCE) {
            Ok(line) => line,
            Err(trouble) => {
                let name = &self.program.name;
                return Err(format!("{name} did not print its banner: {trouble}"));
            }
        };
        let port = banner
            .split_once("on port ")
            .and_then(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next())
            .and_then(|digits| digits.parse().ok())
            .filter(|&port: &u16| port != 0);
        let Some(port) = port else {
            return Err(format!(
                "the first line of {} names no port: {banner:?}\n  expected: … on port 40123 …",
                self.program.name
            ));
        };
        let ip = match &self.setup.bind {
            None => Ipv4Addr::LOCALHOST.into(),
            Some(bind) => match bind.parse().expect("checks start servers on addresses") {
                IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
                ip => ip,
            },
        };
        Ok(SocketAddr::new(ip, port))
    }

    /// The error says in words why there is none.
    fn addr_from_kernel(&self, port: u16) -> Result<SocketAddr, String> {
        let mut ip = None;
        let _ = wait_until("it listens", START_PATIENCE, || {
            ip = listening_at(port);
            ip.is_some() || self.has_ended()
        });
        match ip {
            Some(ip) => Ok(SocketAddr::new(ip, port)),
            None if self.program.is_foreign() => Err(format!(
                "{} does not listen on port {port}\n  \
                 It was started as `$SERVER PORT`, here `{} {port}`: the last word is the port to \
                 listen on, on 127.0.0.1 or on every address.",
                self.program.name, self.program.name
            )),
            None => Err(format!(
                "{} does not listen on port {port}",
                self.program.name
            )),
        }
    }

    fn never_wrote(&self, stream: &str, part: &str, output: &Output, within: Duration) -> Trouble {
        let wanted = match part {
            "" => "a line".to_owned(),
            part => format!("a line with {part:?}"),
        };
        let mut text = format!("{wanted} on its {stream} within {within:?}");
        match output.text() {
            written if written.is_empty() => text += "; it wrote nothing there",
            written => text += &format!("; it wrote there\n{}", indented(&written)),
        }
        if let Some(end) = self.process().end() {
            text += &format!("; it has ended ({end})");
        }
        Trouble::Never { what: text, within }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if thread::panicking() {
            let end = self.process().end();
            self.kill();
            match end {
                Some(end) => eprintln!(
                    "\nThe server ({}) had ended by itself: {end}.",
                    self.program.name
                ),
                None => eprintln!("\nThe server ({}) was still running.", self.program.name),
            }
            self.stderr.wait_for_end(Duration::from_secs(1));
            match self.stderr() {
                text if text.is_empty() => eprintln!("It wrote nothing to standard error."),
                text => eprintln!("It wrote to standard error:\n{}", indented(&text)),
            }
        } else {
            self.kill();
        }
    }
}

impl Process {
    /// How it ended; `None` while it runs.
    fn end(&mut self) -> Option<String> {
        if let Process::Running(child) = self {
            if !is_over(child) {
                return None;
            }
            match child.try_wait() {
                Ok(None) => return None,
                Ok(Some(status)) => *self = Process::Ended(status),
                Err(_) => *self = Process::Reaped,
            }
        }
        match self {
            Process::Running(_) => None,
            Process::Ended(status) => Some(explain_status(*status)),
            Process::Reaped => Some("its exit status was taken by a tracer".to_owned()),
        }
    }
}

/// Whether a child has ended, without taking anything: while a tracer of this process watches it,
/// `Child::try_wait` would take the tracer's stops, and hold one of them for the end (ptrace(2): a
/// traced child's stops are reported to every thread that waits).
fn is_over(child: &Child) -> bool {
    let pid = Pid::from_raw(child.id().cast_signed());
    let only_look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    match waitid(Id::Pid(pid), only_look) {
        Ok(status) => matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..)),
        // ECHILD: it is gone. EINVAL: it stopped at a real-time signal, which nix does not know.
        Err(errno) => errno == Errno::ECHILD,
    }
}

/// An exit status in words.
pub fn explain_status(status: ExitStatus) -> String {
    match (status.code(), status.signal().map(Signal::try_from)) {
        (Some(101), _) => "exit code 101: that is how a Rust program ends after a panic".to_owned(),
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(Ok(Signal::SIGPIPE))) => {
            "killed by SIGPIPE: it wrote to a connection whose client had gone, without \
             MSG_NOSIGNAL"
                .to_owned()
        }
        (None, Some(Ok(signal))) => format!("killed by {signal}"),
        (None, _) => status.to_string(),
    }
}

/// What a process writes, collected by a thread so that its pipe never fills up.
#[derive(Clone, Debug, Default)]
struct Output(Arc<(Mutex<Written>, Condvar)>);

#[derive(Debug, Default)]
struct Written {
    bytes: Vec<u8>,
    ended: bool,
}

impl Output {
    /// Of what goes elsewhere nothing comes.
    fn uncollected() -> Output {
        let output = Output::default();
        output.0.0.lock().unwrap().ended = true;
        output
    }

    fn collect(mut from: impl Read + Send + 'static) -> Output {
        let output = Output::default();
        let collector = output.clone();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let read = from.read(&mut buffer).unwrap_or(0);
                let (written, changed) = &*collector.0;
                let mut written = written.lock().unwrap();
                written.bytes.extend_from_slice(&buffer[..read]);
                written.ended = read == 0;
                changed.notify_all();
                if written.ended {
                    return;
                }
            }
        });
        output
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.0.lock().unwrap().bytes).into_owned()
    }

    fn wait_for_line(&self, part: &str, within: Duration) -> Option<String> {
        self.wait(within, |written| {
            let text = String::from_utf8_lossy(&written.bytes);
            let complete = text
                .split_inclusive('\n')
                .filter_map(|line| line.strip_suffix('\n'));
            complete
                .filter(|line| line.contains(part))
                .map(str::to_owned)
                .next()
        })
    }

    fn wait_for_end(&self, within: Duration) {
        self.wait(within, |written| written.ended.then_some(()));
    }

    fn wait<T>(&self, within: Duration, mut found: impl FnMut(&Written) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + within;
        let (written, changed) = &*self.0;
        let mut written = written.lock().unwrap();
        loop {
            if let Some(found) = found(&written) {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || written.ended {
                return None;
            }
            written = changed.wait_timeout(written, left).unwrap().0;
        }
    }
}

/// Gives SIGINT its default action again. A shell starts a command behind `&` with SIGINT ignored, and a
/// server would inherit that from us: what a test sends it would never arrive.
fn let_servers_hear_ctrl_c() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        #[allow(unsafe_code, reason = "a signal's action has no safe interface")]
        // SAFETY: the default action runs no code of ours.
        unsafe { signal::signal(Signal::SIGINT, SigHandler::SigDfl) }
            .expect("SIGINT has a default");
    });
}

/// Raises this process's soft limit on descriptors to the hard one, once: tests run side by side,
/// and hundreds of clients each are more than the common 1,024.
fn raise_our_descriptor_limit() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
            // If this fails, some test will say EMFILE.
            let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
        }
    });
}

/// A port that nobody uses, below those that the kernel hands out by itself: between our look and
/// the server's bind no client's connection can take it. Nor can another test: the port is ours
/// until this process ends.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    static TAKEN: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());
    let lowest_ephemeral = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|range| range.split_whitespace().next()?.parse::<u16>().ok())
        .unwrap_or(32_768);
    let ports = match lowest_ephemeral {
        low @ 12_000.. => 10_000..low,
        _ => 10_000..65_000,
    };
    // Test programs that run at the same time begin at different places.
    let offset = std::process::id() as usize * 97;
    for _ in 0..ports.len() {
        let step = offset + NEXT.fetch_add(1, Ordering::Relaxed) as usize;
        let port = ports.start + (step % ports.len()) as u16;
        if let Ok(claim) = claim_port(port)
            && can_bind(IpAddr::from(Ipv4Addr::UNSPECIFIED), port)
        {
            let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
            taken.push(claim);
            return port;
        }
    }
    panic!("no free port among {ports:?}");
}

/// Tells the other test programs that this port is ours, by a name that only one can have: abstract
/// socket names (unix(7)) live in the network namespace, as ports do, and end with their owner.
fn claim_port(port: u16) -> io::Result<UnixListener> {
    let name = unix::net::SocketAddr::from_abstract_name(format!("contract-test-port-{port}"))?;
    UnixListener::bind_addr(&name)
}

/// Whether nobody has `port`; no SO_REUSEADDR, so remains of old connections count as somebody.
fn can_bind(ip: IpAddr, port: u16) -> bool {
    let socket =
        Socket::new(Domain::for_address((ip, port).into()), Type::STREAM, None).expect("a socket");
    let is_free = socket.bind(&SocketAddr::new(ip, port).into()).is_ok();
    // A process that another thread is starting has a copy of this socket until it becomes the
    // program it will be, and would hold the port longer than we do: not against a server that sets
    // SO_REUSEADDR, if it is set here as well.
    socket
        .set_reuse_address(true)
        .expect("any socket takes this option");
    is_free
}

/// The address at which a client reaches the listener on `port`, from the kernel's own table:
/// connecting to find out would be an event for the server, and would spoil what some checks count.
pub(crate) fn listening_at(port: u16) -> Option<IpAddr> {
    let found = proc_fs::tcp_sockets(port)
        .into_iter()
        .find(|socket| socket.listens)?;
    Some(match found.local.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        // Most languages listen on every address of both families; IPV6_V6ONLY shows only in what
        // else may bind.
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
            let both_families = !can_bind(Ipv4Addr::LOCALHOST.into(), port);
            if both_families {
                Ipv4Addr::LOCALHOST.into()
            } else {
                Ipv6Addr::LOCALHOST.into()
            }
        }
        ip => ip,
    })
}

/// By client, the bytes that the kernel has received on the server's end of its connection and that
/// the server has not read.
pub(crate) fn unread_by_server(server: SocketAddr) -> HashMap<SocketAddr, usize> {
    proc_fs::tcp_sockets(server.port())
        .into_iter()
        .map(|socket| {
            let client = socket.remote.ip().to_canonical();
            (SocketAddr::new(client, socket.remote.port()), socket.unread)
        })
        .collect()
}

/// The directory in which the reader's command means what it meant where they typed it. Cargo runs
/// tests in the package's folder, so a relative path would miss.
fn directory_of(command: &str) -> PathBuf {
    let here = env::current_dir().unwrap_or_default();
    let workspace = workspace_root();
    let typed_in = env::var_os("PWD")
        .map(PathBuf::from)
        .filter(|dir| dir.is_absolute());
    let candidates = [typed_in, Some(workspace.clone()), Some(here)];
    let names_a_file_in = |dir: &PathBuf| {
        let mut words = words(command).into_iter().map(PathBuf::from);
        words.any(|word| word.is_relative() && dir.join(word).is_file())
    };
    candidates
        .into_iter()
        .flatten()
        .find(names_a_file_in)
        .unwrap_or(workspace)
}

/// The words of a command, as a shell splits them; without its rarer arts.
fn words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for c in command.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '\'' || c == '"' => quote = Some(c),
            None if c.is_whitespace() => words.push(String::new()),
            _ => words.last_mut().expect("never empty").push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The top folder of the repository.
pub fn workspace_root() -> PathBuf {
    let support = Path::new(env!("CARGO_MANIFEST_DIR"));
    support
        .ancestors()
        .nth(2)
        .expect("this crate lies in tests/support")
        .to_owned()
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, net::TcpListener, panic, sync::atomic::AtomicBool};

    use super::*;

    /// What a check that starts this command fails with.
    fn failure(command: &str) -> String {
        let program = Program::foreign(command);
        let failure = panic::catch_unwind(|| program.start()).expect_err("it is no server");
        let text = failure.downcast::<String>();
        *text.expect("a failure has a text")
    }

    #[test]
    fn a_command_that_does_not_listen_is_told_how_it_is_started() {
        let text = failure("true");
        assert!(text.starts_with("true does not listen on port "), "{text}");
        assert!(
            text.contains("started as `$SERVER PORT`, here `true "),
            "{text}"
        );
    }

    #[test]
    fn a_command_may_have_quotes_and_options() {
        // In place of a server, something that ends with the arguments' number.
        let program = Program::foreign("sh -c 'exit $#' - 'two words' third");
        let (mut command, _) = program.command(&Setup::new(), 9000);
        let status = command.status().expect("sh starts");
        assert_eq!(status.code(), Some(3), "'two words', third, and the port");
    }

    #[test]
    fn a_relative_path_means_a_file_of_this_repository() {
        let top = workspace_root();
        let command = "python3 -u 'tests/foreign/echo_epoll.py'";
        assert!(
            directory_of(command)
                .join("tests/foreign/echo_epoll.py")
                .is_file()
        );
        assert!(top.join("Cargo.toml").is_file());
        // Nothing relative in it: any directory would do.
        assert_eq!(directory_of("/usr/bin/env my_server"), top);
    }

    #[test]
    fn quotes_keep_words_together() {
        let split = words("python3  'my server.py' --name=\"it's mine\"");
        assert_eq!(split, ["python3", "my server.py", "--name=it's mine"]);
    }

    #[test]
    fn limits_reach_the_server_and_not_us() {
        let program =
            Program::foreign("sh -c 'test $(ulimit -Sn) = 40 && test $(ulimit -Hn) = 50'");
        let setup = Setup::new().soft_descriptors(40).hard_descriptors(50);
        let (mut command, _) = program.command(&setup, 9000);
        let status = command.status().expect("sh starts");
        assert!(status.success());
        let (_, ours) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_ne!(ours, 50);
    }

    #[test]
    fn ports_are_given_once() {
        let ports: HashSet<_> = (0..50).map(|_| free_port()).collect();
        assert_eq!(ports.len(), 50);
    }

    #[test]
    fn ports_are_free_while_other_tests_start_programs() {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let starting = scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    Command::new("true").status().expect("true starts");
                }
            });
            let taken = (0..2000).map(|_| free_port()).find_map(|port| {
                // With SO_REUSEADDR, as servers do.
                let listening = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
                Some((port, listening.err()?))
            });
            done.store(true, Ordering::Relaxed);
            starting.join().expect("starting does not panic");
            assert!(taken.is_none(), "{taken:?}");
        });
    }
}
