//! [`Trust`]: whom we believe. One check of chain, time, usage and revocation, for clients and
//! servers alike.
//!
//! Puppet's `ca.pem` holds root and intermediate. Only self-signed certificates become anchors and
//! the others help to build the path: were the intermediate an anchor too, webpki would never look
//! whether the root has revoked it.

use std::sync::Arc;

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::{CertificateError, DistinguishedName, Error, OtherError};
use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, ServerName, SignatureVerificationAlgorithm,
    TrustAnchor, UnixTime,
};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, OwnedCertRevocationList,
    RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy,
};
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Certificate};

use crate::contents::Contents;
use crate::error::NameError;
use crate::pem::parse_pem;
use crate::remember::Signed;
use crate::{Files, IdentityError, Revocation};

/// The CA's certificates and revocation lists.
#[derive(Debug)]
pub(crate) struct Trust {
    anchors: Vec<TrustAnchor<'static>>,
    intermediates: Vec<CertificateDer<'static>>,
    crls: Vec<CertRevocationList<'static>>,
    /// In seconds since 1970, of the list that ends first.
    next_update: Option<u64>,
    depth: RevocationCheckDepth,
    /// What a server tells clients about the CAs it knows.
    hints: Vec<DistinguishedName>,
    /// The CA's own signatures, which every handshake meets.
    signed: Signed,
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
}

impl Trust {
    pub(crate) fn of(
        files: &Files,
        contents: &Contents,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Result<Self, IdentityError> {
        let mut roots = Vec::new();
        let mut intermediates = Vec::new();
        let mut hints = Vec::new();
        let mut signed = Signed::default();
        for der in parse_pem::<CertificateDer<'static>>(&files.ca, &contents.ca, "certificate")? {
            let (_, cert) =
                X509Certificate::from_der(&der).map_err(|source| IdentityError::Certificate {
                    path: files.ca.clone(),
                    source: NameError::Parse(source),
                })?;
            let self_signed = cert.subject() == cert.issuer();
            if !self_signed {
                signed.add(cert.tbs_certificate.as_ref(), &cert.signature_value.data);
            }
            hints.push(DistinguishedName::from(cert.subject().as_raw().to_vec()));
            if self_signed {
                roots.push(der);
            } else {
                intermediates.push(der);
            }
        }
        // A file without a root says that the intermediates themselves are to be trusted.
        let trusted = if roots.is_empty() {
            &intermediates
        } else {
            &roots
        };
        let anchors = trusted
            .iter()
            .map(|der| webpki::anchor_from_trusted_cert(der).map(|anchor| anchor.to_owned()))
            .collect::<Result<_, _>>()
            .map_err(|source| IdentityError::Authority {
                path: files.ca.clone(),
                source,
            })?;
        let depth = match files.revocation {
            Revocation::Chain => RevocationCheckDepth::Chain,
            Revocation::Leaf | Revocation::None => RevocationCheckDepth::EndEntity,
        };
        let (crls, next_update) = match files.revocation {
            Revocation::Chain | Revocation::Leaf => parse_crls(files, &contents.crl, &mut signed)?,
            Revocation::None => (Vec::new(), None),
        };
        Ok(Self {
            anchors,
            intermediates,
            crls,
            next_update,
            depth,
            hints,
            signed,
            algorithms,
        })
    }

    pub(crate) fn crl_next_update(&self) -> Option<u64> {
        self.next_update
    }

    pub(crate) fn hints(&self) -> &[DistinguishedName] {
        &self.hints
    }

