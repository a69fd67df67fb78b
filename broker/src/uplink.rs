//! A link that we have dialled: a compiler's to one of its primaries, or a primary's to one beside it.
//! It is an ordinary client of type `server`, whose events become the driver's inputs.

use std::sync::Arc;

use pcp::{Certname, ContentError, ContentErrorCode};
use pcp_client::{ClientHandle, Event};
use pcp_mesh::{LinkKind, SessionId};
use tokio::sync::mpsc;

use crate::context::SessionIds;
use crate::input::{Exit, Input};

/// Passes on what happens on a link until the client ends. Each session of the link has a number of
/// its own, so that nothing of an old one is taken for the new.
pub(crate) async fn run(
    handle: ClientHandle,
    mut events: mpsc::Receiver<Event>,
    inputs: mpsc::Sender<Input>,
    ids: Arc<SessionIds>,
    expected: Expected,
) {
    let mut current: Option<SessionId> = None;
    while let Some(event) = events.recv().await {
        let input = match (event, current) {
            (Event::Connected { welcome, .. }, _) => {
                if let Err(fault) = expected.check(&welcome.broker) {
                    tracing::error!(broker = %welcome.broker, %fault, "not the broker that was meant");
                    handle.reconnect();
                    continue;
                }
                let session = ids.next();
                current = Some(session);
                Input::Link {
                    session,
                    broker: welcome.broker,
                    kind: LinkKind::Up,
                    started: 0,
                    address: None,
                    exit: Exit::Uplink(handle.clone()),
                }
            }
            (Event::Message(message), Some(session)) => Input::Message { session, message },
            (Event::Link(frame), Some(session)) => Input::LinkFrame { session, frame },
            (Event::Disconnected { .. }, Some(session)) => {
                current = None;
                Input::Closed { session }
            }
            (Event::Content(query), _) => {
                // We do not offer content to a primary, so a sound one does not ask.
                let error = ContentError {
                    code: ContentErrorCode::NotFound,
                    message: "a compiler has no content of its own".to_owned(),
                };
                drop(query.refuse(error).await);
                continue;
            }
            // A message that outlived its session: its sender will hear nothing, as if it had been
            // lost with the connection.
            (Event::Message(_) | Event::Link(_) | Event::Disconnected { .. }, None) => continue,
        };
        if inputs.send(input).await.is_err() {
            return;
        }
    }
}

/// Who may be at the other end of a link that we dial.
#[derive(Debug, Clone)]
pub(crate) enum Expected {
    /// A compiler's primary: whoever its certificate says that has the name that we dial.
    Primary,
    /// A primary beside us: one of these.
    Beside {
        own: Certname,
        primaries: Arc<[Certname]>,
    },
}

impl Expected {
    fn check(&self, broker: &Certname) -> Result<(), &'static str> {
        match self {
            Self::Beside { own, .. } if own == broker => {
                Err("`primaries` names this broker itself: take it out")
            }
            Self::Beside { primaries, .. } if !primaries.contains(broker) => {
                Err("it is not among `primary-certnames`")
            }
            Self::Primary | Self::Beside { .. } => Ok(()),
        }
    }
}
