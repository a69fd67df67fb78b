//! Who comes in when: handshakes begin at a set rate, the addresses in turn, and whoever would wait too
//! long is told so before it has cost anything. Pure: time is handed in.
//!
//! After a broker's death its whole fleet arrives at another within a second. A broker that began all
//! those handshakes at once would finish none in time, and have no time for those who are in.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// How many connections may be between their first packet and their session at a time.
pub(crate) const MAX_HALF_OPEN: usize = 1024;

/// How many of them may be from one origin: a whole site behind one address still fills a core, and
/// leaves as many places to all others.
pub(crate) const MAX_HALF_OPEN_EACH: usize = MAX_HALF_OPEN / 2;

/// How many seconds' worth of handshakes may wait: half of what clients give a handshake.
const PATIENCE_SECONDS: u32 = 5;

/// Whoever has waited longer than this, since the machine was busy with something else, is about to
/// give up: to begin now would be work for nothing.
const LATE: Duration = Duration::from_secs(8);

/// How far handshakes may run ahead of their rate after a quiet moment.
const BURST: Duration = Duration::from_millis(100);

/// The bounds of an [`Admission`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    rate: u32,
    /// How many may wait, and how many of them from one origin.
    waiting: usize,
    waiting_each: usize,
    half_open: usize,
    half_open_each: usize,
}

/// Who has arrived and not begun, and how many are under way.
#[derive(Debug)]
pub(crate) struct Admission<T> {
    limits: Limits,
    /// When the next handshake would begin if all were evenly spread.
    due: Option<Instant>,
    waiting: HashMap<Origin, VecDeque<(Instant, T)>>,
    /// The origins of those who wait, each once; the first has its turn.
    turns: VecDeque<Origin>,
    length: usize,
    half_open: HashMap<Origin, usize>,
    under_way: usize,
}

/// Where an arrival comes from: an IPv4 address, or a /64 network of IPv6, since whoever has one
/// address of it has all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Origin(IpAddr);

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next<T> {
    /// Begin with this one; [`Admission::left`] says when it is half open no more.
    Begin(Origin, T),
    /// Tell this one to come back: it has waited too long.
    Late(T),
    /// Nothing before this time, unless somebody leaves.
    At(Instant),
    /// Nothing before somebody arrives or leaves.
    Nothing,
}

impl Limits {
    /// The limits of a broker that begins so many handshakes a second.
    pub(crate) fn of(rate: u32) -> Self {
        let rate = rate.max(1);
        let waiting = usize::try_from(rate.saturating_mul(PATIENCE_SECONDS)).unwrap_or(usize::MAX);
        Self {
            rate,
            waiting,
            waiting_each: waiting - waiting / 8,
            half_open: MAX_HALF_OPEN,
            half_open_each: MAX_HALF_OPEN_EACH,
        }
    }
}

