//! Tasks on disk: metadata, files with digests, and parameters checked against Puppet data types.
