//! The database on a real disk: what is promised about writes, and the reads whose rules are not
//! plain selects.

use std::collections::BTreeMap;
use std::sync::Arc;

use orchestrator_api::{
    JobOptions, JobOrder, JobState, JobType, JobsQuery, NodeOrder, NodeState, NodesQuery, Order,
    Scope, TaskOptions, Time,
};
use pcp::uri::Certname;
use pxp::ActionResult;
use serde_json::{Map, json};

use super::*;
use crate::job::JobId;
use crate::outcome::Outcome;

impl Store {
    /// From now on, the disk has this many pages, or those that are used already.
    pub(crate) async fn limit_pages(&self, pages: u32) {
        self.write(move |connection| {
            connection
                .query_row(&format!("PRAGMA max_page_count = {pages}"), (), |_| Ok(()))
                .map_err(StoreError::of("be limited"))
        })
        .await
        .unwrap();
    }

    /// Keeps the disk busy until what is given back is dropped.
    pub(crate) async fn hold_writes(&self) -> std::sync::mpsc::Sender<()> {
        let (release, held) = std::sync::mpsc::channel();
        let (begin, begun) = tokio::sync::oneshot::channel();
        let write = self.write(move |_| {
            begin.send(()).unwrap();
            held.recv().unwrap_err();
            Ok(())
        });
        tokio::select! {
            result = write => panic!("the write is over: {result:?}"),
            result = begun => result.unwrap(),
        }
        release
    }

    /// How many rows a table has.
    pub(crate) async fn count(&self, table: &'static str) -> i64 {
        self.read(move |connection| {
            let count = format!("SELECT count(*) FROM {table}");
            Ok(connection.query_row(&count, (), |row| row.get(0)).unwrap())
        })
        .await
        .unwrap()
    }

    /// Waits until a write waits for the disk.
    pub(crate) async fn write_waits(&self) {
        let mut polls = tokio::time::interval(Duration::from_millis(10));
        while self.writer.waiting() == 0 {
            polls.tick().await;
        }
    }
}

fn options(task: &str) -> TaskOptions {
    TaskOptions {
        description: String::new(),
        plan_job: None,
        noop: false,
        task: task.to_owned(),
        sensitive: vec![],
        scheduled_job_id: None,
        params: Map::new(),
        scope: Scope::Nodes(vec!["a".to_owned()]),
        environment: "production".to_owned(),
        concurrency: None,
        timeout: None,
        notes: vec![],
        rerun_of: None,
    }
}

pub(crate) fn new_job(task: &str, transactions: &[&str], at: i64) -> NewJob {
    NewJob {
        job_type: JobType::Task,
        owner: "ada".to_owned(),
        options: JobOptions::Task(options(task)),
        userdata: Map::new(),
        request: None,
        files: vec![],
        time_limit: 60,
        nodes: transactions
            .iter()
            .map(|id| NewNode {
                certname: Certname::parse("a").unwrap(),
                transaction: id.parse().unwrap(),
            })
            .collect(),
        concurrency: None,
        plan_job: None,
        at,
    }
}

fn started(job: JobId) -> Change {
    let certname = Certname::parse("a").unwrap();
    Change::NodeStarted {
        job,
        node: 0,
        certname,
        at: 10,
    }
}

fn ended(job: JobId, result: &str) -> Change {
    let certname = Certname::parse("a").unwrap();
    let outcome = Outcome::of_run(&ActionResult {
        exitcode: 0,
        stdout: Some(json!({"is": result}).to_string()),
        stderr: None,
        usage: None,
    });
    Change::NodeEnded {
        job,
        node: 0,
        certname,
        at: 20,
        end: Box::new(NodeEnd::of(NodeState::Finished, outcome)),
    }
}

pub(crate) fn entered(job: JobId, state: JobState) -> Change {
    Change::JobEntered { job, state, at: 30 }
}

pub(crate) async fn apply(store: &Store, changes: Vec<Change>) {
    store.apply(Arc::new(changes)).await.unwrap();
}

#[tokio::test]
async fn what_fails_is_undone_and_does_not_touch_what_is_written_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("a.db")).unwrap();
    let (first, second, third) = tokio::join!(
        store.add_job(new_job("one", &["t1", "t2"], 1)),
        store.add_job(new_job("two", &["t3", "t1"], 1)),
        store.add_job(new_job("three", &["t4"], 1)),
    );
    first.unwrap();
    assert!(second.is_err());
    third.unwrap();
    let (jobs, total) = store.jobs(JobsQuery::default()).await.unwrap();
    let tasks: Vec<_> = jobs.iter().map(|job| job.options.task().unwrap()).collect();
    assert_eq!((tasks, total), (vec!["one", "three"], 2));
}

