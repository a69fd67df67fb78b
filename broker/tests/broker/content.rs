//! Files by digest: from a controller with content, through a primary and a compiler, to an agent.

use pcp::{ContentError, ContentErrorCode, Digest};
use pcp_client::{Event, FEATURE_CONTENT, FetchError};
use tokio::io::AsyncReadExt as _;

use crate::field::{Client, Field};

pub(crate) const HAVE: Digest = Digest([1; 32]);
const HAVE_NOT: Digest = Digest([2; 32]);
const SIZE: usize = 5_000_000;

/// Answers questions for files until it has done so as often.
pub(crate) async fn serve(source: &mut Client, times: usize) {
    for _ in 0..times {
        let Event::Content(query) = source.event().await else {
            panic!("not a question for a file");
        };
        if query.digest == HAVE {
            let file = vec![7u8; SIZE];
            let size = u64::try_from(SIZE).expect("fits");
            query.found(size, &*file).await.expect("sent");
        } else {
            let error = ContentError {
                code: ContentErrorCode::NotFound,
                message: "no such file".to_owned(),
            };
            query.refuse(error).await.expect("sent");
        }
    }
}

pub(crate) async fn fetch(client: &Client, digest: Digest) -> Result<Vec<u8>, ContentErrorCode> {
    match client.handle.fetch(digest).await {
        Ok(mut content) => {
            let mut bytes = Vec::new();
            content.reader.read_to_end(&mut bytes).await.expect("read");
            assert_eq!(content.size, bytes.len() as u64);
            Ok(bytes)
        }
        Err(FetchError::Refused(error)) => Err(error.code),
        Err(error) => panic!("no answer: {error:?}"),
    }
}

#[tokio::test]
async fn files_travel_through_two_brokers() {
    let field = Field::new();
    let primary = field.primary();
    let compiler = field.compiler("compiler-1", &[primary.address]);
    let mut orchestrator = field.client_with("orch", "orchestrator", &primary, &[FEATURE_CONTENT]);
    orchestrator.wait_connected().await;
    let near = field.connected("near", "agent", &primary).await;
    let far = field.connected("far", "agent", &compiler).await;
    orchestrator.wait_present("pcp://far/agent", true).await;

    for agent in [&near, &far] {
        let ((), got) = tokio::join!(serve(&mut orchestrator, 1), fetch(agent, HAVE));
        assert!(got.expect("found") == vec![7u8; SIZE]);
        let ((), got) = tokio::join!(serve(&mut orchestrator, 1), fetch(agent, HAVE_NOT));
        assert_eq!(got, Err(ContentErrorCode::NotFound));
    }
}

#[tokio::test]
async fn without_a_source_files_are_unavailable_for_now() {
    let field = Field::new();
    let primary = field.primary();
    let compiler = field.compiler("compiler-1", &[primary.address]);
    let mut orchestrator = field.connected("orch", "orchestrator", &primary).await;
    let far = field.connected("far", "agent", &compiler).await;
    orchestrator.wait_present("pcp://far/agent", true).await;
    assert_eq!(fetch(&far, HAVE).await, Err(ContentErrorCode::Unavailable));
}

#[tokio::test]
async fn an_agent_is_no_source_of_content() {
    let field = Field::new();
    let primary = field.primary();
    let mut rogue = field.client_with("rogue", "agent", &primary, &[FEATURE_CONTENT]);
    rogue.wait_connected().await;
    let agent = field.connected("node", "agent", &primary).await;
    assert_eq!(
        fetch(&agent, HAVE).await,
        Err(ContentErrorCode::Unavailable)
    );
    assert!(rogue.events.try_recv().is_err());
}
