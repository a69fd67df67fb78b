//! Where the output of a task lies, and how it is read: while it is written, and afterwards.
//!
//! A stream is kept whole up to its limit. Beyond that its head is kept, and its tail: the file
//! `stdout` holds the beginning, and `stdout.OFFSET` a segment of what follows, of which the last two
//! stay. So a reader who keeps up misses nothing, who does not learns exactly which bytes are gone,
//! and neither memory nor disk grows with what a task writes.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::run_dir::RunDir;

/// One of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a limit is shared out between head and tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// How many bytes the head has at most.
    pub head: u64,
    /// How many bytes one of the two segments of the tail has at most.
    pub segment: u64,
}

impl Share {
    /// Half for the head, a quarter for each segment; what cannot be divided goes to the head.
    #[must_use]
    pub fn of(limit: u64) -> Self {
        let segment = limit / 4;
        Self {
            head: limit - 2 * segment,
            segment,
        }
    }
}

/// The file of a segment that begins at `offset`, for a head in `head`.
#[must_use]
pub fn segment_path(head: &Path, offset: u64) -> PathBuf {
    let mut path = head.as_os_str().to_os_string();
    path.push(format!(".{offset}"));
    path.into()
}

/// A run of bytes that were kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Where it begins in the stream.
    pub offset: u64,
    /// How many bytes it has.
    pub length: u64,
}

impl Kept {
    fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }
}

/// A stream as it lies on disk.
#[derive(Debug, Clone)]
pub struct Output {
    head: PathBuf,
}

/// How often a look at the files is repeated when the task has replaced one of them meanwhile. It
/// must write a quarter of its limit between two looks for that.
const LOOKS: usize = 8;

impl Output {
    /// The output of a run.
    #[must_use]
    pub fn of(dir: &RunDir, stream: Stream) -> Self {
        let head = match stream {
            Stream::Stdout => dir.stdout(),
            Stream::Stderr => dir.stderr(),
        };
        Self { head }
    }

    /// What is kept now, in order. Neighbours are told apart: a gap between them was dropped.
    ///
    /// # Errors
    /// When the files cannot be looked at.
    pub fn kept(&self) -> io::Result<Vec<Kept>> {
        let length = match fs::metadata(&self.head) {
            Ok(head) => head.len(),
            // Nothing has been written, or the files are gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        let mut kept = vec![Kept { offset: 0, length }];
        kept.extend(self.segments(length)?);
        Ok(kept)
    }

    /// At most `max` bytes from `offset` on, or from the first byte after it that is kept, which the
    /// first value says; the second is the end of what has been written so far. No bytes when there
    /// are none beyond `offset`.
    ///
    /// # Errors
    /// When the files cannot be read.
    pub fn read(&self, offset: u64, max: usize) -> io::Result<(u64, u64, Vec<u8>)> {
        for _ in 1..LOOKS {
            match self.try_read(offset, max) {
                // The task has gone on to its next segment.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                read => return read,
            }
        }
        self.try_read(offset, max)
    }

    fn try_read(&self, offset: u64, max: usize) -> io::Result<(u64, u64, Vec<u8>)> {
        let kept = self.kept()?;
        let end = kept.iter().map(Kept::end).max().unwrap_or_default();
        let next = kept
            .iter()
            .find(|kept| offset < kept.end() && kept.length > 0);
        let Some(piece) = next else {
            return Ok((offset, end, Vec::new()));
        };
        let from = offset.max(piece.offset);
        let path = if piece.offset == 0 {
            self.head.clone()
        } else {
            segment_path(&self.head, piece.offset)
        };
        let left = piece.end() - from;
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(max);
        let mut bytes = vec![0; length];
        File::open(path)?.read_exact_at(&mut bytes, from - piece.offset)?;
        Ok((from, end, bytes))
    }

    fn segments(&self, head: u64) -> io::Result<Vec<Kept>> {
        let (Some(dir), Some(name)) = (self.head.parent(), self.head.file_name()) else {
            return Ok(Vec::new());
        };
        if head == 0 {
            return Ok(Vec::new());
        }
        let mut kept = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let file = entry.file_name();
            let offset = file
                .to_str()
                .zip(name.to_str())
                .and_then(|(file, name)| file.strip_prefix(name)?.strip_prefix('.')?.parse().ok());
            // One by its own name, not by another way to write its number, and behind the head.
            let ours =
                |offset: &u64| *offset >= head && segment_path(&self.head, *offset) == entry.path();
            let Some(offset) = offset.filter(ours) else {
                continue;
            };
            match entry.metadata() {
                Ok(metadata) => kept.push(Kept {
                    offset,
                    length: metadata.len(),
                }),
                // Replaced just now; a newer one is there.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        kept.sort_unstable_by_key(|kept| kept.offset);
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_files_beside_an_output_are_read_within_bounds(
            names in prop::collection::btree_map(
                "stdout\\.(-|\\+|)(0|1|7|20|18446744073709551615|99999999999999999999|x|)",
                0..9_usize, 0..5,
            ),
            head in 0..9_usize, offset in prop_oneof![0..30_u64, Just(u64::MAX)], max in 0..9_usize,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let run = RunDir::new(dir.path().to_path_buf());
            fs::write(run.stdout(), vec![b'h'; head]).unwrap();
            for (name, length) in names {
                fs::write(dir.path().join(name), vec![b's'; length]).unwrap();
            }
            let (from, end, bytes) = Output::of(&run, Stream::Stdout).read(offset, max).unwrap();
            prop_assert!(bytes.len() <= max && (bytes.is_empty() || from <= end));
        }
    }

    #[test]
    fn a_limit_is_shared_out_without_a_rest() {
        for limit in [0, 1, 3, 4, 1000, 1001, 8 << 20, u64::MAX] {
            let Share { head, segment } = Share::of(limit);
            assert_eq!(head + segment + segment, limit);
            assert!(head >= segment, "{limit}");
        }
    }

    #[test]
    fn what_is_kept_is_read_by_its_offset_in_the_stream() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::new(dir.path().to_path_buf());
        let output = Output::of(&run, Stream::Stdout);
        assert_eq!(output.read(7, 10).unwrap(), (7, 0, Vec::new()));
        fs::write(run.stdout(), "0123456789").unwrap();
        assert_eq!(output.read(0, 4).unwrap(), (0, 10, b"0123".to_vec()));
        assert_eq!(output.read(8, 4).unwrap(), (8, 10, b"89".to_vec()));
        assert_eq!(output.read(10, 4).unwrap(), (10, 10, Vec::new()));
        // Bytes 10 to 19 were dropped.
        fs::write(segment_path(&run.stdout(), 20), "abcde").unwrap();
        fs::write(segment_path(&run.stdout(), 25), "fg").unwrap();
        fs::write(run.path().join("stdout.x"), "not one of them").unwrap();
        fs::write(run.stderr(), "other").unwrap();
        assert_eq!(output.read(9, 4).unwrap(), (9, 27, b"9".to_vec()));
        assert_eq!(output.read(10, 4).unwrap(), (20, 27, b"abcd".to_vec()));
        assert_eq!(output.read(24, 4).unwrap(), (24, 27, b"e".to_vec()));
        assert_eq!(output.read(26, 4).unwrap(), (26, 27, b"g".to_vec()));
        assert_eq!(output.read(27, 4).unwrap(), (27, 27, Vec::new()));
        let kept: Vec<_> = output.kept().unwrap().iter().map(|k| k.offset).collect();
        assert_eq!(kept, [0, 20, 25]);
    }
}