#[tokio::test]
async fn a_full_disk_is_told_and_passes() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("a.db")).unwrap();
    store.limit_pages(1).await;
    let large = "x".repeat(1_000_000);
    let error = store
        .add_job(new_job(&large, &["t1"], 1))
        .await
        .unwrap_err();
    assert!(
        error.with_hint().contains("(the disk is full)"),
        "{}",
        error.with_hint()
    );
    store.limit_pages(100_000).await;
    store.add_job(new_job(&large, &["t1"], 1)).await.unwrap();
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    drop(Store::open(&path).unwrap());
    let connection = Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    assert!(matches!(
        Store::open(&path),
        Err(StoreError::TooNew { found: 99, .. })
    ));
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    std::fs::write(
        &path,
        "not a database, but long enough to be read as its header would be\n".repeat(9),
    )
    .unwrap();
    let error = Store::open(&path).unwrap_err();
    assert!(
        error.with_hint().contains("damaged"),
        "{}",
        error.with_hint()
    );
}

#[tokio::test]
async fn a_second_end_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("a.db")).unwrap();
    let job = store.add_job(new_job("one", &["t1"], 1)).await.unwrap();
    apply(
        &store,
        vec![
            entered(job, JobState::Running),
            started(job),
            ended(job, "first"),
        ],
    )
    .await;
    apply(
        &store,
        vec![ended(job, "second"), entered(job, JobState::Finished)],
    )
    .await;
    let nodes = store
        .nodes(job, NodesQuery::default(), None)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(nodes.items[0].result, Some(json!({"is": "first"})));
    let (stored, states) = store.job(job).await.unwrap().unwrap();
    assert_eq!(
        stored.node_states,
        BTreeMap::from([(NodeState::Finished, 1)])
    );
    let states: Vec<_> = states.iter().map(|state| state.state).collect();
    let all = [
        JobState::New,
        JobState::Ready,
        JobState::Running,
        JobState::Finished,
    ];
    assert_eq!(states, all);
    assert!(store.unfinished().await.unwrap().is_empty());
}

#[tokio::test]
async fn followers_of_a_job_are_never_told_of_another_jobs_events() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("a.db")).unwrap();
    let one = store.add_job(new_job("one", &["t1"], 1)).await.unwrap();
    let two = store.add_job(new_job("two", &["t2"], 1)).await.unwrap();
    let next = |events| match events {
        StoredEvents::Events { items, next, .. } => (items.len(), next),
        StoredEvents::UnknownJob | StoredEvents::Mismatched => panic!("no events"),
    };
    assert_eq!(next(store.events(one, 0, None).await.unwrap()), (0, 0));
    // Events 1 and 4 are of the first job, 2 and 3 of the second.
    apply(
        &store,
        vec![started(one), started(two), ended(two, "x"), ended(one, "x")],
    )
    .await;
    assert_eq!(next(store.events(one, 0, None).await.unwrap()), (2, 5));
    // 2 is what a follower of the first job asks for after its event 1.
    assert_eq!(next(store.events(one, 2, None).await.unwrap()), (1, 5));
    assert_eq!(next(store.events(one, 5, None).await.unwrap()), (0, 5));
    assert!(matches!(
        store.events(one, 3, None).await.unwrap(),
        StoredEvents::Mismatched
    ));
    assert!(matches!(
        store.events(two, 1, None).await.unwrap(),
        StoredEvents::Mismatched
    ));
    assert!(matches!(
        store.events(JobId(9), 0, None).await.unwrap(),
        StoredEvents::UnknownJob
    ));
}

