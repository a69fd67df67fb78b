//! Descriptors that another process sends.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

/// The most descriptors that come with one message.
pub const MAX_DESCRIPTORS: usize = 16;

/// Receives one message from a socket without waiting: the length of its text, and its descriptors, which
/// are closed on exec. A length of zero is the end: the sender has gone.
///
/// # Errors
/// What `recvmsg` says: `EAGAIN` when there is no message.
pub fn receive(socket: BorrowedFd<'_>, text: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut parts = [IoSliceMut::new(text)];
    let mut control = nix::cmsg_space!([RawFd; MAX_DESCRIPTORS]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    let mut descriptors = Vec::new();
    for part in message.cmsgs()? {
        let ControlMessageOwned::ScmRights(received) = part else {
            continue;
        };
        for descriptor in received {
            // SAFETY: the kernel has just made this descriptor for us, with this message; nothing else
            // owns it, and each message's control data is read once.
            descriptors.push(unsafe { OwnedFd::from_raw_fd(descriptor) });
        }
    }
    Ok((message.bytes, descriptors))
}

#[cfg(test)]
mod tests {
    use std::io::{IoSlice, Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use nix::sys::socket::{ControlMessage, sendmsg};

    use super::*;

    #[test]
    fn a_descriptor_that_is_sent_is_one_of_the_receiver() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut far, near) = UnixStream::pair().unwrap();
        assert_eq!(
            receive(theirs.as_fd(), &mut [0; 8]).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        sendmsg::<()>(
            ours.as_raw_fd(),
            &[IoSlice::new(b"text")],
            &[ControlMessage::ScmRights(&[near.as_raw_fd()])],
            MsgFlags::empty(),
            None,
        )
        .unwrap();
        drop(near);
        let mut text = [0; 8];
        let (length, mut descriptors) = receive(theirs.as_fd(), &mut text).unwrap();
        assert_eq!(text.get(..length), Some(b"text".as_slice()));
        let mut received = UnixStream::from(descriptors.pop().unwrap());
        assert!(descriptors.is_empty());
        received.write_all(b"x").unwrap();
        drop(received);
        let mut come = Vec::new();
        far.read_to_end(&mut come).unwrap();
        assert_eq!(come, b"x");
        drop(ours);
        assert_eq!(receive(theirs.as_fd(), &mut text).unwrap().0, 0);
    }
}