impl<T> Admission<T> {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            due: None,
            waiting: HashMap::new(),
            turns: VecDeque::new(),
            length: 0,
            half_open: HashMap::new(),
            under_way: 0,
        }
    }

    /// Somebody arrives, and waits for its turn. It comes back when too many wait already.
    pub(crate) fn arrive(&mut self, now: Instant, origin: Origin, arrival: T) -> Result<(), T> {
        if self.length >= self.limits.waiting {
            return Err(arrival);
        }
        let queue = self.waiting.entry(origin).or_default();
        if queue.len() >= self.limits.waiting_each {
            return Err(arrival);
        }
        if queue.is_empty() {
            self.turns.push_back(origin);
        }
        queue.push_back((now, arrival));
        self.length += 1;
        Ok(())
    }

    /// What to do now. To be asked again until it says wait.
    pub(crate) fn next(&mut self, now: Instant) -> Next<T> {
        if self.under_way >= self.limits.half_open {
            return Next::Nothing;
        }
        let room = |origin: &Origin| {
            let open = self.half_open.get(origin).copied().unwrap_or(0);
            open < self.limits.half_open_each
        };
        let Some(turn) = self.turns.iter().position(room) else {
            return Next::Nothing;
        };
        let due = self.due.unwrap_or(now);
        if due > now + BURST {
            return Next::At(due - BURST);
        }
        let Some((origin, since, arrival)) = self.take(turn) else {
            return Next::Nothing;
        };
        if now.saturating_duration_since(since) > LATE {
            return Next::Late(arrival);
        }
        self.due = Some(due.max(now) + Duration::from_secs(1) / self.limits.rate);
        self.under_way += 1;
        *self.half_open.entry(origin).or_default() += 1;
        Next::Begin(origin, arrival)
    }

    /// One that had begun has its session, or has failed.
    pub(crate) fn left(&mut self, origin: Origin) {
        self.under_way = self.under_way.saturating_sub(1);
        if let Some(open) = self.half_open.get_mut(&origin) {
            *open -= 1;
            if *open == 0 {
                self.half_open.remove(&origin);
            }
        }
    }

    /// Whether it is worth a round trip that whoever arrives proves its address first: so many are under
    /// way that a flood of forged addresses would take all places, or so many wait (a tenth of a second's
    /// worth; on a busy machine, several times that) that it should hear at once that somebody is there.
    pub(crate) fn crowded(&self) -> bool {
        let waiting = u32::try_from(self.length).unwrap_or(u32::MAX);
        self.under_way >= self.limits.half_open / 2 || waiting > self.limits.rate / 10
    }

    /// In how many seconds somebody who is told to come back finds those gone who wait now.
    pub(crate) fn come_back(&self) -> u32 {
        let length = u32::try_from(self.length).unwrap_or(u32::MAX);
        length.div_ceil(self.limits.rate).max(1)
    }

    /// Takes out all who wait.
    pub(crate) fn clear(&mut self) -> impl Iterator<Item = T> {
        self.turns.clear();
        self.length = 0;
        let waiting = std::mem::take(&mut self.waiting);
        waiting.into_values().flatten().map(|(_, arrival)| arrival)
    }

    /// Takes the first in line of an origin, which goes to the end of the turns.
    fn take(&mut self, turn: usize) -> Option<(Origin, Instant, T)> {
        let origin = self.turns.remove(turn)?;
        let queue = self.waiting.get_mut(&origin)?;
        let (since, arrival) = queue.pop_front()?;
        if queue.is_empty() {
            self.waiting.remove(&origin);
        } else {
            self.turns.push_back(origin);
        }
        self.length -= 1;
        if self.length == 0 {
            // A storm once made room that is not needed again.
            self.waiting = HashMap::new();
            self.turns = VecDeque::new();
        }
        Some((origin, since, arrival))
    }
}

impl From<IpAddr> for Origin {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => {
                Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 1000;
    const MILLISECOND: Duration = Duration::from_millis(1);

    fn origin(address: &str) -> Origin {
        address.parse::<IpAddr>().expect("an address").into()
    }

    fn admission() -> Admission<u32> {
        Admission::new(Limits::of(RATE))
    }

    /// Takes all that may begin now.
    fn begun<T>(admission: &mut Admission<T>, now: Instant) -> Vec<T> {
        let mut begun = Vec::new();
        while let Next::Begin(_, arrival) = admission.next(now) {
            begun.push(arrival);
        }
        begun
    }

    #[test]
    fn a_storm_begins_at_the_rate_and_in_its_order() {
        let mut admission = admission();
        let start = Instant::now();
        for number in 0..3000 {
            let from = origin(&format!("10.0.{}.{}", number / 250, number % 250));
            admission.arrive(start, from, number).expect("room");
        }
        let mut all = Vec::new();
        for step in 0..1500 {
            for number in begun(&mut admission, start + step * MILLISECOND) {
                admission.left(origin(&format!("10.0.{}.{}", number / 250, number % 250)));
                all.push(number);
            }
            let most = 101 + step;
            assert!(u32::try_from(all.len()).expect("few") <= most, "{step}");
        }
        assert!(all.len() >= 1500, "{}", all.len());
        assert!(all.is_sorted());
    }

    #[test]
    fn says_when_the_next_is_due_and_begins_it_then() {
        let mut admission = admission();
        let start = Instant::now();
        for number in 0..200 {
            admission
                .arrive(start, origin("::1"), number)
                .expect("room");
        }
        begun(&mut admission, start);
        let Next::At(due) = admission.next(start) else {
            panic!("no time is told");
        };
        assert!(due > start && due <= start + MILLISECOND);
        assert_eq!(begun(&mut admission, due).len(), 1);
    }