#[tokio::test]
async fn lists_of_jobs_are_filtered_ordered_and_cut() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("a.db")).unwrap();
    for (task, transaction, at) in [
        ("package", "t1", 3),
        ("service", "t2", 2),
        ("service::x", "t3", 1),
    ] {
        store
            .add_job(new_job(task, &[transaction], at))
            .await
            .unwrap();
    }
    apply(&store, vec![entered(JobId(2), JobState::Finished)]).await;
    let names = |query: JobsQuery| async {
        let (jobs, total) = store.jobs(query).await.unwrap();
        (jobs.iter().map(|job| job.id.0).collect::<Vec<_>>(), total)
    };
    let query = JobsQuery::default;
    assert_eq!(names(query()).await, (vec![3, 2, 1], 3));
    assert_eq!(
        names(JobsQuery {
            order: Some(Order::Desc),
            ..query()
        })
        .await,
        (vec![1, 2, 3], 3)
    );
    let by_name = JobsQuery {
        order_by: Some(JobOrder::Name),
        limit: Some(1),
        offset: Some(1),
        ..query()
    };
    assert_eq!(names(by_name).await, (vec![2], 3));
    assert_eq!(
        names(JobsQuery {
            task: Some("serv".into()),
            ..query()
        })
        .await,
        (vec![3, 2], 2)
    );
    assert_eq!(
        names(JobsQuery {
            task: Some("%".into()),
            ..query()
        })
        .await,
        (vec![], 0)
    );
    let ended = JobsQuery {
        min_finish_timestamp: Some(Time::from_millis(30)),
        ..query()
    };
    assert_eq!(names(ended).await, (vec![2], 1));
    let later = JobsQuery {
        min_finish_timestamp: Some(Time::from_millis(31)),
        ..query()
    };
    assert_eq!(names(later).await, (vec![], 0));
}

#[tokio::test]
async fn nobody_else_can_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("a.db")).unwrap();
    store.add_job(new_job("one", &["t1"], 1)).await.unwrap();
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let mode = file.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let error = Store::open(&dir.path().join("no/such/a.db")).unwrap_err();
    assert!(error.with_hint().contains("No such file or directory"));
}

#[tokio::test]
async fn following_a_job_does_not_cost_a_look_at_all_of_its_nodes() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("a.db")).unwrap();
    let query = NodesQuery {
        limit: Some(10),
        order_by: Some(NodeOrder::FinishTimestamp),
        state: Some(NodeState::Finished),
        ..NodesQuery::default()
    };
    let statements = [
        (query::nodes_statement(&query, false), "state=?"),
        // Those before the mark are not even passed over.
        (query::nodes_statement(&query, true), "finished"),
        (query::NODE_COUNTS.to_owned(), "job=?"),
    ];
    for (statement, bound) in statements {
        let plan = format!("EXPLAIN QUERY PLAN {statement}");
        let plan: Vec<String> = store
            .read(move |connection| {
                let mut select = connection.prepare(&plan).unwrap();
                let rows = select.raw_query().mapped(|row| row.get(3));
                Ok(rows.collect::<Result<_, _>>().unwrap())
            })
            .await
            .unwrap();
        let plan = plan.join("; ");
        assert!(
            plan.contains("node_runs_state") && plan.contains(bound),
            "{plan}"
        );
        assert!(!plan.contains("TEMP B-TREE"), "{plan}");
    }
}

#[tokio::test]
async fn a_database_of_the_first_version_is_taken_over_with_its_jobs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.db");
    let connection = Connection::open(&path).unwrap();
    connection
        .execute_batch(include_str!("schema.sql"))
        .unwrap();
    connection.pragma_update(None, "user_version", 1).unwrap();
    let options = r#"{"description":"","plan_job":null,"noop":false,"task":"a","sensitive":[],
        "scheduled-job-id":null,"params":{},"scope":{"nodes":["a"]},"environment":"production",
        "timeout":null}"#;
    connection
        .execute(
            "INSERT INTO jobs (type, state, environment, task, owner, description, options, \
             userdata, request, files, time_limit, node_count, created, changed) VALUES \
             ('task', 'running', 'production', 'a', 'ada', '', ?1, '{}', '{}', '[]', 60, 1, 1, 1)",
            [options],
        )
        .unwrap();
    connection
        .execute_batch(
            "INSERT INTO node_runs (job, node, certname, transaction_id, state, accepted, changed, \
             started) VALUES (1, 0, 'a', 't1', 'running', 1, 1, 1)",
        )
        .unwrap();
    drop(connection);
    let store = Store::open(&path).unwrap();
    let unfinished = store.unfinished().await.unwrap();
    assert_eq!(
        (unfinished[0].job_type, unfinished[0].concurrency),
        (JobType::Task, None)
    );
    assert!(!unfinished[0].nodes[0].given_up);
    apply(
        &store,
        vec![ended(JobId(1), "x"), entered(JobId(1), JobState::Finished)],
    )
    .await;
    let nodes = store
        .nodes(JobId(1), NodesQuery::default(), None)
        .await
        .unwrap();
    assert_eq!(nodes.unwrap().items[0].state, NodeState::Finished);
    let (job, _) = store.job(JobId(1)).await.unwrap().unwrap();
    assert_eq!(job.options.task(), Some("a"));
}
