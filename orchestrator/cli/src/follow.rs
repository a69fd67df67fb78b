//! Follows a job by its events, and fetches what its nodes gave back.
//!
//! An event says that a node has ended; its result is in the list of nodes. The lists, one for each
//! way to end, are read on from where they were left until every node that the events named has been
//! seen: each node is read once, however many there are.

use std::collections::HashSet;
use std::time::Duration;

use orchestrator_api::{ErrorKind, Event, EventType, Job, Node, NodeState};

use crate::client::{Client, EventSource, EventStream, Page};
use crate::error::Failure;

/// The first pause between two looks at a job, where events do not come by themselves. A quick task
/// on one node ends within it.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);

/// The longest pause: what a person does not feel as a delay, and a server does not feel as load.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How many nodes are asked for at once: few round trips for a large job, and an answer of modest
/// size as long as outputs are modest.
pub(crate) const PAGE: u64 = 250;

/// What has happened since the last look.
#[derive(Debug)]
pub(crate) enum News {
    /// The task has been sent to this node.
    Started(String),
    /// This node has ended.
    Ended(Box<Node>),
    /// The job was asked to stop.
    Stopping,
}

/// Where events come from.
#[derive(Debug)]
enum Source {
    /// It has to be asked how they come.
    New,
    /// They come by themselves.
    Stream(Box<EventStream>),
    /// They are asked for after a pause.
    List { pause: Duration },
}

/// How far a job has been seen.
#[derive(Debug)]
pub(crate) struct Follower<'a> {
    client: &'a Client,
    job: String,
    next_event: Option<String>,
    source: Source,
    /// Nodes whose end was announced, and whose result has not been fetched.
    awaited: HashSet<(NodeState, String)>,
    /// How far the lists of nodes that have ended have been read.
    marks: [(NodeState, Option<String>); 4],
    reported: HashSet<String>,
    running: HashSet<String>,
    is_over: bool,
}

impl<'a> Follower<'a> {
    pub(crate) fn new(client: &'a Client, job: &str) -> Self {
        Self {
            client,
            job: job.to_owned(),
            next_event: None,
            source: Source::New,
            awaited: HashSet::new(),
            marks: [
                (NodeState::Finished, None),
                (NodeState::Failed, None),
                (NodeState::Errored, None),
                (NodeState::Skipped, None),
            ],
            reported: HashSet::new(),
            running: HashSet::new(),
            is_over: false,
        }
    }

    /// Whether the last event has been seen.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// How many nodes have been started and not ended.
    pub(crate) fn running(&self) -> u64 {
        u64::try_from(self.running.len()).unwrap_or(u64::MAX)
    }

    /// Waits for events. After an error it may be called again, and it may be dropped: nothing that
    /// was seen is lost. What ended is told by [`Self::fetch`].
    ///
    /// # Errors
    /// When the orchestrator does not answer, or refuses.
    pub(crate) async fn wait(&mut self, news: &mut Vec<News>) -> Result<(), Failure> {
        match &mut self.source {
            Source::New => {
                let start = self.next_event.as_deref();
                match self.client.follow_events(&self.job, start).await {
                    Ok(EventSource::Stream(stream)) => {
                        self.source = Source::Stream(stream);
                    }
                    Ok(EventSource::List(events)) => {
                        self.source = Source::List {
                            pause: SHORTEST_PAUSE,
                        };
                        self.next_event = Some(events.next_events.event);
                        self.take(events.items, news);
                    }
                    // So many follow that the rest has to ask.
                    Err(Failure::Api(error))
                        if error.known() == Some(ErrorKind::Unavailable)
                            && self.client.job(&self.job).await.is_ok() =>
                    {
                        self.source = Source::List {
                            pause: SHORTEST_PAUSE,
                        };
                    }
                    Err(failure) => return Err(failure),
                }
            }
            Source::Stream(stream) => match stream.next().await {
                Ok(Some(events)) => {
                    if let Some(last) = events.last().and_then(|event| event.id.parse::<u64>().ok())
                    {
                        self.next_event = Some(last.saturating_add(1).to_string());
                    }
                    self.take(events, news);
                }
                // It is asked again where the events after those are.
                Ok(None) => {
                    self.source = Source::New;
                    tokio::time::sleep(SHORTEST_PAUSE).await;
                }
                Err(failure) => {
                    self.source = Source::New;
                    return Err(failure);
                }
            },
            Source::List { pause } => {
                tokio::time::sleep(*pause).await;
                *pause = (*pause * 2).min(LONGEST_PAUSE);
                let start = self.next_event.as_deref();
                let events = self.client.events(&self.job, start).await?;
                if !events.items.is_empty() {
                    *pause = SHORTEST_PAUSE;
                }
                self.next_event = Some(events.next_events.event);
                self.take(events.items, news);
            }
        }
        Ok(())
    }

