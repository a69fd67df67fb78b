//! From a policy to a plan to a supervised child; no unsafe code, no async.
