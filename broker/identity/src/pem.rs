//! Reading PEM files.

use std::path::Path;

use rustls_pki_types::pem::PemObject;

use crate::error::IdentityError;

/// All blocks of one kind in a PEM file; other kinds are passed over, an unreadable block is not.
pub(crate) fn parse_pem<T: PemObject>(
    path: &Path,
    text: &[u8],
    what: &'static str,
) -> Result<Vec<T>, IdentityError> {
    let blocks = T::pem_slice_iter(text)
        .collect::<Result<Vec<T>, _>>()
        .map_err(|source| IdentityError::Pem {
            path: path.to_owned(),
            source,
        })?;
    if blocks.is_empty() {
        return Err(IdentityError::Empty {
            path: path.to_owned(),
            what,
        });
    }
    Ok(blocks)
}
