//! A number of bytes as people write it: `3GiB`, `512MiB`, `1.5 GB`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of bytes above 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Size(u64);

/// The units, largest first in each kind. A bare letter means the power of 1024, as for the tools that limit memory.
const UNITS: [(&str, u64); 14] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
    ("", 1),
    ("T", 1 << 40),
    ("G", 1 << 30),
    ("M", 1 << 20),
    ("K", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
];

impl Size {
    /// As a number.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl From<u64> for Size {
    fn from(bytes: u64) -> Self {
        Self(bytes)
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = |why: &str| {
            Err(format!(
                "`{text}` is no size: {why}; one is 3GiB, 512MiB or 1.5GB"
            ))
        };
        let trimmed = text.trim();
        let end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.');
        let (number, unit) = trimmed.split_at(end.unwrap_or(trimmed.len()));
        let Ok(number) = number.parse::<f64>() else {
            return refuse("it begins with no number");
        };
        let unit = unit.trim();
        let Some((_, each)) = UNITS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(unit))
        else {
            return refuse(&format!("there is no unit `{unit}`"));
        };
        let bytes = (number * *each as f64).round();
        if bytes < 1.0 {
            return refuse("it is nothing");
        }
        // 2^60: above it a memory is a mistake, and below it a sum of sizes cannot overflow.
        if bytes > (1_u64 << 60) as f64 {
            return refuse("no machine has as much");
        }
        Ok(Self(bytes as u64))
    }
}

impl fmt::Display for Size {
    /// Exactly, in the largest unit that divides it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = UNITS.iter().find(|(_, each)| self.0.is_multiple_of(*each));
        let (unit, each) = whole.unwrap_or(&("B", 1));
        write!(f, "{}{unit}", self.0 / each)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them_and_written_so_that_they_are_read_again() {
        for (text, bytes) in [
            ("3GiB", 3 << 30),
            (" 1.5 GiB ", 3 << 29),
            ("512mib", 512 << 20),
            ("2G", 2 << 30),
            ("64K", 64 << 10),
            ("1.5GB", 1_500_000_000),
            ("100 B", 100),
            ("12345", 12345),
        ] {
            let size: Size = text.parse().unwrap();
            assert_eq!(size.bytes(), bytes, "{text}");
            assert_eq!(size.to_string().parse::<Size>().unwrap(), size);
        }
        assert_eq!(Size(3 << 30).to_string(), "3GiB");
        assert_eq!(Size(1_500_000_000).to_string(), "1500000000B");
    }

    #[test]
    fn what_is_no_size_is_refused_with_the_reason() {
        for (text, why) in [
            ("", "no number"),
            ("GiB", "no number"),
            ("-1GiB", "no number"),
            ("1..5G", "no number"),
            ("3 parsecs", "no unit `parsecs`"),
            ("0GiB", "nothing"),
            ("2000000TiB", "no machine"),
        ] {
            let error = text.parse::<Size>().unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
