//! A range of numbers or sizes; an open end is Puppet's `default`.

/// From `min` to `max`, both included. `None` is open.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Range<N> {
    pub(crate) min: Option<N>,
    pub(crate) max: Option<N>,
}

impl<N: PartialOrd + Copy> Range<N> {
    /// Everything.
    pub(crate) const ALL: Self = Self {
        min: None,
        max: None,
    };

    pub(crate) fn contains(&self, number: N) -> bool {
        self.min.is_none_or(|min| min <= number) && self.max.is_none_or(|max| number <= max)
    }

    /// Whether some number can be in it.
    pub(crate) fn is_sound(&self) -> bool {
        match (self.min, self.max) {
            (Some(min), Some(max)) => min <= max,
            _ => true,
        }
    }
}
