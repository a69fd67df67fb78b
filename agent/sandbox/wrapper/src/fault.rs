//! How a step that failed becomes known: a one-way channel from the processes that set the task up
//! to the wrapper. It closes by itself when the task is executed.

use std::error::Error;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;

/// The longest text of an error that is kept, in characters: the report's place on the disk is
/// taken in advance.
const MAX_ERROR: usize = 1000;

/// A message on the channel fits the pipe's atomic size: a longer path is cut.
const MAX_MESSAGE: usize = 2048;

/// Exit code of a process that sent a fault. Nobody reads it.
const FAULTED: i32 = 1;

/// A step that failed, so that the task did not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) step: String,
    pub(crate) error: String,
}

/// A failed system call of a step, on the far side of the channel.
#[derive(Debug, Clone)]
pub(crate) struct Failed {
    pub(crate) step: &'static str,
    pub(crate) errno: Errno,
    /// What it was done to, when the step alone does not say.
    pub(crate) about: String,
}

/// The end that the processes of the tree hold.
#[derive(Debug)]
pub(crate) struct FaultSender(OwnedFd);

/// The wrapper's end.
#[derive(Debug)]
pub(crate) struct FaultReceiver(Option<OwnedFd>);

/// Makes the channel.
pub(crate) fn channel() -> io::Result<(FaultSender, FaultReceiver)> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    nix::fcntl::fcntl(&read, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((FaultSender(write), FaultReceiver(Some(read))))
}

impl Fault {
    /// A failure with all its causes.
    pub(crate) fn new(step: &str, error: &dyn Error) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        Self {
            step: step.to_owned(),
            error: text.chars().take(MAX_ERROR).collect(),
        }
    }
}

impl Failed {
    /// For `map_err`: the failure of a call that belongs to this step.
    pub(crate) fn at(step: &'static str) -> impl Fn(Errno) -> Self + Copy {
        move |errno| Self {
            step,
            errno,
            about: String::new(),
        }
    }

    /// The same, for calls of the standard library.
    pub(crate) fn io(step: &'static str) -> impl Fn(io::Error) -> Self + Copy {
        move |error| Self {
            step,
            errno: Errno::from_raw(error.raw_os_error().unwrap_or_default()),
            about: String::new(),
        }
    }
}

impl FaultSender {
    /// Says what failed and ends this process.
    pub(crate) fn fail(self, failed: Failed) -> ! {
        let Failed { step, errno, about } = failed;
        let message = format!("{step} {} {about}", errno as i32);
        let message = message.as_bytes();
        // Should the wrapper be gone there is nobody left to tell.
        nix::unistd::write(&self.0, message.get(..MAX_MESSAGE).unwrap_or(message)).ok();
        sandbox_sys::exit_now(FAULTED)
    }
}

impl FaultReceiver {
    /// What to poll for reading, while there is something to wait for.
    pub(crate) fn waits_on(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_ref().map(AsFd::as_fd)
    }

    /// The fault, if one has been sent. Does not block.
    pub(crate) fn receive(&mut self) -> Option<Fault> {
        let pipe = self.0.as_ref()?;
        let mut message = [0; MAX_MESSAGE];
        match nix::unistd::read(pipe, &mut message) {
            Ok(0) => {
                self.0 = None;
                None
            }
            Ok(length) => Some(parse(message.get(..length).unwrap_or_default())),
            Err(_) => None,
        }
    }
}

fn parse(message: &[u8]) -> Fault {
    let text = String::from_utf8_lossy(message);
    let mut words = text.splitn(3, ' ');
    let step = words.next().unwrap_or_default();
    let errno = words.next().and_then(|errno| errno.parse().ok());
    let error = io::Error::from_raw_os_error(errno.unwrap_or_default());
    let mut fault = Fault::new(step, &error);
    if let Some(about) = words.next().filter(|about| !about.is_empty()) {
        fault.error = format!("{about}: {}", fault.error);
        fault.error = fault.error.chars().take(MAX_ERROR).collect();
    }
    fault
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_message_is_a_fault_of_bounded_length(
            message in prop::collection::vec(any::<u8>(), 0..MAX_MESSAGE),
            text in "(jail|2| |-1|99999999999|é){0,8}",
        ) {
            for message in [message.as_slice(), text.as_bytes()] {
                let fault = parse(message);
                prop_assert!(fault.error.chars().count() <= MAX_ERROR);
                prop_assert!(fault.step.len() <= 3 * message.len());
            }
        }
    }

    #[test]
    fn a_fault_names_its_step_and_its_error() {
        let fault = parse(b"working-directory 2");
        assert_eq!(fault.step, "working-directory");
        assert!(
            fault.error.starts_with("No such file or directory"),
            "{fault:?}"
        );
    }

    #[test]
    fn a_fault_may_say_what_it_is_about() {
        let fault = parse(b"jail 13 /a dir/with spaces");
        assert_eq!(fault.step, "jail");
        assert!(
            fault.error.starts_with("/a dir/with spaces: Permission"),
            "{fault:?}"
        );
    }

    #[test]
    fn the_channel_reports_its_end_as_no_fault() {
        let (sender, mut receiver) = channel().unwrap();
        assert_eq!(receiver.receive(), None);
        assert!(receiver.waits_on().is_some());
        drop(sender);
        assert_eq!(receiver.receive(), None);
        assert!(receiver.waits_on().is_none());
    }
}
