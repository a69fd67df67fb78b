//! The last words to a peer, as its version of PCP has them.

use bytes::{Bytes, BytesMut};
use pcp::websocket::{Opcode, close_payload, push_frame};
use pcp::{Frame, Goodbye, GoodbyeCode, frame};
use pcp_client::websocket::WebSocketWriter;
use tokio::io::AsyncWrite;
use tokio::time::timeout;

use super::FAREWELL;

/// The last frame, where it can still be understood. A courtesy.
pub(super) async fn close<W: AsyncWrite + Unpin>(
    writer: &mut WebSocketWriter<W>,
    code: u16,
    reason: &str,
) {
    if writer.is_whole() {
        let mut out = BytesMut::new();
        let payload = close_payload(code, reason);
        push_frame(&mut out, Opcode::Close, &[&payload], writer.key());
        drop(timeout(FAREWELL, writer.write(&out)).await);
    }
}

/// A goodbye as a close frame says it: the originals' codes and texts where they have some.
pub(super) fn close_of(goodbye: &Goodbye) -> (u16, String) {
    let code = u16::try_from(u32::from(goodbye.code)).unwrap_or(1011);
    let reason = match goodbye.code {
        GoodbyeCode::Superseded => "Superseded.".to_owned(),
        GoodbyeCode::Unavailable if goodbye.reason == "connection limit exceeded" => {
            "Connection limit exceeded.".to_owned()
        }
        _ => goodbye.reason.clone(),
    };
    (code, reason)
}

/// A goodbye as a frame of our own.
pub(super) fn goodbye_frame(goodbye: Goodbye) -> Bytes {
    frame::to_bytes(&Frame::Goodbye(goodbye))
}
