//! Durations and sizes with units: `30s`, `5m`, `14d`, `64KiB`, `8MB`. A plain number is a number of
//! seconds or of bytes.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

/// A duration as it stands in a configuration file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Lasting(pub Duration);

/// A number of bytes as it stands in a configuration file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Size(pub u64);

/// Why a text is not a duration or a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// It does not begin with a whole number.
    #[error("{0:?} does not begin with a whole number")]
    Number(String),
    /// The unit is not known.
    #[error("{unit:?} is none of the units {known}")]
    Unit {
        /// What was written.
        unit: String,
        /// What could be.
        known: &'static str,
    },
    /// The value does not fit.
    #[error("{0:?} is too large")]
    TooLarge(String),
}

/// Parses a duration: a whole number and one of `ms`, `s`, `m`, `h`, `d`, `w`; seconds without one.
///
/// # Errors
/// When it is none.
pub fn duration(text: &str) -> Result<Duration, UnitError> {
    let (number, unit) = split(text)?;
    let milliseconds = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        "d" => 24 * 60 * 60 * 1000,
        "w" => 7 * 24 * 60 * 60 * 1000,
        _ => {
            return Err(UnitError::Unit {
                unit: unit.to_owned(),
                known: "ms, s, m, h, d, w",
            });
        }
    };
    number
        .checked_mul(milliseconds)
        .map(Duration::from_millis)
        .ok_or_else(|| UnitError::TooLarge(text.to_owned()))
}

/// Parses a number of bytes: a whole number and one of `B`, `kB`, `MB`, `GB`, `KiB`, `MiB`, `GiB`;
/// bytes without one.
///
/// # Errors
/// When it is none.
pub fn bytes(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = split(text)?;
    let factor = match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1000 * 1000,
        "GB" => 1000 * 1000 * 1000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => {
            return Err(UnitError::Unit {
                unit: unit.to_owned(),
                known: "B, kB, MB, GB, KiB, MiB, GiB",
            });
        }
    };
    number
        .checked_mul(factor)
        .ok_or_else(|| UnitError::TooLarge(text.to_owned()))
}

fn split(text: &str) -> Result<(u64, &str), UnitError> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    if digits.is_empty() {
        return Err(UnitError::Number(text.to_owned()));
    }
    let number = digits
        .parse()
        .map_err(|_| UnitError::TooLarge(text.to_owned()))?;
    Ok((number, unit.trim_start()))
}

impl FromStr for Lasting {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        duration(text).map(Self)
    }
}

impl FromStr for Size {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        bytes(text).map(Self)
    }
}

impl TryFrom<String> for Lasting {
    type Error = UnitError;

    fn try_from(text: String) -> Result<Self, UnitError> {
        text.parse()
    }
}

impl TryFrom<String> for Size {
    type Error = UnitError;

    fn try_from(text: String) -> Result<Self, UnitError> {
        text.parse()
    }
}

/// The largest unit in which it is a whole number, so that it can be written into a file again.
impl fmt::Display for Lasting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.0.as_millis();
        let units = [
            (86_400_000, "d"),
            (3_600_000, "h"),
            (60_000, "m"),
            (1000, "s"),
        ];
        write_in_units(f, milliseconds, &units, "ms")
    }
}

/// As for [`Lasting`].
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        write_in_units(f, self.0.into(), &units, "B")
    }
}

fn write_in_units(
    f: &mut fmt::Formatter<'_>,
    value: u128,
    units: &[(u128, &str)],
    smallest: &str,
) -> fmt::Result {
    match units
        .iter()
        .find(|(size, _)| value != 0 && value.is_multiple_of(*size))
    {
        Some((size, unit)) => write!(f, "{}{unit}", value / size),
        None => write!(f, "{value}{smallest}"),
    }
}