    #[test]
    fn one_address_cannot_take_all_places_and_others_need_not_wait_for_it() {
        let mut admission = Admission::new(Limits::of(1_000_000));
        let now = Instant::now();
        let (greedy, modest) = (origin("192.0.2.1"), origin("192.0.2.2"));
        for number in 0..2000 {
            admission.arrive(now, greedy, number).expect("room");
        }
        assert_eq!(begun(&mut admission, now).len(), MAX_HALF_OPEN_EACH);
        admission.arrive(now, modest, 9999).expect("room");
        assert_eq!(begun(&mut admission, now), [9999]);
        admission.left(greedy);
        assert_eq!(begun(&mut admission, now).len(), 1);
    }

    #[test]
    fn addresses_take_turns() {
        let mut admission = admission();
        let now = Instant::now();
        for number in 0..50 {
            admission
                .arrive(now, origin("192.0.2.1"), number)
                .expect("room");
        }
        admission
            .arrive(now, origin("192.0.2.2"), 100)
            .expect("room");
        assert_eq!(begun(&mut admission, now)[..3], [0, 100, 1]);
    }

    #[test]
    fn no_more_are_half_open_than_there_are_places() {
        let mut admission = Admission::new(Limits::of(1_000_000));
        let now = Instant::now();
        for number in 0..2000_u32 {
            let from = origin(&format!("10.0.{}.{}", number / 250, number % 250));
            admission.arrive(now, from, number).expect("room");
        }
        assert_eq!(begun(&mut admission, now).len(), MAX_HALF_OPEN);
        assert!(admission.crowded());
        assert_eq!(admission.next(now), Next::Nothing);
        admission.left(origin("10.0.0.0"));
        assert_eq!(begun(&mut admission, now).len(), 1);
    }

    #[test]
    fn whoever_would_wait_too_long_comes_back_and_one_address_leaves_room_in_the_line() {
        let mut admission = admission();
        let now = Instant::now();
        let greedy = origin("192.0.2.1");
        let taken = (0..10_000)
            .filter(|number| admission.arrive(now, greedy, *number).is_ok())
            .count();
        assert_eq!(taken, 5000 - 5000 / 8);
        assert_eq!(admission.come_back(), 5);
        for number in 0..5000 / 8 {
            let other = origin(&format!("10.0.{}.{}", number / 250, number % 250));
            admission.arrive(now, other, number).expect("room");
        }
        assert_eq!(admission.arrive(now, origin("192.0.2.3"), 7), Err(7));
        assert_eq!(admission.clear().count(), 5000);
        assert_eq!(admission.come_back(), 1);
        assert_eq!(admission.next(now), Next::Nothing);
    }

    #[test]
    fn whoever_has_waited_in_vain_is_told_and_costs_no_turn() {
        let mut admission = admission();
        let now = Instant::now();
        admission.arrive(now, origin("192.0.2.1"), 1).expect("room");
        admission
            .arrive(now + LATE, origin("192.0.2.1"), 2)
            .expect("room");
        let later = now + LATE + MILLISECOND;
        assert_eq!(admission.next(later), Next::Late(1));
        assert_eq!(begun(&mut admission, later), [2]);
        assert_eq!(admission.under_way, 1);
    }

    #[test]
    fn whoever_finds_a_line_is_answered_at_once() {
        let mut admission = admission();
        let now = Instant::now();
        for number in 0..=RATE / 10 {
            assert!(!admission.crowded(), "{number}");
            admission.arrive(now, origin("::1"), number).expect("room");
        }
        assert!(admission.crowded());
        begun(&mut admission, now);
        assert!(!admission.crowded());
    }

    #[test]
    fn an_ipv6_network_is_one_origin_and_a_mapped_address_is_its_ipv4_address() {
        assert_eq!(origin("2001:db8::1"), origin("2001:db8::ffff:1"));
        assert_ne!(origin("2001:db8::1"), origin("2001:db8:0:1::1"));
        assert_eq!(origin("::ffff:192.0.2.1"), origin("192.0.2.1"));
    }
}
