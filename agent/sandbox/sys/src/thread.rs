//! The proof that this process has one thread.

use std::io;
use std::marker::PhantomData;
use std::os::unix::fs::MetadataExt;

/// Proof that the process had exactly one thread when this was made, and that this thread holds it:
/// it is neither `Send` nor `Sync`. A process that keeps one must start no thread; the execution
/// wrapper, the only holder, has no code that could.
#[derive(Debug)]
pub struct SingleThreaded(PhantomData<*const ()>);

impl SingleThreaded {
    /// Counts the threads of this process.
    ///
    /// # Errors
    /// When `/proc/self/task` cannot be read, or lists more than one thread.
    pub fn prove() -> io::Result<Self> {
        // The link count of a directory in /proc is two more than its subdirectories, of which
        // there is one for each thread.
        let links = std::fs::metadata("/proc/self/task")?.nlink();
        if links == 3 {
            Ok(Self(PhantomData))
        } else {
            Err(io::Error::other("this process has more than one thread"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_refused_while_a_second_thread_lives() {
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let second = std::thread::spawn(move || held.recv());
        assert!(SingleThreaded::prove().is_err());
        drop(hold);
        assert!(second.join().unwrap().is_err());
    }
}
