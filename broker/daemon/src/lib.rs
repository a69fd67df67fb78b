//! What the three daemons share: configuration files, logs, signals, readiness and the task tree.
