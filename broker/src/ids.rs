//! The ids by which packets find their connections over QUIC: eight bytes that only we can make, and that a
//! later life of this broker knows for its own.
//!
//! Six bytes are as good as random, so that no two connections ever share an id. quinn's own generator has
//! three, and in a storm that is too few: of ten thousand connections some then have the id of another, or
//! that of another's former life, and such a client hears nothing until its patience ends.

use std::time::Duration;

use aws_lc_rs::hmac;
use quinn::ConnectionId;
use quinn_proto::{ConnectionIdGenerator, InvalidCid};

/// The bytes that make an id unlike all others: among a million connections the chance that a new one
/// shares its id is one in 280 millions.
const UNIQUE: usize = 6;

/// The bytes that show that an id is ours. What passes by chance costs one short packet to its sender.
const PROOF: usize = 2;

/// Makes ids, and tells its own from others.
#[derive(Debug)]
pub(crate) struct Ids {
    key: hmac::Key,
    /// Where the count of ids stands, from a start of chance, so that another life makes other ids.
    count: u64,
}

impl Ids {
    /// A generator that knows what others of this key have made.
    pub(crate) fn new(key: hmac::Key) -> Self {
        Self {
            key,
            count: fastrand::u64(..),
        }
    }

    fn proof(&self, unique: &[u8]) -> [u8; PROOF] {
        first(&hmac::sign(&self.key, unique))
    }
}

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        self.count = self.count.wrapping_add(1);
        // Whoever has not the key cannot tell it from chance, nor which ids belong together.
        let unique: [u8; UNIQUE] = first(&hmac::sign(&self.key, &self.count.to_be_bytes()));
        ConnectionId::new(&[&unique[..], &self.proof(&unique)].concat())
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        match id.split_at_checked(UNIQUE) {
            Some((unique, proof)) if self.proof(unique) == *proof => Ok(()),
            _ => Err(InvalidCid),
        }
    }

    fn cid_len(&self) -> usize {
        UNIQUE + PROOF
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// The first bytes of a tag, which is longer.
fn first<const LENGTH: usize>(tag: &hmac::Tag) -> [u8; LENGTH] {
    tag.as_ref().first_chunk().copied().unwrap_or([0; LENGTH])
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn key(secret: &[u8]) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, secret)
    }

    #[test]
    fn a_later_life_knows_what_a_former_one_made_and_nothing_of_others() {
        let mut ids = Ids::new(key(b"ours"));
        let id = ids.generate_cid();
        assert_eq!(id.len(), ids.cid_len());
        assert!(Ids::new(key(b"ours")).validate(&id).is_ok());
        // A proof is short; all of a few pass elsewhere once in 2^48 runs.
        let stranger = Ids::new(key(b"theirs"));
        let passes = |_| stranger.validate(&ids.generate_cid()).is_ok();
        assert!(!(0..3).all(passes));
    }

    #[test]
    fn an_id_of_another_length_is_not_ours() {
        let mut ids = Ids::new(key(b"ours"));
        let id = ids.generate_cid();
        for length in 0..id.len() {
            assert!(ids.validate(&ConnectionId::new(&id[..length])).is_err());
        }
        let longer = ConnectionId::new(&[&id[..], &[0]].concat());
        assert!(ids.validate(&longer).is_err());
    }

    #[test]
    fn two_lives_of_many_connections_share_no_id() {
        const EACH: usize = 20_000;
        let mut all = HashSet::new();
        for _ in 0..2 {
            let mut ids = Ids::new(key(b"ours"));
            all.extend((0..EACH).map(|_| ids.generate_cid()));
        }
        assert_eq!(all.len(), 2 * EACH);
    }
}
