//! Points in time: UTC, to the millisecond.

use std::{fmt, str::FromStr, time::Duration};

use jiff::{Timestamp, ToSpan};
use serde::{Deserialize, Serialize};

/// A point in time. As text it is RFC 3339 in UTC with exactly three decimals, so that text order is time order and an
/// index can sort by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UtcTime(Timestamp);

impl UtcTime {
    /// The current time. Everything that decides by time takes it as an argument; only edges call this.
    #[must_use]
    pub fn now() -> Self {
        Self::from_epoch_ms(Timestamp::now().as_millisecond())
    }

    /// The time so many milliseconds after 1970. Values outside of the calendar become its end.
    #[must_use]
    pub fn from_epoch_ms(ms: i64) -> Self {
        Self(Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX))
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn epoch_ms(self) -> i64 {
        self.0.as_millisecond()
    }

    /// Whole seconds since 1970, as DynamoDB's time to live and JWT use them.
    #[must_use]
    pub fn epoch_seconds(self) -> i64 {
        self.0.as_second()
    }

    /// This time plus a duration.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        let ms = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.checked_add(ms.milliseconds()).unwrap_or(Timestamp::MAX))
    }

    /// Seconds from `earlier` to this time; zero when `earlier` is later.
    #[must_use]
    pub fn seconds_since(self, earlier: Self) -> f64 {
        let ms = (self.epoch_ms() - earlier.epoch_ms()).max(0);
        Duration::from_millis(ms.unsigned_abs()).as_secs_f64()
    }
}

impl fmt::Display for UtcTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.0)
    }
}

impl FromStr for UtcTime {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, jiff::Error> {
        Ok(Self::from_epoch_ms(text.parse::<Timestamp>()?.as_millisecond()))
    }
}

impl TryFrom<String> for UtcTime {
    type Error = jiff::Error;

    fn try_from(text: String) -> Result<Self, jiff::Error> {
        text.parse()
    }
}

impl From<UtcTime> for String {
    fn from(time: UtcTime) -> Self {
        time.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn text_order_is_time_order(a in 0_i64..4_000_000_000_000, b in 0_i64..4_000_000_000_000) {
            let (x, y) = (UtcTime::from_epoch_ms(a), UtcTime::from_epoch_ms(b));
            prop_assert_eq!(x.to_string().cmp(&y.to_string()), a.cmp(&b));
            prop_assert_eq!(x.to_string().parse::<UtcTime>().unwrap(), x);
        }
    }

    #[test]
    fn text_always_has_three_decimals() {
        assert_eq!(UtcTime::from_epoch_ms(1_000).to_string(), "1970-01-01T00:00:01.000Z");
    }
}
