//! A place for a task that is ready before the task is there: process 1 of a PID namespace in a mount
//! namespace that lacks nothing but what is the task's own. It is used once, for a plan that asks for just
//! this view, and only if the view would come out the same now; else the task's namespaces are made as if
//! there had been no cell.

use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::Pid;
use sandbox::{Jail, Plan, Profile, Step};
use sandbox_sys::{CloneRequest, Cloned, MAX_DESCRIPTORS, SingleThreaded};

use crate::ends::Ends;
use crate::init;
use crate::jail::{self, Ground, Own, Seals};
use crate::privileges;
use crate::task::Given;

mod order;

use order::Order;

/// Process 1 has arranged everything.
const READY: u8 = b'r';
/// It has looked once more, and takes the task in when it is told to.
const FRESH: u8 = b'f';

/// How long process 1 may take for either. It takes a millisecond; a host that is in deep trouble has the
/// task's namespaces made the other way, under the task's time limit.
const PATIENCE: Duration = Duration::from_secs(2);

/// The wrapper's side.
#[derive(Debug)]
pub(crate) struct Cell {
    jail: Jail,
    ground: Ground,
    entered: Entered,
}

/// A cell whose process 1 knows what it is for, and waits for the word to begin. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Told(Cell);

/// Process 1 of a cell.
#[derive(Debug)]
pub(crate) struct Entered {
    pub(crate) pid: Pid,
    pub(crate) process: OwnedFd,
    pub(crate) channel: UnixStream,
}

impl Cell {
    /// Has a cell made for this view, and for a task with these ends. Returns before it is ready. `keep` is
    /// what process 1 must not have.
    pub(crate) fn make<K>(
        alone: &SingleThreaded,
        jail: Jail,
        ends: Ends,
        keep: K,
    ) -> (K, Ends, Option<Self>) {
        // What is shared may lie on a server that does not answer; looking there must be under the task's
        // time limit.
        if jail.shared.iter().any(|path| path != Path::new("/tmp")) {
            return (keep, ends, None);
        }
        let (Ok(ground), Ok((mut channel, theirs))) = (Ground::look(&jail), UnixStream::pair())
        else {
            return (keep, ends, None);
        };
        let request = CloneRequest {
            namespaces: init::namespaces(None, jail.profile == Profile::Confined),
            cgroup: None,
        };
        match sandbox_sys::clone(alone, &request) {
            Ok(Cloned::Child) => {
                drop(keep);
                drop(channel);
                be(alone, &jail, ground, ends, theirs)
            }
            Ok(Cloned::Parent { pid, pidfd }) => {
                let ready = channel.set_read_timeout(Some(PATIENCE)).is_ok()
                    && channel.write_all(&[init::GO]).is_ok();
                let entered = Entered {
                    pid,
                    process: pidfd,
                    channel,
                };
                let cell = Self {
                    jail,
                    ground,
                    entered,
                };
                (keep, ends, ready.then_some(cell))
            }
            Err(_) => (keep, ends, None),
        }
    }

    /// What is mounted for the task: with this open, taking it apart is left to who closes it last.
    pub(crate) fn mounts(&self) -> Option<File> {
        let of_init = format!("/proc/{}/ns/mnt", self.entered.pid);
        File::open(of_init).ok()
    }

    /// Tells process 1 what it needs to know of the plan's task. Nothing when the task cannot be in here.
    pub(crate) fn tell(mut self, plan: &Plan, given: &Given) -> Option<Told> {
        let own = Own::take(self.fits(plan)?, given.bus.as_deref()).ok()?;
        let channel = &mut self.entered.channel;
        await_word(channel, READY)?;
        let descriptors: Vec<BorrowedFd<'_>> = own.descriptors().collect();
        let order = Order::encode(plan, given, &own)?;
        let length = (order.len() as u64).to_le_bytes();
        send(channel, &length, &descriptors).ok()?;
        channel.write_all(&order).ok()?;
        Some(Told(self))
    }

    /// The plan's jail, if this cell's is the same but for what is the task's own.
    fn fits<'a>(&self, plan: &'a Plan) -> Option<&'a Jail> {
        let own = plan.steps().iter().find_map(|step| match step {
            Step::Jail(jail) => Some(jail),
            _ => None,
        })?;
        (plan.view().as_ref() == Some(&self.jail)).then_some(own)
    }

    /// Urgently readable (`POLLPRI`), once, when something was mounted or unmounted since it was made, so that
    /// it is of no use.
    pub(crate) fn waits_on(&self) -> BorrowedFd<'_> {
        self.ground.waits_on()
    }
}

