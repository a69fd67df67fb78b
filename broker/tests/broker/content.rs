//! Files by digest: from a controller with content, through a primary and a compiler, to an agent.

use pcp::{ContentError, ContentErrorCode, Digest};
use pcp_broker::config::Config;
use pcp_client::{Event, FEATURE_CONTENT, FetchError};
use tokio::io::AsyncReadExt as _;

use crate::field::{Client, Field, Running};
use crate::watching::{get, metrics};

/// The SHA-256 of [`SIZE`] sevens.
pub(crate) const HAVE: Digest = Digest([
    0xce, 0xff, 0x54, 0x4f, 0x04, 0x32, 0x63, 0x13, 0x36, 0x10, 0xe5, 0x1a, 0x0a, 0x4d, 0xf2, 0xf0,
    0x55, 0xd9, 0x14, 0x88, 0x68, 0x02, 0x52, 0x10, 0x31, 0x7f, 0xeb, 0x39, 0xc9, 0xc0, 0xd4, 0x11,
]);
/// The SHA-256 of [`SMALL`] sevens: what fifty agents want at once, in a build without optimisation.
const SMALLER: Digest = Digest([
    0x08, 0xf1, 0x66, 0x47, 0x6d, 0xe1, 0x83, 0xf7, 0xa1, 0xb2, 0x87, 0x4d, 0x54, 0x4d, 0x37, 0x91,
    0x2a, 0xaf, 0x8d, 0x19, 0xb9, 0x20, 0x13, 0xe1, 0xaa, 0xfe, 0x23, 0x3b, 0xa2, 0x31, 0x02, 0x4a,
]);
const HAVE_NOT: Digest = Digest([2; 32]);
const SIZE: usize = 5_000_000;
const SMALL: usize = 300_000;

