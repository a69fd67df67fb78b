//! `--follow`: what nodes write, while they write it. A bounded number of nodes is asked at a time,
//! each from the offset on that has been seen; the others wait for their turn and miss nothing.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use orchestrator_api::{ErrorKind, OutputStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::error::Failure;
use crate::printable::printable;

/// How many nodes are asked at a time: well below the streams that a connection has.
const ASKED: usize = 48;

/// How many pieces may wait to be shown. Then nothing more is asked for.
const PIECES: usize = 64;

/// How many seconds the orchestrator waits for something new before it answers: less than it allows.
const WAIT: u64 = 15;

/// The pause before a node is asked again whose agent could not answer.
const PAUSE: Duration = Duration::from_secs(1);

/// How often a node is asked in vain, one after the other, before its result has to do.
const ATTEMPTS: u32 = 5;

/// The longest line that is kept until it ends, in bytes.
const LONGEST_LINE: usize = 8 << 10;

/// Something to show.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Lines of a node, ready to be printed.
    Lines(String),
    /// Nothing more will come of this node; everything was shown, or it was not.
    End { node: String, is_whole: bool },
}

/// The nodes whose output is followed.
#[derive(Debug)]
pub(crate) struct Outputs {
    client: Client,
    job: String,
    waiting: VecDeque<String>,
    /// Those whose end has not been shown: waiting or asked.
    open: HashSet<String>,
    asked: usize,
    tasks: JoinSet<()>,
    sender: mpsc::Sender<Piece>,
    pieces: mpsc::Receiver<Piece>,
}

impl Outputs {
    pub(crate) fn new(client: &Client, job: &str) -> Self {
        let (sender, pieces) = mpsc::channel(PIECES);
        Self {
            client: client.clone(),
            job: job.to_owned(),
            waiting: VecDeque::new(),
            open: HashSet::new(),
            asked: 0,
            tasks: JoinSet::new(),
            sender,
            pieces,
        }
    }

    /// A node has begun to run.
    pub(crate) fn add(&mut self, node: &str) {
        if self.open.insert(node.to_owned()) {
            self.waiting.push_back(node.to_owned());
            self.ask();
        }
    }

    /// Whether more will come of this node.
    pub(crate) fn has(&self, node: &str) -> bool {
        self.open.contains(node)
    }

    /// Whether nothing more will come of any node.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// What comes next; for ever nothing when there is no node. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> Option<Piece> {
        let piece = self.pieces.recv().await?;
        if let Piece::End { node, .. } = &piece {
            self.open.remove(node);
            self.asked = self.asked.saturating_sub(1);
            self.ask();
        }
        // Those that have ended need no place any more.
        while self.tasks.try_join_next().is_some() {}
        Some(piece)
    }

    fn ask(&mut self) {
        while self.asked < ASKED
            && let Some(node) = self.waiting.pop_front()
        {
            self.asked += 1;
            let follow = follow(
                self.client.clone(),
                self.job.clone(),
                node,
                self.sender.clone(),
            );
            self.tasks.spawn(follow);
        }
    }
}

/// Asks for one node's output until its end.
async fn follow(client: Client, job: String, node: String, pieces: mpsc::Sender<Piece>) {
    let (mut stdout, mut stderr) = (Lines::new(&node, ""), Lines::new(&node, "stderr: "));
    let mut in_vain = 0;
    let is_whole = loop {
        let offsets = (stdout.next, stderr.next);
        match client.output(&job, &node, offsets, WAIT).await {
            Ok(output) => {
                in_vain = 0;
                let mut text = stdout.take(&output.stdout);
                text.push_str(&stderr.take(&output.stderr));
                if output.end {
                    text.push_str(&stdout.rest());
                    text.push_str(&stderr.rest());
                }
                if !text.is_empty() && pieces.send(Piece::Lines(text)).await.is_err() {
                    return;
                }
                if output.end {
                    break true;
                }
            }
            Err(failure) if is_passing(&failure) && in_vain < ATTEMPTS => {
                in_vain += 1;
                tokio::time::sleep(PAUSE).await;
            }
            // The result tells what there is.
            Err(_) => break false,
        }
    };
    // Nobody listens when the command is about to end.
    drop(pieces.send(Piece::End { node, is_whole }).await);
}

fn is_passing(failure: &Failure) -> bool {
    match failure {
        Failure::Api(error) => error.known() == Some(ErrorKind::Unavailable),
        other => other.is_passing(),
    }
}

/// One stream of a node, cut into lines.
struct Lines {
    prefix: String,
    next: u64,
    unfinished: Vec<u8>,
}

impl Lines {
    fn new(node: &str, stream: &str) -> Self {
        Self {
            prefix: format!("[{}] {stream}", printable(node)),
            next: 0,
            unfinished: Vec::new(),
        }
    }

    /// The lines that a piece ends.
    fn take(&mut self, piece: &OutputStream) -> String {
        let mut text = String::new();
        if piece.offset > self.next {
            text.push_str(&self.rest());
            let missing = piece.offset - self.next;
            text.push_str(&format!("{}... {missing} bytes ...\n", self.prefix));
        }
        self.next = piece.next;
        let bytes = match (&piece.data, &piece.data_base64) {
            (Some(data), _) => data.clone().into_bytes(),
            (None, Some(data)) => STANDARD.decode(data).unwrap_or_default(),
            (None, None) => Vec::new(),
        };
        self.unfinished.extend_from_slice(&bytes);
        let end = self.unfinished.iter().rposition(|byte| *byte == b'\n');
        let end = match end {
            Some(end) => end + 1,
            None if self.unfinished.len() > LONGEST_LINE => self.unfinished.len(),
            None => return text,
        };
        let rest = self.unfinished.split_off(end);
        text.push_str(&self.rest());
        self.unfinished = rest;
        text
    }

    /// What is there, whether its last line has ended or not.
    fn rest(&mut self) -> String {
        let bytes = std::mem::take(&mut self.unfinished);
        crate::printable::lines(&String::from_utf8_lossy(&bytes))
            .map(|line| format!("{}{line}\n", self.prefix))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(offset: u64, data: &[u8]) -> OutputStream {
        OutputStream {
            offset,
            next: offset + u64::try_from(data.len()).unwrap(),
            data_base64: Some(STANDARD.encode(data)),
            ..OutputStream::default()
        }
    }

    #[test]
    fn lines_are_whole_and_bear_the_nodes_name() {
        let mut lines = Lines::new("web1", "");
        assert_eq!(lines.take(&piece(0, b"one\ntw")), "[web1] one\n");
        // The two bytes of a letter come apart.
        assert_eq!(lines.take(&piece(6, b"o \xc3")), "");
        assert_eq!(
            lines.take(&piece(9, b"\xbc\n\x1b[2J\n")),
            "[web1] two \u{fc}\n[web1] \\x1b[2J\n"
        );
        assert_eq!(lines.take(&piece(16, b"end")), "");
        assert_eq!(
            lines.take(&piece(100, b"tail")),
            "[web1] end\n[web1] ... 81 bytes ...\n"
        );
        assert_eq!(lines.rest(), "[web1] tail\n");
        assert_eq!(lines.next, 104);
        let long = lines.take(&piece(104, &vec![b'x'; LONGEST_LINE + 1]));
        assert!(long.starts_with("[web1] xxx") && long.ends_with("x\n"));
    }
}