fn await_word(channel: &mut UnixStream, word: u8) -> Option<()> {
    let mut come = [0];
    channel.read_exact(&mut come).ok()?;
    (come == [word]).then_some(())
}

impl Told {
    /// Has the task born, in this cgroup. Nothing when that cannot be: the task has not begun then, and will
    /// not.
    pub(crate) fn begin(self, cgroup: Option<&OwnedFd>) -> Option<Entered> {
        let Cell {
            jail,
            ground,
            mut entered,
        } = self.0;
        // While process 1 looks at its side.
        let stands = ground.stands(&jail);
        let channel = &mut entered.channel;
        let begun = stands.then(|| {
            await_word(channel, FRESH)?;
            // From here on it is silent until the task's end.
            channel.set_read_timeout(None).ok()?;
            let cgroup: Vec<_> = cgroup.map(AsFd::as_fd).into_iter().collect();
            // Without this word it starts nothing: an answer that came too late must not have the task run
            // twice.
            send(channel, &[init::GO], &cgroup).ok()
        });
        if begun.flatten().is_none() {
            // It fails only when it has ended.
            sandbox_sys::pidfd_send_signal(entered.process.as_fd(), Signal::SIGKILL).ok();
            return None;
        }
        Some(entered)
    }
}

/// Sends a few bytes with descriptors.
fn send(channel: &UnixStream, text: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    if descriptors.len() > MAX_DESCRIPTORS {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let numbers: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let control = [ControlMessage::ScmRights(&numbers)];
    let control = if numbers.is_empty() {
        &[]
    } else {
        &control[..]
    };
    let socket = channel.as_raw_fd();
    let flags = MsgFlags::MSG_NOSIGNAL;
    let sent = sendmsg::<()>(socket, &[IoSlice::new(text)], control, flags, None)?;
    if sent == text.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}

/// Is process 1: never returns.
fn be(
    alone: &SingleThreaded,
    jail: &Jail,
    ground: Ground,
    ends: Ends,
    mut wrapper: UnixStream,
) -> ! {
    let prepared = init::stand_ready(&mut wrapper)
        .and_then(|()| jail::follow_the_host())
        .and_then(|()| jail::arrange(jail, ground.names(), None, &[]))
        .and_then(|view| {
            privileges::bound(jail.profile)?;
            Ok((Seals::of(&view)?, view))
        });
    drop(ground);
    // Whoever waits for an answer finds that there is none.
    let Ok((seals, view)) = prepared else {
        sandbox_sys::exit_now(1)
    };
    let told = wrapper
        .write_all(&[READY])
        .and_then(|()| Order::receive(&mut wrapper));
    let Ok(Order { plan, given, own }) = told else {
        sandbox_sys::exit_now(1)
    };
    if !view.has_room_for(&own) || !seals.hold() || wrapper.write_all(&[FRESH]).is_err() {
        sandbox_sys::exit_now(1)
    }
    let added = view.add(&own);
    drop((view, own));
    let Some(cgroup) = await_go(&wrapper, plan.cgroup().is_some()) else {
        sandbox_sys::exit_now(1)
    };
    let begun = added.and_then(|()| init::begin(alone, cgroup.as_ref().map(AsFd::as_fd)));
    drop(cgroup);
    init::go_on(begun, plan.steps(), &given, ends, wrapper)
}

/// Waits for the word to begin, and the cgroup that comes with it if there is to be one.
fn await_go(wrapper: &UnixStream, with_cgroup: bool) -> Option<Option<OwnedFd>> {
    await_input(wrapper).ok()?;
    let mut word = [0];
    let (length, mut cgroup) = sandbox_sys::receive(wrapper.as_fd(), &mut word).ok()?;
    let cgroup = cgroup.pop();
    (length == 1 && word == [init::GO] && cgroup.is_some() == with_cgroup).then_some(cgroup)
}

/// Waits for something to read.
fn await_input(channel: &UnixStream) -> io::Result<()> {
    let mut wait = [PollFd::new(channel.as_fd(), PollFlags::POLLIN)];
    poll(&mut wait, PollTimeout::NONE)?;
    Ok(())
}
