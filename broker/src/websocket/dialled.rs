//! A controller that we have dialled: a session of PCP 2 like that of one which has dialled us, but that
//! we ask whether it is still there, and that it speaks without a hello.

use std::sync::Arc;

use identity::Identity;
use pcp::{FrameReader, ServerSession, Uri};
use pcp_client::outward::Outward;

use super::open::{Native, Opened};
use super::serve_opened;
use crate::context::Context;
use crate::outbox::{CONTROLLER_BYTES, CONTROLLER_LARGE, Outbox};
use crate::version::Version;

/// Serves it to its end. It was verified by `identity`.
pub(crate) async fn serve(
    outward: Outward,
    uri: Uri,
    identity: Arc<Identity>,
    context: &Arc<Context>,
) {
    let opened = Opened {
        session: context.ids.next(),
        uri,
        started: context.starts.next_start(),
        software: "PCP 2 over WebSocket, dialled".to_owned(),
        version: Version::Two,
        reader: outward.reader,
        writer: outward.writer,
        // PCP 2 has no use for them.
        native: Native {
            state: ServerSession::default(),
            frames: FrameReader::new(0),
        },
        outbox: Arc::new(Outbox::of_messages(CONTROLLER_BYTES, CONTROLLER_LARGE)),
        address: outward.address,
        certificates: outward.certificates,
        identity,
        counted: None,
    };
    serve_opened(Box::new(opened), context).await;
}
