//! `output read`: what a transaction's process has written, from an offset on. A look at the files of
//! the spool; waiting for something to say is the session's part.

use std::time::Duration;

use pxp::{MAX_CHUNK, OutputChunk, OutputRequest, Status, StreamChunk, TransactionId};
use sandbox::RunDir;
use sandbox::output::{Output, Stream};

use crate::engine::Progress;
use crate::results::NoResult;
use crate::spool::Spool;
use crate::transaction::{Outcome, Ran};

/// The longest that an answer waits. Requesters ask again; so a forgotten question costs nothing.
pub const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// How often the files are looked at meanwhile. A person sees no delay, and a hundred readers cost a
/// thousand calls of `stat` a second.
pub const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Looks once, knowing how far the transaction was before. Blocks for a read from the page cache.
///
/// # Errors
/// [`NoResult`] when the files cannot be read.
pub fn read(
    spool: &Spool,
    request: &OutputRequest,
    progress: Progress,
) -> Result<OutputChunk, NoResult> {
    let id = &request.transaction_id;
    let known = match progress {
        Progress::InProgress => Some(None),
        Progress::Ended(_, outcome) => Some(Some(outcome)),
        Progress::OnDisk => match spool.read(id) {
            Ok(stored) => stored.map(|stored| stored.outcome().map(|(outcome, _)| outcome.clone())),
            Err(error) => return Err(NoResult(super::status::unreadable(&error))),
        },
    };
    let Some(outcome) = known else {
        return Ok(unknown(id.clone()));
    };
    let (status, ran) = match &outcome {
        None => (Status::Running, None),
        Some(Outcome::Ran(ran @ Ran { exitcode: 0, .. })) => (Status::Success, Some(ran)),
        Some(Outcome::Ran(ran)) => (Status::Failure, Some(ran)),
        Some(Outcome::Failed(_)) => (Status::Failure, None),
    };
    let run = RunDir::new(spool.directory(id));
    let ended = outcome.is_some();
    let piece = |stream, offset, total| {
        piece(&Output::of(&run, stream), offset, total, ended).map_err(|error| {
            NoResult(format!(
                "the output could not be read from the spool: {error}"
            ))
        })
    };
    let (stdout, out) = piece(
        Stream::Stdout,
        request.stdout,
        ran.map(|ran| ran.stdout.bytes),
    )?;
    let (stderr, err) = piece(
        Stream::Stderr,
        request.stderr,
        ran.map(|ran| ran.stderr.bytes),
    )?;
    Ok(OutputChunk {
        transaction_id: id.clone(),
        status,
        stdout,
        stderr,
        end: ended && out == Rest::Nothing && err == Rest::Nothing,
    })
}

/// Whether an answer is worth sending before its time is over.
#[must_use]
pub fn says_something(chunk: &OutputChunk) -> bool {
    chunk.end
        || chunk.status == Status::Unknown
        || !chunk.stdout.data.is_empty()
        || !chunk.stderr.data.is_empty()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    Something,
    Nothing,
}

fn piece(
    output: &Output,
    asked: u64,
    total: Option<u64>,
    ended: bool,
) -> std::io::Result<(StreamChunk, Rest)> {
    let (offset, end, mut data) = output.read(asked, MAX_CHUNK)?;
    let total = total.unwrap_or(end).max(end);
    if data.is_empty() {
        return Ok((StreamChunk::empty(asked.min(total), total), Rest::Nothing));
    }
    let reached = offset + data.len() as u64;
    // A character that is not complete yet waits for its rest, so that text stays text: always while
    // its rest may still be written, else as long as there is something before it.
    if let Err(error) = std::str::from_utf8(&data)
        && error.error_len().is_none()
        && ((!ended && reached == end) || (error.valid_up_to() > 0 && reached < end))
    {
        data.truncate(error.valid_up_to());
    }
    let next = offset + data.len() as u64;
    let rest = if next < end {
        Rest::Something
    } else {
        Rest::Nothing
    };
    let chunk = StreamChunk {
        offset,
        next,
        total,
        data,
    };
    Ok((chunk, rest))
}

fn unknown(transaction_id: TransactionId) -> OutputChunk {
    OutputChunk {
        transaction_id,
        status: Status::Unknown,
        stdout: StreamChunk::default(),
        stderr: StreamChunk::default(),
        end: true,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sandbox::output::segment_path;

    use super::*;

    proptest! {
        #[test]
        fn output_of_any_bytes_is_read_whole_and_in_order(
            bytes in prop::collection::vec(any::<u8>(), 0..60), text in "\\PC{0,12}",
        ) {
            for bytes in [bytes.as_slice(), text.as_bytes()] {
                let dir = tempfile::tempdir().unwrap();
                let run = RunDir::new(dir.path().to_path_buf());
                std::fs::write(run.stdout(), bytes).unwrap();
                let output = Output::of(&run, Stream::Stdout);
                let read: Vec<u8> = all(&output, true).into_iter().flat_map(|(_, data)| data).collect();
                prop_assert_eq!(read.as_slice(), bytes);
                let before: Vec<u8> = all(&output, false).into_iter().flat_map(|(_, data)| data).collect();
                prop_assert!(bytes.starts_with(&before) && bytes.len() - before.len() < 4);
            }
        }
    }

    /// Reads to the end, piece by piece, and gives what was read with its offsets.
    fn all(output: &Output, ended: bool) -> Vec<(u64, Vec<u8>)> {
        let (mut at, mut pieces) = (0, Vec::new());
        loop {
            let (chunk, rest) = piece(output, at, None, ended).unwrap();
            assert_eq!(chunk.next, chunk.offset + chunk.data.len() as u64);
            if chunk.data.is_empty() {
                assert!(rest == Rest::Nothing || !ended);
                return pieces;
            }
            at = chunk.next;
            pieces.push((chunk.offset, chunk.data));
        }
    }

    #[test]
    fn characters_that_are_cut_wait_for_their_rest_and_are_never_waited_for_in_vain() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::new(dir.path().to_path_buf());
        let output = Output::of(&run, Stream::Stdout);
        std::fs::write(run.stdout(), b"ab\xc3").unwrap();
        assert_eq!(all(&output, false), [(0, b"ab".to_vec())]);
        assert_eq!(
            all(&output, true),
            [(0, b"ab\xc3".to_vec())],
            "nothing can follow any more"
        );
        // Bytes 3 to 9 are gone.
        std::fs::write(segment_path(&run.stdout(), 10), "cd").unwrap();
        let pieces = [
            (0, b"ab".to_vec()),
            (2, b"\xc3".to_vec()),
            (10, b"cd".to_vec()),
        ];
        assert_eq!(all(&output, true), pieces);
        assert_eq!(all(&output, false), pieces);
    }

    #[test]
    fn an_answer_has_a_bounded_size_and_an_offset_beyond_the_end_is_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::new(dir.path().to_path_buf());
        let output = Output::of(&run, Stream::Stderr);
        std::fs::write(run.stderr(), "ä".repeat(MAX_CHUNK)).unwrap();
        let (chunk, rest) = piece(&output, 1, None, true).unwrap();
        assert_eq!(chunk.data.len(), MAX_CHUNK);
        assert_eq!(rest, Rest::Something);
        let total = 2 * MAX_CHUNK as u64;
        let (chunk, rest) = piece(&output, u64::MAX, Some(total), true).unwrap();
        assert_eq!(
            (chunk, rest),
            (StreamChunk::empty(total, total), Rest::Nothing)
        );
    }
}
