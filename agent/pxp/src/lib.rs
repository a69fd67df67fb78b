//! The Puppet Execution Protocol: requests, responses and status queries, without IO.
