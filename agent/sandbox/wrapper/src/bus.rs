//! The message bus as a `standard` task finds it. The wrapper holds a socket that stands for the bus's in the
//! task's mount namespace; when somebody connects, it starts this program once more in another mode, which
//! accepts the connections, and passes on between them and the bus what [`sandbox::bus`] allows. That
//! process never had the task's secrets, has no privileges but to connect as the user who asked, and ends
//! with the wrapper.

use std::ffi::OsStr;
use std::fs::Permissions;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::{Gid, Uid, getegid, geteuid, setgroups, setresgid, setresuid};
use sandbox::bus::Filter;

use crate::privileges;

/// The first argument of this mode; the second is the path of the bus's socket.
pub(crate) const ARGUMENT: &str = "--message-bus";

/// How many connections a task has at once; more wait in the kernel's queue. `systemctl` has one.
const MAX_CONNECTIONS: usize = 32;

/// Bytes that are read at once, and above which in one direction no more is read: the other side is slow.
const PIECE: usize = 16 * 1024;

/// The wrapper's side: the socket, and then the process that serves it.
#[derive(Debug)]
pub(crate) struct Door {
    socket: PathBuf,
    place: PathBuf,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nobody has come.
    Closed(UnixListener),
    /// The process serves until this closes.
    Open { _alive: OwnedFd },
    /// It could not be started.
    Broken,
}

impl Door {
    /// Makes the socket in the run's directory, `place`, for the bus whose socket is this. `None` when
    /// there is no bus.
    pub(crate) fn make(socket: &Path, place: PathBuf) -> io::Result<Option<Self>> {
        if !socket.exists() {
            return Ok(None);
        }
        // By way of a descriptor: the address of a socket is short, the path of a directory need not be.
        let directory = std::fs::File::open(place.parent().unwrap_or(&place))?;
        let name = place.file_name().unwrap_or_default();
        let short = PathBuf::from(format!(
            "/proc/self/fd/{}",
            std::os::fd::AsRawFd::as_raw_fd(&directory)
        ))
        .join(name);
        let listener = UnixListener::bind(short)?;
        // Who may talk to the bus is the bus's to say; the directory is closed to all but the agent.
        std::fs::set_permissions(&place, Permissions::from_mode(0o666))?;
        Ok(Some(Self {
            socket: socket.to_owned(),
            place,
            state: State::Closed(listener),
        }))
    }

    /// Where the socket lies.
    pub(crate) fn place(&self) -> &Path {
        &self.place
    }

    /// Takes the socket away: nobody is left who could use it. Not done on drop: a copy of this process
    /// drops it too, while the task is only being made.
    pub(crate) fn close(self) -> io::Result<()> {
        std::fs::remove_file(&self.place)
    }

    /// What to poll for reading, until the first connection.
    pub(crate) fn waits_on(&self) -> Option<BorrowedFd<'_>> {
        match &self.state {
            State::Closed(listener) => Some(listener.as_fd()),
            State::Open { .. } | State::Broken => None,
        }
    }

    /// Starts the process that serves the socket, if somebody has come.
    pub(crate) fn open(&mut self) -> io::Result<()> {
        let State::Closed(listener) = &self.state else {
            return Ok(());
        };
        let mut wait = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        match poll(&mut wait, PollTimeout::ZERO) {
            Ok(0) | Err(Errno::EINTR) => return Ok(()),
            Ok(_) => {}
            Err(errno) => return Err(errno.into()),
        }
        match std::mem::replace(&mut self.state, State::Broken) {
            State::Closed(listener) => {
                self.state = State::Open {
                    _alive: serve_elsewhere(&self.socket, listener)?,
                };
            }
            state @ (State::Open { .. } | State::Broken) => self.state = state,
        }
        Ok(())
    }
}

/// Starts the process; it ends when what is returned closes.
fn serve_elsewhere(socket: &Path, listener: UnixListener) -> io::Result<OwnedFd> {
    let (theirs, alive) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    // Reaped by whoever reaps the task's: the wrapper waits for any child.
    Command::new("/proc/self/exe")
        .arg(ARGUMENT)
        .arg(socket)
        .env_clear()
        .stdin(OwnedFd::from(listener))
        .stdout(theirs)
        .stderr(Stdio::null())
        .spawn()?;
    Ok(alive)
}

/// One connection of the task, and ours to the bus for it.
struct Relay {
    task: UnixStream,
    bus: UnixStream,
    filter: Filter,
    to_task: Vec<u8>,
    to_bus: Vec<u8>,
    over: bool,
}

