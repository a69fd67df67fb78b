//! The limit of open files: each simulated agent has a socket of its own, as a real one has.

use anyhow::{Context as _, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Standard streams, certificates being read, the runtime's own: a few dozen, generously.
const OTHER_FILES: u64 = 256;

/// Makes room for so many sockets, raising the hard limit too where that is allowed (root).
///
/// # Errors
/// When it is not; the error says what to do.
pub fn allow_sockets(sockets: usize) -> Result<()> {
    let wanted = u64::try_from(sockets)?.saturating_add(OTHER_FILES);
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("cannot read the file limit")?;
    if soft >= wanted {
        return Ok(());
    }
    let set = setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted));
    ensure!(
        set.is_ok(),
        "{sockets} agents need {wanted} open files and the limit is {hard}: run as root, or raise \
         it (`ulimit -Hn {wanted}`, LimitNOFILE= in a unit)"
    );
    Ok(())
}
