//! The events of a job as the orchestrator sends them: server-sent events, read as they come.

use std::time::Duration;

use orchestrator_api::Event;

use super::{Client, ConnectError, origin};
use crate::error::Failure;

/// How long nothing may come before the connection counts as dead: three of the signs of life that
/// the orchestrator sends every 15 seconds when nothing happens.
const SILENCE: Duration = Duration::from_secs(45);

/// The most that is kept of events that have not come whole, in bytes. One has some hundred.
const MAX_UNREAD: usize = 1 << 20;

/// Events that come by themselves.
#[derive(Debug)]
pub(crate) struct EventStream {
    answer: reqwest::Response,
    client: Client,
    unread: Vec<u8>,
}

impl EventStream {
    pub(super) fn new(answer: reqwest::Response, client: Client) -> Self {
        Self {
            answer,
            client,
            unread: Vec::new(),
        }
    }

    /// The events that come next: perhaps none, when there was a sign of life; nothing at the end.
    /// May be dropped and called again: nothing is lost.
    ///
    /// # Errors
    /// When the connection fails, or what comes is no event.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Event>>, Failure> {
        let piece = match tokio::time::timeout(SILENCE, self.answer.chunk()).await {
            Ok(Ok(piece)) => piece,
            Ok(Err(error)) => return Err(self.client.fault(error)),
            Err(_) => {
                let url = origin(&self.client.base);
                return Err(ConnectError::TimedOut { url }.into());
            }
        };
        let Some(piece) = piece else {
            return Ok(None);
        };
        self.unread.extend_from_slice(&piece);
        match take_events(&mut self.unread) {
            Some(events) if self.unread.len() <= MAX_UNREAD => Ok(Some(events)),
            _ => Err(self.client.strange(200)),
        }
    }
}

/// Takes the whole events out of what has come; nothing when one of them is none.
fn take_events(unread: &mut Vec<u8>) -> Option<Vec<Event>> {
    let mut events = Vec::new();
    let mut taken = 0;
    while let Some(rest) = unread.get(taken..)
        && let Some(length) = rest.windows(2).position(|pair| pair == b"\n\n")
    {
        let block = std::str::from_utf8(rest.get(..length)?).ok()?;
        // What is no data is a name, a number, or a comment as a sign of life.
        if let Some(data) = block.lines().find_map(|line| line.strip_prefix("data:")) {
            events.push(serde_json::from_str(data).ok()?);
        }
        taken += length + 2;
    }
    unread.drain(..taken);
    Some(events)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: u64) -> String {
        format!(
            "id: {id}\nevent: node_running\ndata: {{\"id\":\"{id}\",\"type\":\"node_running\",\
             \"timestamp\":\"2026-11-22T14:30:00Z\",\"details\":{{\"node\":\"a\",\"detail\":{{}}}},\
             \"message\":\"\"}}\n\n"
        )
    }

    #[test]
    fn events_are_taken_when_they_are_whole_wherever_pieces_end() {
        let text = format!("{}: nothing new\n\n{}", event(1), event(2));
        for cut in 0..text.len() {
            let mut unread = text.as_bytes()[..cut].to_vec();
            let mut ids: Vec<String> = vec![];
            for rest in ["", &text[cut..]] {
                unread.extend_from_slice(rest.as_bytes());
                let events = take_events(&mut unread).unwrap();
                ids.extend(events.into_iter().map(|event| event.id));
            }
            assert_eq!(ids, ["1", "2"], "cut at {cut}");
            assert!(unread.is_empty());
        }
        assert_eq!(take_events(&mut b"data: {}\n\n".to_vec()), None);
    }
}
