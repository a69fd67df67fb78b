//! Clients that have just gone, and the messages that wait for their return: a client whose broker was
//! restarted, or whose network has hiccuped, is back in seconds, and a sender need not hear of it.

use std::collections::{BTreeSet, HashMap};

use pcp::{Message, Uri};

use crate::route::Origin;

/// How many clients are remembered: a compiler's, all at once, several times over. Of more than that,
/// messages fail at once.
const MAX_CLIENTS: usize = 65_536;

/// Who has gone, until when their return is waited for, and what waits.
#[derive(Debug)]
pub(crate) struct Absent {
    clients: HashMap<Uri, Gone>,
    /// Sorted by the end of the waiting.
    ends: BTreeSet<(u64, Uri)>,
    messages: usize,
    bytes: usize,
    max_messages: usize,
    max_bytes: usize,
}

#[derive(Debug)]
struct Gone {
    until: u64,
    waiting: Vec<(Origin, Message)>,
}

impl Absent {
    /// At most so many messages and bytes wait.
    pub(crate) fn new(max_messages: usize, max_bytes: usize) -> Self {
        Self {
            clients: HashMap::new(),
            ends: BTreeSet::new(),
            messages: 0,
            bytes: 0,
            max_messages,
            max_bytes,
        }
    }

    /// A client has gone, and may be back before `until`.
    pub(crate) fn left(&mut self, uri: &Uri, until: u64) {
        if self.clients.len() >= MAX_CLIENTS || self.clients.contains_key(uri) {
            return;
        }
        self.ends.insert((until, uri.clone()));
        let waiting = Vec::new();
        self.clients.insert(uri.clone(), Gone { until, waiting });
    }

    /// A client is back: what has waited for it, in the order in which it came.
    pub(crate) fn returned(&mut self, uri: &Uri) -> Vec<(Origin, Message)> {
        let Some(gone) = self.clients.remove(uri) else {
            return Vec::new();
        };
        self.ends.remove(&(gone.until, uri.clone()));
        self.take(gone)
    }

    /// Lets a message wait for a client that has just gone, or gives it back: the client is not
    /// waited for, or too much waits already.
    pub(crate) fn push(
        &mut self,
        uri: &Uri,
        origin: Origin,
        message: Message,
    ) -> Result<(), Box<Message>> {
        let size = message.size();
        let full =
            self.messages >= self.max_messages || self.bytes.saturating_add(size) > self.max_bytes;
        match self.clients.get_mut(uri) {
            Some(gone) if !full => {
                gone.waiting.push((origin, message));
                self.messages += 1;
                self.bytes += size;
                Ok(())
            }
            _ => Err(Box::new(message)),
        }
    }

    /// What has waited in vain for the next client whose time is over at `now`.
    pub(crate) fn expired(&mut self, now: u64) -> Option<Vec<(Origin, Message)>> {
        if self.next()? > now {
            return None;
        }
        let (_, uri) = self.ends.pop_first()?;
        let gone = self.clients.remove(&uri);
        if self.clients.is_empty() {
            // A compiler's death once made room that is not needed again.
            self.clients = HashMap::new();
        }
        Some(gone.map(|gone| self.take(gone)).unwrap_or_default())
    }

    /// When the next client is given up.
    pub(crate) fn next(&self) -> Option<u64> {
        self.ends.first().map(|(until, _)| *until)
    }

    pub(crate) fn messages(&self) -> usize {
        self.messages
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn take(&mut self, gone: Gone) -> Vec<(Origin, Message)> {
        self.messages = self.messages.saturating_sub(gone.waiting.len());
        let bytes: usize = gone.waiting.iter().map(|(_, m)| m.size()).sum();
        self.bytes = self.bytes.saturating_sub(bytes);
        gone.waiting
    }
}
