//! Several attempts at once, of which the first success counts.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

/// Drives all attempts and gives the first success; else, when all have failed, the last failure;
/// nothing when there was no attempt. The other attempts are dropped.
pub(crate) async fn first_success<F, T, E>(attempts: Vec<F>) -> Option<Result<T, E>>
where
    F: Future<Output = Result<T, E>>,
{
    let mut running: Vec<Pin<Box<F>>> = attempts.into_iter().map(Box::pin).collect();
    let mut failure = None;
    poll_fn(move |context| {
        let mut success = None;
        running.retain_mut(|attempt| {
            if success.is_some() {
                return true;
            }
            match attempt.as_mut().poll(context) {
                Poll::Pending => true,
                Poll::Ready(Ok(value)) => {
                    success = Some(value);
                    false
                }
                Poll::Ready(Err(error)) => {
                    failure = Some(error);
                    false
                }
            }
        });
        match success {
            Some(value) => Poll::Ready(Some(Ok(value))),
            None if running.is_empty() => Poll::Ready(failure.take().map(Err)),
            None => Poll::Pending,
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    type Attempt = Pin<Box<dyn Future<Output = Result<u8, &'static str>>>>;

    #[tokio::test]
    async fn a_success_wins_over_silence_and_failure() {
        let attempts: Vec<Attempt> = vec![
            Box::pin(pending()),
            Box::pin(async { Err("refused") }),
            Box::pin(async { Ok(3) }),
            Box::pin(async { Ok(4) }),
        ];
        assert_eq!(first_success(attempts).await, Some(Ok(3)));
    }

    #[tokio::test]
    async fn the_last_failure_is_told_when_all_fail() {
        let attempts: Vec<Attempt> = vec![
            Box::pin(async { Err("one") }),
            Box::pin(async { Err("two") }),
        ];
        assert_eq!(first_success(attempts).await, Some(Err("two")));
    }

    #[tokio::test]
    async fn no_attempt_gives_nothing() {
        assert_eq!(first_success(Vec::<Attempt>::new()).await, None);
    }
}
