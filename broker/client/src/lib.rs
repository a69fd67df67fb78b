//! One live connection to a broker: dialling, failover, backoff and the session.
