//! The PXP agent.
