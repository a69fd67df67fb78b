//! The processes of blocking requests, by the ids of these requests: `task stop` ends them, too. Several
//! may have one id, for nothing keeps requesters of blocking requests from it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use pxp::{StopState, TransactionId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What runs, or waits to run, for requesters that wait for it. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct BlockingRuns(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    next: u64,
    /// As many as there may be blocking requests in hand.
    runs: HashMap<u64, Run>,
}

#[derive(Debug)]
struct Run {
    id: TransactionId,
    stop: CancellationToken,
    end: watch::Receiver<Option<StopState>>,
}

/// The place of a run in the table, until it is dropped.
#[derive(Debug)]
pub struct Entered {
    runs: BlockingRuns,
    number: u64,
    stop: CancellationToken,
    end: watch::Sender<Option<StopState>>,
}

impl BlockingRuns {
    /// Enters a run that is about to begin.
    #[must_use]
    pub fn enter(&self, id: TransactionId) -> Entered {
        let stop = CancellationToken::new();
        let (end, ended) = watch::channel(None);
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = table.next;
        table.next += 1;
        let run = Run {
            id,
            stop: stop.clone(),
            end: ended,
        };
        table.runs.insert(number, run);
        Entered {
            runs: self.clone(),
            number,
            stop,
            end,
        }
    }

    /// Ends all runs of this id, and returns when nothing of them is left: stopped, if any of them was.
    /// Nothing, if there is none.
    pub async fn stop(&self, id: &TransactionId) -> Option<StopState> {
        let mut state = None;
        for mut end in self.ask_to_stop(id) {
            // Without a last word the agent is stopping.
            let ended = end
                .wait_for(Option::is_some)
                .await
                .ok()
                .and_then(|end| *end);
            if state != Some(StopState::Stopped) {
                state = ended.or(state);
            }
        }
        state
    }

    fn ask_to_stop(&self, id: &TransactionId) -> Vec<watch::Receiver<Option<StopState>>> {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let runs = table.runs.values().filter(|run| run.id == *id);
        runs.map(|run| {
            run.stop.cancel();
            run.end.clone()
        })
        .collect()
    }
}

impl Entered {
    /// Cancelled when somebody wants the run to end.
    #[must_use]
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Nothing of the run is left.
    pub fn ended(self, state: StopState) {
        self.end.send_replace(Some(state));
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut table = self.runs.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.runs.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> TransactionId {
        TransactionId::parse(text).unwrap()
    }

    #[tokio::test]
    async fn all_runs_of_an_id_are_asked_and_waited_for() {
        let runs = BlockingRuns::default();
        let [first, second, other] = ["a", "a", "b"].map(|name| runs.enter(id(name)));
        let (a, b) = (id("a"), id("b"));
        let stopped = runs.stop(&a);
        tokio::pin!(stopped);
        tokio::select! {
            biased;
            state = &mut stopped => panic!("two are there still: {state:?}"),
            () = std::future::ready(()) => {}
        }
        assert!(first.stop().is_cancelled() && second.stop().is_cancelled());
        assert!(!other.stop().is_cancelled());
        first.ended(StopState::Stopped);
        second.ended(StopState::Finished);
        assert_eq!(stopped.await, Some(StopState::Stopped));
        assert_eq!(runs.stop(&a).await, None, "they have left");
        drop(other);
        assert_eq!(runs.stop(&b).await, None);
    }
}
