//! Answers that several callers may share: whoever asks while an answer is on its way gets that one,
//! and an answer stays good for a little while.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Answers by what was asked.
pub(crate) struct Flight<K, V, E> {
    slots: Mutex<HashMap<K, Arc<Slot<V, E>>>>,
    /// How long a good answer is used again. Bad ones are for those who waited only.
    fresh: Duration,
    /// How many answers are kept.
    limit: usize,
}

type Slot<V, E> = tokio::sync::Mutex<Option<(Instant, Result<V, E>)>>;

impl<K: Eq + Hash + Clone, V: Clone, E: Clone> Flight<K, V, E> {
    pub(crate) fn new(fresh: Duration, limit: usize) -> Self {
        Self {
            slots: Mutex::default(),
            fresh,
            limit,
        }
    }

    /// The answer for `key`: one that is fresh, the one that is on its way, or that of `load`.
    pub(crate) async fn get(
        &self,
        key: &K,
        load: impl Future<Output = Result<V, E>>,
    ) -> Result<V, E> {
        let asked = Instant::now();
        let slot = self.slot(key);
        let mut answer = slot.lock().await;
        if let Some((at, known)) = answer.as_ref() {
            let waited_for = *at > asked;
            if waited_for || (known.is_ok() && at.elapsed() < self.fresh) {
                return known.clone();
            }
        }
        let loaded = load.await;
        *answer = Some((Instant::now(), loaded.clone()));
        loaded
    }

    /// The next one who asks gets a new answer.
    pub(crate) fn forget(&self, key: &K) {
        self.lock().remove(key);
    }

    fn slot(&self, key: &K) -> Arc<Slot<V, E>> {
        let mut slots = self.lock();
        if slots.len() >= self.limit && !slots.contains_key(key) {
            let fresh = self.fresh;
            slots.retain(|_, slot| match slot.try_lock() {
                Ok(answer) => answer.as_ref().is_some_and(|(at, _)| at.elapsed() < fresh),
                Err(_) => true, // somebody waits for it
            });
            if slots.len() >= self.limit {
                slots.clear();
            }
        }
        Arc::clone(slots.entry(key.clone()).or_default())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<K, Arc<Slot<V, E>>>> {
        // The map is whole at every step.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, V, E> fmt::Debug for Flight<K, V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flight")
            .field("fresh", &self.fresh)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_asks_meanwhile_shares_the_answer_and_a_good_one_stays_for_a_while() {
        let flight: Flight<u8, u32, u32> = Flight::new(Duration::from_secs(5), 10);
        let asked = AtomicU32::new(0);
        let asked_count = &asked;
        let load = |good: bool| async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let number = asked_count.fetch_add(1, Ordering::Relaxed) + 1;
            if good { Ok(number) } else { Err(number) }
        };
        let (a, b, other) = tokio::join!(
            flight.get(&1, load(false)),
            flight.get(&1, load(false)),
            flight.get(&2, load(true)),
        );
        assert_eq!(a, b);
        assert_ne!(a, other);
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        assert_eq!(
            flight.get(&1, load(true)).await,
            Ok(3),
            "a fault is not kept"
        );
        assert_eq!(flight.get(&1, load(true)).await, Ok(3));
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(flight.get(&1, load(true)).await, Ok(4));
        flight.forget(&1);
        assert_eq!(flight.get(&1, load(true)).await, Ok(5));
    }

    #[tokio::test]
    async fn no_more_answers_are_kept_than_the_limit() {
        let flight: Flight<u32, u32, ()> = Flight::new(Duration::from_secs(60), 3);
        for key in 0..20 {
            assert_eq!(flight.get(&key, async { Ok(key) }).await, Ok(key));
            assert!(flight.lock().len() <= 3);
        }
    }
}