    fn take(&mut self, events: Vec<Event>, news: &mut Vec<News>) {
        for event in events {
            count(&mut self.running, &event);
            self.is_over |= event.event_type.is_last();
            let state = match event.event_type {
                EventType::NodeRunning => {
                    news.extend(event.details.node.map(News::Started));
                    continue;
                }
                EventType::JobStopping => {
                    news.push(News::Stopping);
                    continue;
                }
                EventType::NodeFinished => NodeState::Finished,
                EventType::NodeFailed => NodeState::Failed,
                EventType::NodeErrored => NodeState::Errored,
                EventType::NodeSkipped => NodeState::Skipped,
                EventType::JobFinished | EventType::JobAborted => continue,
            };
            if let Some(name) = event.details.node
                && !self.reported.contains(&name)
            {
                self.awaited.insert((state, name));
            }
        }
    }

    /// Fetches the results of nodes that have ended.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub(crate) async fn fetch(&mut self, news: &mut Vec<News>) -> Result<(), Failure> {
        for index in 0..self.marks.len() {
            let Some((state, mut mark)) = self.marks.get(index).cloned() else {
                break;
            };
            let mut limit = PAGE;
            while self.awaited.iter().any(|(awaited, _)| *awaited == state) {
                let page = self.client.ended(&self.job, state, mark.as_deref(), limit);
                let nodes = match page.await {
                    Ok(nodes) => nodes,
                    Err(Failure::AnswerTooLarge { .. }) if limit > 1 => {
                        limit /= 2;
                        continue;
                    }
                    Err(failure) => return Err(failure),
                };
                for node in nodes.items {
                    self.awaited.remove(&(state, node.name.clone()));
                    self.report(node, news);
                }
                let Some(next) = nodes.next_nodes else { break };
                mark = Some(next);
                if let Some((_, kept)) = self.marks.get_mut(index) {
                    kept.clone_from(&mark);
                }
            }
        }
        // What the lists do not show behind the marks comes at the end.
        self.awaited.clear();
        Ok(())
    }

    /// The nodes of a job that has ended that no event announced.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub(crate) async fn unreported(&self, job: &Job) -> Result<Vec<News>, Failure> {
        if u64::try_from(self.reported.len()).is_ok_and(|reported| reported >= job.node_count) {
            return Ok(Vec::new());
        }
        let mut nodes = all_nodes(self.client, &self.job).await?;
        nodes.retain(|node| !self.reported.contains(&node.name));
        Ok(nodes
            .into_iter()
            .map(|node| News::Ended(Box::new(node)))
            .collect())
    }

    fn report(&mut self, node: Node, news: &mut Vec<News>) {
        if self.reported.insert(node.name.clone()) {
            news.push(News::Ended(Box::new(node)));
        }
    }
}

/// Which nodes run, by what happens. One that ends in an error may have been running or not.
fn count(running: &mut HashSet<String>, event: &Event) {
    let Some(name) = &event.details.node else {
        return;
    };
    match event.event_type {
        EventType::NodeRunning => running.extend([name.clone()]),
        EventType::NodeFinished
        | EventType::NodeFailed
        | EventType::NodeErrored
        | EventType::NodeSkipped => {
            running.remove(name);
        }
        EventType::JobStopping | EventType::JobFinished | EventType::JobAborted => {}
    }
}

/// All nodes of a job, by name.
///
/// # Errors
/// When the orchestrator does not answer, or refuses.
pub(crate) async fn all_nodes(client: &Client, job: &str) -> Result<Vec<Node>, Failure> {
    let mut page = Page {
        offset: 0,
        limit: PAGE,
    };
    let mut all = Vec::new();
    while let Some(nodes) = list(client, job, &mut page).await? {
        all.extend(nodes);
    }
    Ok(all)
}

/// One page, and the step to the next; nothing after the last. A page of outputs that are too large
/// together is asked for in smaller ones.
async fn list(client: &Client, job: &str, page: &mut Page) -> Result<Option<Vec<Node>>, Failure> {
    loop {
        match client.nodes(job, *page).await {
            Ok(nodes) => {
                page.offset += u64::try_from(nodes.items.len()).unwrap_or(u64::MAX);
                return Ok((!nodes.items.is_empty()).then_some(nodes.items));
            }
            Err(Failure::AnswerTooLarge { .. }) if page.limit > 1 => page.limit /= 2,
            Err(failure) => return Err(failure),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_that_ends_in_an_error_while_it_runs_is_not_counted_as_running() {
        let mut running = HashSet::new();
        let mut after = |event_type: &str, node: &str| {
            let event = json!({"id": "1", "type": event_type, "message": "",
                "timestamp": "2026-11-22T14:30:00Z", "details": {"node": node, "detail": {}}});
            count(&mut running, &serde_json::from_value(event).unwrap());
            running.len()
        };
        assert_eq!(after("node_running", "a"), 1);
        assert_eq!(after("node_running", "b"), 2);
        assert_eq!(after("node_errored", "never-started"), 2);
        assert_eq!(after("node_errored", "a"), 1);
        assert_eq!(after("node_finished", "b"), 0);
    }
}