/// Serves the socket on stdin, until stdout, of which the wrapper has the other end, closes.
pub(crate) fn serve(bus: &OsStr) -> io::Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    privileges::keep_identities()?;
    let bus = Path::new(bus);
    let listener = UnixListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    listener.set_nonblocking(true)?;
    let wrapper = io::stdout();
    let mut relays: Vec<Relay> = Vec::new();
    loop {
        if wait(&listener, wrapper.as_fd(), &relays)? {
            return Ok(());
        }
        for relay in &mut relays {
            relay.pump();
        }
        relays.retain(|relay| !relay.over);
        if relays.len() < MAX_CONNECTIONS
            && let Ok((task, _)) = listener.accept()
        {
            // Without a bus its connection is closed: it finds out what it would find out anyway.
            relays.extend(Relay::new(task, bus));
        }
    }
}

/// Waits until there is something to do. Whether the wrapper has ended.
fn wait(listener: &UnixListener, wrapper: BorrowedFd<'_>, relays: &[Relay]) -> io::Result<bool> {
    let mut wait = vec![PollFd::new(wrapper, PollFlags::empty())];
    if relays.len() < MAX_CONNECTIONS {
        wait.push(PollFd::new(listener.as_fd(), PollFlags::POLLIN));
    }
    for relay in relays {
        for (stream, to_it, from_it) in [
            (&relay.task, &relay.to_task, &relay.to_bus),
            (&relay.bus, &relay.to_bus, &relay.to_task),
        ] {
            let mut events = PollFlags::empty();
            events.set(PollFlags::POLLIN, from_it.len() < PIECE);
            events.set(PollFlags::POLLOUT, !to_it.is_empty());
            // Of a side that has gone while nothing can be moved, the kernel would tell without end.
            if !events.is_empty() {
                wait.push(PollFd::new(stream.as_fd(), events));
            }
        }
    }
    match poll(&mut wait, PollTimeout::NONE) {
        Ok(_) => Ok(wait
            .first()
            .and_then(PollFd::revents)
            .is_some_and(|events| !events.is_empty())),
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

impl Relay {
    /// `None` when the bus does not take it.
    fn new(task: UnixStream, bus: &Path) -> Option<Self> {
        let peer = getsockopt(&task, PeerCredentials).ok()?;
        let bus = connect_as(bus, Uid::from_raw(peer.uid()), Gid::from_raw(peer.gid())).ok()?;
        task.set_nonblocking(true).ok()?;
        bus.set_nonblocking(true).ok()?;
        Some(Self {
            task,
            bus,
            filter: Filter::default(),
            to_task: Vec::new(),
            to_bus: Vec::new(),
            over: false,
        })
    }

    /// Moves what can be moved. What is malformed, a side that has gone, or a failure is the end of both.
    fn pump(&mut self) {
        self.over = self.moved().is_none();
    }

    fn moved(&mut self) -> Option<()> {
        if self.to_bus.len() < PIECE {
            let bytes = read(&mut self.task)?;
            self.filter.of_task(&bytes, &mut self.to_bus).ok()?;
        }
        if self.to_task.len() < PIECE {
            let bytes = read(&mut self.bus)?;
            self.filter.of_bus(&bytes, &mut self.to_task).ok()?;
        }
        write(&mut self.bus, &mut self.to_bus)?;
        write(&mut self.task, &mut self.to_task)
    }
}

/// What is there to be read; `None` at the end. Descriptors that come with it are closed by the kernel.
fn read(stream: &mut UnixStream) -> Option<Vec<u8>> {
    let mut bytes = vec![0; PIECE];
    match stream.read(&mut bytes) {
        Ok(0) => None,
        Ok(length) => {
            bytes.truncate(length);
            Some(bytes)
        }
        Err(error) => waits(&error).then(Vec::new),
    }
}

fn write(stream: &mut UnixStream, bytes: &mut Vec<u8>) -> Option<()> {
    if bytes.is_empty() {
        return Some(());
    }
    match stream.write(bytes) {
        Ok(length) => {
            bytes.drain(..length);
            Some(())
        }
        Err(error) => waits(&error).then_some(()),
    }
}

fn waits(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// Connects as this user: the bus asks the kernel who that was. Without supplementary groups, so that a
/// rule of the bus may give less than its user has, and never more.
fn connect_as(bus: &Path, uid: Uid, gid: Gid) -> io::Result<UnixStream> {
    let (own_uid, own_gid) = (geteuid(), getegid());
    if uid == own_uid {
        return UnixStream::connect(bus);
    }
    let keep = (Uid::from_raw(u32::MAX), Gid::from_raw(u32::MAX));
    setgroups(&[])?;
    setresgid(keep.1, gid, keep.1)?;
    let connected = setresuid(keep.0, uid, keep.0)
        .map_err(io::Error::from)
        .and_then(|()| UnixStream::connect(bus));
    // Nothing goes on as somebody else.
    setresuid(keep.0, own_uid, keep.0)?;
    setresgid(keep.1, own_gid, keep.1)?;
    connected
}
