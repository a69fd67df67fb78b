//! What the repository promises about itself: who may depend on whom, where unsafe code lives, how
//! long a file may be, and that tests wait on states.

mod arrows;
mod files;
mod lints;
