//! `usage`: how much is done, by day. Changes are those of Puppet runs that jobs have started; other
//! runs are known to PuppetDB alone.

use axum::extract::State;
use orchestrator_api::{
    ApiError, Date, ErrorKind, Usage, UsageEvents, UsagePagination, UsageQuery,
};

use super::Api;
use super::answer::{Answer, Fallible};
use super::request::Params;
use crate::clock::wall;

/// How many days are told when the query does not say since when.
const DAYS: usize = 30;

/// How many days are told at most: each costs a query.
const MOST_DAYS: usize = 366;

/// `GET usage`.
pub(super) async fn usage(
    State(api): State<Api>,
    Params(query): Params<UsageQuery>,
) -> Fallible<Usage> {
    let invalid = |msg: String| ApiError::new(ErrorKind::ValidationError, msg);
    let end = query.end_date.unwrap_or(Date::of_millis(wall()));
    let start = query.start_date.unwrap_or(end.before(DAYS));
    let mut days = vec![end];
    while let Some(last) = days.last()
        && *last > start
    {
        if days.len() >= MOST_DAYS {
            return Err(invalid(format!("at most {MOST_DAYS} days are told at once")).into());
        }
        let before = last.before(1);
        days.push(before);
    }
    if start > end {
        return Err(invalid("start_date is after end_date".to_owned()).into());
    }
    let mut items = api.store.usage(days).await?;
    if query.events == Some(UsageEvents::Exclude) {
        for item in &mut items {
            item.corrective_agent_changes = None;
            item.intentional_agent_changes = None;
        }
    }
    let total = u64::try_from(items.len()).unwrap_or(u64::MAX);
    Ok(Answer::ok(Usage {
        items,
        pagination: UsagePagination {
            start_date: start,
            end_date: end,
            total,
        },
    }))
}
