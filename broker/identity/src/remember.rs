//! Signatures that are the same in every handshake: those of the CA's own certificates and revocation
//! lists. Each is verified once; of a handshake's five verifications that leaves the peer's two.
//!
//! Remembered is only that an algorithm found a signature right for exactly these bytes and this key, which
//! stays true. Time, revocation and whatever else is checked stand outside of it.

use std::sync::OnceLock;

use rustls_pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm};

/// The longest text that is kept for this: a revocation list above it is verified anew each time, rather
/// than held in memory twice.
const MAX_SIGNED: usize = 256 * 1024;

/// What the CA has signed.
#[derive(Debug, Default)]
pub(crate) struct Signed(Vec<Known>);

#[derive(Debug)]
struct Known {
    message: Box<[u8]>,
    signature: Box<[u8]>,
    /// By whom it was found to be right.
    by: OnceLock<By>,
}

#[derive(Debug, PartialEq, Eq)]
struct By {
    key: Box<[u8]>,
    algorithm: AlgorithmIdentifier,
    key_algorithm: AlgorithmIdentifier,
}

/// An algorithm that remembers.
#[derive(Debug)]
pub(crate) struct Remembering<'a> {
    signed: &'a Signed,
    algorithm: &'a dyn SignatureVerificationAlgorithm,
}

impl Signed {
    /// Adds what was signed, and the signature.
    pub(crate) fn add(&mut self, message: &[u8], signature: &[u8]) {
        if message.len() <= MAX_SIGNED {
            self.0.push(Known {
                message: message.into(),
                signature: signature.into(),
                by: OnceLock::new(),
            });
        }
    }

    /// How many were found to be right.
    #[cfg(test)]
    pub(crate) fn remembered(&self) -> usize {
        let found = self.0.iter().filter(|known| known.by.get().is_some());
        found.count()
    }

    /// These algorithms, with a memory.
    pub(crate) fn remembering<'a>(
        &'a self,
        algorithms: &'a [&'a dyn SignatureVerificationAlgorithm],
    ) -> Vec<Remembering<'a>> {
        let algorithms = algorithms.iter();
        algorithms
            .map(|algorithm| Remembering {
                signed: self,
                algorithm: *algorithm,
            })
            .collect()
    }
}

impl SignatureVerificationAlgorithm for Remembering<'_> {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let known = self.signed.0.iter();
        let mut known =
            known.filter(|known| *known.signature == *signature && *known.message == *message);
        let Some(known) = known.next() else {
            return self
                .algorithm
                .verify_signature(public_key, message, signature);
        };
        let is_right = known.by.get().is_some_and(|by| {
            *by.key == *public_key
                && by.algorithm == self.signature_alg_id()
                && by.key_algorithm == self.public_key_alg_id()
        });
        if is_right {
            return Ok(());
        }
        self.algorithm
            .verify_signature(public_key, message, signature)?;
        // Another thread may have been first, with the same.
        drop(known.by.set(By {
            key: public_key.into(),
            algorithm: self.signature_alg_id(),
            key_algorithm: self.public_key_alg_id(),
        }));
        Ok(())
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.signature_alg_id()
    }

    fn fips(&self) -> bool {
        self.algorithm.fips()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rustls_pki_types::alg_id;

    use super::*;

    /// Finds every signature right that begins with the key; counts.
    #[derive(Debug, Default)]
    struct Counting(AtomicUsize);

    impl SignatureVerificationAlgorithm for Counting {
        fn verify_signature(
            &self,
            public_key: &[u8],
            _message: &[u8],
            signature: &[u8],
        ) -> Result<(), InvalidSignature> {
            self.0.fetch_add(1, Ordering::Relaxed);
            if signature.starts_with(public_key) {
                Ok(())
            } else {
                Err(InvalidSignature)
            }
        }

        fn public_key_alg_id(&self) -> AlgorithmIdentifier {
            alg_id::ECDSA_P256
        }

        fn signature_alg_id(&self) -> AlgorithmIdentifier {
            alg_id::ECDSA_SHA256
        }
    }

    #[test]
    fn what_is_right_is_verified_once_and_nothing_else_is_taken_for_it() {
        let counting = Counting::default();
        let mut signed = Signed::default();
        signed.add(b"list", b"key 1");
        let algorithms: [&dyn SignatureVerificationAlgorithm; 1] = [&counting];
        let remembering = signed.remembering(&algorithms);
        let verify = |key: &[u8], message: &[u8], signature: &[u8]| {
            let before = counting.0.load(Ordering::Relaxed);
            let right = remembering[0]
                .verify_signature(key, message, signature)
                .is_ok();
            (right, counting.0.load(Ordering::Relaxed) - before)
        };
        assert_eq!(verify(b"other", b"list", b"key 1"), (false, 1));
        assert_eq!(verify(b"key", b"list", b"key 1"), (true, 1));
        assert_eq!(verify(b"key", b"list", b"key 1"), (true, 0));
        for (key, message, signature) in [
            (&b"other"[..], &b"list"[..], &b"key 1"[..]),
            (b"key", b"list", b"wrong"),
        ] {
            assert_eq!(verify(key, message, signature), (false, 1));
        }
        // What the CA has not signed itself is never remembered.
        assert_eq!(verify(b"key", b"leaf", b"key 1"), (true, 1));
        assert_eq!(verify(b"key", b"leaf", b"key 1"), (true, 1));
    }

    #[test]
    fn another_algorithm_looks_for_itself() {
        #[derive(Debug)]
        struct Other(Counting);

        impl SignatureVerificationAlgorithm for Other {
            fn verify_signature(
                &self,
                public_key: &[u8],
                message: &[u8],
                signature: &[u8],
            ) -> Result<(), InvalidSignature> {
                self.0.verify_signature(public_key, message, signature)
            }

            fn public_key_alg_id(&self) -> AlgorithmIdentifier {
                alg_id::ECDSA_P256
            }

            fn signature_alg_id(&self) -> AlgorithmIdentifier {
                alg_id::ECDSA_SHA384
            }
        }

        let (one, other) = (Counting::default(), Other(Counting::default()));
        let mut signed = Signed::default();
        signed.add(b"list", b"key 1");
        let algorithms: [&dyn SignatureVerificationAlgorithm; 2] = [&one, &other];
        for algorithm in signed.remembering(&algorithms) {
            algorithm
                .verify_signature(b"key", b"list", b"key 1")
                .expect("right");
        }
        assert_eq!(other.0.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_long_list_is_not_kept() {
        let mut signed = Signed::default();
        signed.add(&vec![0; MAX_SIGNED + 1], b"signature");
        assert!(signed.0.is_empty());
    }
}
