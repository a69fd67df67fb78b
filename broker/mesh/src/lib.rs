//! Who is connected where, and where a message goes next, without IO.