    /// Checks a peer's chain up to one of our anchors: signatures, time, usage, revocation. A
    /// status that no CRL tells, and a CRL past its next update, count against the peer, as they do
    /// in Puppet.
    pub(crate) fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), Error> {
        let leaf = EndEntityCert::try_from(end_entity).map_err(refusal)?;
        let path: Vec<_> = intermediates
            .iter()
            .chain(&self.intermediates)
            .map(|der| CertificateDer::from(der.as_ref()))
            .collect();
        let crls: Vec<_> = self.crls.iter().collect();
        // `new` fails for no CRLs only, which here means that revocation is not to be checked.
        let revocation = RevocationOptionsBuilder::new(&crls).ok().map(|options| {
            options
                .with_depth(self.depth)
                .with_status_policy(UnknownStatusPolicy::Deny)
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build()
        });
        let remembering = self.signed.remembering(self.algorithms.all);
        let algorithms: Vec<&dyn SignatureVerificationAlgorithm> =
            remembering.iter().map(|algorithm| algorithm as _).collect();
        leaf.verify_for_usage(
            &algorithms,
            &self.anchors,
            &path,
            now,
            usage,
            revocation,
            None,
        )
        .map(|_| ())
        .map_err(refusal)
    }

    /// Checks that a server is the one we meant: by SAN where it has one, as webpki does, else by
    /// the CN, which is all that many Puppet certificates have. An IP address needs a SAN.
    pub(crate) fn verify_name(
        &self,
        end_entity: &CertificateDer<'_>,
        name: &ServerName<'_>,
    ) -> Result<(), Error> {
        let leaf = EndEntityCert::try_from(end_entity).map_err(refusal)?;
        let by_san = leaf.verify_is_valid_for_subject_name(name).map_err(refusal);
        let (Err(_), ServerName::DnsName(expected)) = (&by_san, name) else {
            return by_san;
        };
        let (_, cert) = X509Certificate::from_der(end_entity)
            .map_err(|_| Error::from(CertificateError::BadEncoding))?;
        // A SAN that cannot be read is not "no SAN".
        if !matches!(cert.subject_alternative_name(), Ok(None)) {
            return by_san;
        }
        let mut common_names = cert.subject().iter_common_name().map(|name| name.as_str());
        match (common_names.next(), common_names.next()) {
            (Some(Ok(presented)), None) if presented.eq_ignore_ascii_case(expected.as_ref()) => {
                Ok(())
            }
            (Some(Ok(presented)), None) => Err(CertificateError::NotValidForNameContext {
                expected: name.to_owned(),
                presented: vec![format!("CN {presented:?}")],
            }
            .into()),
            _ => by_san,
        }
    }
}

type Crls = (Vec<CertRevocationList<'static>>, Option<u64>);

/// The lists, and when the first of them ends.
fn parse_crls(files: &Files, text: &[u8], signed: &mut Signed) -> Result<Crls, IdentityError> {
    let path = files.crl.as_ref().ok_or(IdentityError::NoCrl)?;
    let ders = parse_pem::<CertificateRevocationListDer<'static>>(path, text, "revocation list")?;
    let ends = ders.iter().filter_map(|der| {
        let (_, list) = CertificateRevocationList::from_der(der).ok()?;
        signed.add(list.tbs_cert_list.as_ref(), &list.signature_value.data);
        u64::try_from(list.next_update()?.timestamp()).ok()
    });
    let next_update = ends.min();
    let lists = ders
        .iter()
        .map(|der| OwnedCertRevocationList::from_der(der).map(CertRevocationList::Owned))
        .collect::<Result<_, _>>()
        .map_err(|source| IdentityError::Crl {
            path: path.clone(),
            source,
        })?;
    Ok((lists, next_update))
}

/// webpki's error in rustls' words, which choose the alert that the peer gets to see.
fn refusal(error: webpki::Error) -> Error {
    match error {
        webpki::Error::BadDer | webpki::Error::BadDerTime | webpki::Error::TrailingData(_) => {
            CertificateError::BadEncoding
        }
        webpki::Error::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }
        }
        webpki::Error::CertExpired { time, not_after } => {
            CertificateError::ExpiredContext { time, not_after }
        }
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
        webpki::Error::CertRevoked => CertificateError::Revoked,
        webpki::Error::UnknownRevocationStatus => CertificateError::UnknownRevocationStatus,
        webpki::Error::CrlExpired { time, next_update } => {
            CertificateError::ExpiredRevocationListContext { time, next_update }
        }
        webpki::Error::CertNotValidForName(context) => CertificateError::NotValidForNameContext {
            expected: context.expected,
            presented: context.presented,
        },
        webpki::Error::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    }
    .into()
}

#[cfg(test)]
mod tests {
    use lab_ca::CertificateAuthority;
    use pcp::Certname;

    use super::*;

    #[test]
    fn the_ca_s_own_signatures_are_verified_in_the_first_handshake_only() {
        let dir = tempfile::tempdir().unwrap();
        let ca = CertificateAuthority::create(dir.path(), "test").unwrap();
        let ssl = ca.issue("node", &[]).unwrap();
        let files = Files::from_ssldir(&ssl.dir, &Certname::parse("node").unwrap());
        let contents = Contents::read(&files).unwrap();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let algorithms = provider.signature_verification_algorithms;
        let trust = Trust::of(&files, &contents, algorithms).unwrap();
        let leaf: Vec<CertificateDer<'static>> =
            parse_pem(&files.cert, &contents.cert, "certificate").unwrap();
        assert_eq!(trust.signed.remembered(), 0);
        let usage = KeyUsage::client_auth();
        trust
            .verify(&leaf[0], &[], UnixTime::now(), usage)
            .expect("a good certificate");
        // The intermediate's certificate, and the lists of root and intermediate.
        assert_eq!(trust.signed.remembered(), 3);
    }
}