/// Answers questions for files until it has done so as often.
pub(crate) async fn serve(source: &mut Client, times: usize) {
    for _ in 0..times {
        let Event::Content(query) = source.event().await else {
            panic!("not a question for a file");
        };
        let size = match query.digest {
            HAVE => Some(SIZE),
            SMALLER => Some(SMALL),
            _ => None,
        };
        if let Some(size) = size {
            let file = vec![7u8; size];
            let size = u64::try_from(size).expect("fits");
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

    let ((), got) = tokio::join!(serve(&mut orchestrator, 1), fetch(&near, HAVE));
    assert!(got.expect("found") == vec![7u8; SIZE]);
    // Now the primary has it.
    assert!(fetch(&far, HAVE).await.expect("found") == vec![7u8; SIZE]);
    for agent in [&near, &far] {
        let ((), got) = tokio::join!(serve(&mut orchestrator, 1), fetch(agent, HAVE_NOT));
        assert_eq!(got, Err(ContentErrorCode::NotFound));
    }
}

/// What a broker has counted of questions for files.
async fn counted(field: &Field, certname: &str, broker: &Running, sample: &str) -> f64 {
    let seen = metrics(field, certname, broker).await;
    let value = seen.get(&format!("pcp_broker_content_{sample}"));
    value.copied().unwrap_or_default()
}

/// Asks as so many agents at once.
async fn crowd(agents: &[Client], digest: Digest) -> Vec<Result<Vec<u8>, ContentErrorCode>> {
    let asked = agents.iter().map(|agent| fetch(agent, digest));
    futures_util::future::join_all(asked).await
}

#[tokio::test]
async fn fifty_agents_ask_at_once_and_one_fetch_goes_up() {
    let field = Field::new();
    let primary = field.primary();
    let compiler = field.compiler("compiler-1", &[primary.address]);
    let mut orchestrator = field.client_with("orch", "orchestrator", &primary, &[FEATURE_CONTENT]);
    orchestrator.wait_connected().await;
    let mut agents = Vec::new();
    for number in 0..50 {
        let name = format!("node{number}");
        agents.push(field.connected(&name, "agent", &compiler).await);
    }
    orchestrator.wait_present("pcp://node49/agent", true).await;

    let ((), files) = tokio::join!(serve(&mut orchestrator, 1), crowd(&agents, SMALLER));
    assert_eq!(files.len(), 50);
    for file in files {
        assert!(file.expect("found") == vec![7u8; SMALL]);
    }
    for (certname, broker) in [("compiler-1", &compiler), ("primary", &primary)] {
        assert_eq!(
            counted(&field, certname, broker, "fetches_total").await,
            1.0
        );
        assert_eq!(counted(&field, certname, broker, "cache_files").await, 1.0);
    }
    let mut answered = 0.0;
    for outcome in ["fetched", "joined", "cached"] {
        let sample = format!("requests_total{{outcome=\"{outcome}\"}}");
        answered += counted(&field, "compiler-1", &compiler, &sample).await;
    }
    assert_eq!(answered, 50.0);
    assert!(orchestrator.events.try_recv().is_err(), "it was asked once");

    // What cannot be had is asked for once as well, and everybody hears why. Who comes when it is
    // known already asks anew.
    let refusing = async {
        loop {
            serve(&mut orchestrator, 1).await;
        }
    };
    let refused = tokio::select! {
        biased;
        refused = crowd(&agents, HAVE_NOT) => refused,
        () = refusing => Vec::new(),
    };
    assert_eq!(refused.len(), 50);
    for answer in refused {
        assert_eq!(answer, Err(ContentErrorCode::NotFound));
    }
}

#[tokio::test]
async fn what_is_kept_survives_a_restart_and_is_given_over_https_too() {
    let field = Field::new();
    let primary = field.primary();
    let config = field.config("compiler-1", &[primary.address]);
    let compiler = Running::start(config.clone());
    let mut orchestrator = field.client_with("orch", "orchestrator", &primary, &[FEATURE_CONTENT]);
    orchestrator.wait_connected().await;
    let agent = field.connected("node", "agent", &compiler).await;
    orchestrator.wait_present("pcp://node/agent", true).await;
    let ((), got) = tokio::join!(serve(&mut orchestrator, 1), fetch(&agent, HAVE));
    got.expect("found");
    drop(agent);
    compiler.stop().await;
    // Neither orchestrator nor primary is there any more.
    primary.stop().await;
    let compiler = Running::start(config.clone());
    let agent = field.connected("node", "agent", &compiler).await;
    assert!(fetch(&agent, HAVE).await.expect("found") == vec![7u8; SIZE]);
    let path = format!("/content/{HAVE}");
    let (status, body) = get(&field, Some("node"), &compiler, &path).await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(body.into_bytes() == vec![7u8; SIZE]);

    // What was altered on the disk is not given out.
    let file = config.content_cache.dir.join(HAVE.to_string());
    let mut altered = vec![7u8; SIZE];
    altered[SIZE / 2] = 8;
    std::fs::write(&file, altered).expect("altered");
    assert_eq!(
        fetch(&agent, HAVE).await,
        Err(ContentErrorCode::Unavailable)
    );
    assert!(!file.exists());
    let corrupted = counted(&field, "compiler-1", &compiler, "cache_corrupted_total").await;
    assert_eq!(corrupted, 1.0);
}

#[tokio::test]
async fn a_source_that_sends_something_else_is_found_out() {
    let field = Field::new();
    let primary = field.primary();
    let mut orchestrator = field.client_with("orch", "orchestrator", &primary, &[FEATURE_CONTENT]);
    orchestrator.wait_connected().await;
    let agent = field.connected("node", "agent", &primary).await;
    for wrong in [vec![8u8; SIZE], Vec::new()] {
        let lying = async {
            let Event::Content(query) = orchestrator.event().await else {
                panic!("not a question for a file");
            };
            let size = u64::try_from(wrong.len()).expect("fits");
            query.found(size, &*wrong).await.expect("sent");
        };
        let asking = async {
            match agent.handle.fetch(HAVE).await {
                Ok(mut content) => {
                    let mut bytes = Vec::new();
                    let read = content.reader.read_to_end(&mut bytes).await;
                    // Of the wrong file nobody gets the last byte.
                    assert!(read.is_err() || wrong.is_empty(), "{read:?}");
                }
                Err(FetchError::Refused(error)) => {
                    assert_eq!(error.code, ContentErrorCode::Unavailable);
                }
                Err(error) => panic!("no answer: {error:?}"),
            }
        };
        tokio::join!(lying, asking);
    }
    assert_eq!(
        counted(&field, "primary", &primary, "cache_files").await,
        0.0
    );
    let ((), got) = tokio::join!(serve(&mut orchestrator, 1), fetch(&agent, HAVE));
    assert!(got.expect("found") == vec![7u8; SIZE]);
}

#[tokio::test]
async fn without_room_files_are_passed_on_without_being_kept() {
    let field = Field::new();
    let full = |config: &mut Config| config.content_cache.reserve = u64::MAX / 2;
    let small = |config: &mut Config| config.content_cache.size = 1000;
    let off = |config: &mut Config| config.content_cache.size = 0;
    let unusable = |config: &mut Config| {
        std::fs::write(&config.content_cache.dir, "a file").expect("written");
    };
    let cases: [&dyn Fn(&mut Config); 4] = [&full, &small, &off, &unusable];
    for (number, change) in cases.into_iter().enumerate() {
        let mut config = field.config("primary", &[]);
        config.content_cache.dir = field.path().join(format!("content-{number}"));
        change(&mut config);
        let primary = Running::start(config);
        let mut orchestrator =
            field.client_with("orch", "orchestrator", &primary, &[FEATURE_CONTENT]);
        orchestrator.wait_connected().await;
        let agent = field.connected("node", "agent", &primary).await;
        for _ in 0..2 {
            let ((), got) = tokio::join!(serve(&mut orchestrator, 1), fetch(&agent, HAVE));
            assert!(got.expect("found") == vec![7u8; SIZE], "case {number}");
        }
        assert_eq!(
            counted(&field, "primary", &primary, "cache_files").await,
            0.0
        );
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
