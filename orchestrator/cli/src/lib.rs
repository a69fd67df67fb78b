//! The command line of PXP Mesh: puppet-task.
