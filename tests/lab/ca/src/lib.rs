//! A certificate authority shaped like Puppet's, for the lab and for tests.
