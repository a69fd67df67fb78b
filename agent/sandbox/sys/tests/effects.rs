//! What the calls do, seen from outside of them. Those that need a process with one thread are
//! tested through the execution wrapper, which is one.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use sandbox_sys::{attribute, close_on_exec, pidfd_open, pidfd_send_signal};

#[test]
fn a_signal_reaches_the_process_of_a_descriptor_until_it_is_reaped() {
    let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let process = pidfd_open(pid).unwrap();
    pidfd_send_signal(process.as_fd(), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(Signal::SIGTERM as i32));
    let afterwards = pidfd_send_signal(process.as_fd(), Signal::SIGTERM).unwrap_err();
    assert_eq!(afterwards.raw_os_error(), Some(libc::ESRCH));
}

#[test]
fn every_descriptor_but_the_standard_ones_is_closed_on_exec() {
    let leak = nix::unistd::dup(File::open("/dev/null").unwrap()).unwrap();
    let flags = |descriptor: &dyn AsFd| {
        let bits = fcntl(descriptor.as_fd(), FcntlArg::F_GETFD).unwrap();
        FdFlag::from_bits_truncate(bits)
    };
    assert_eq!(flags(&leak), FdFlag::empty());
    close_on_exec().unwrap();
    assert_eq!(flags(&leak), FdFlag::FD_CLOEXEC);
    assert_eq!(flags(&io::stdin()), FdFlag::empty());
    assert_eq!(flags(&io::stderr()), FdFlag::empty());
}

#[test]
fn a_file_without_an_attribute_is_no_error_and_a_missing_file_is() {
    assert_eq!(attribute(c"/proc", c"user.delegate").unwrap(), None);
    let missing = attribute(c"/nonexistent", c"user.delegate").unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
}
