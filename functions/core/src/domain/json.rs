//! Request bodies, read as JSON and its schemas mean them, where serde by itself would not:
//!
//! - `7.0` is as whole as `7`, and some languages can write only the former;
//! - a list is not an object whose names were left out.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::Number;

/// Up to here a float tells whole numbers apart.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// A `T` that is written as an object.
#[derive(Debug, Clone)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfObject<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for OfObject<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(OfObject(PhantomData))
    }
}

/// A whole number.
#[derive(Debug, Clone, Copy)]
pub struct Whole<T>(pub T);

impl<'de, T: TryFrom<u64>> Deserialize<'de> for Whole<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = whole(deserializer)?;
        number.map(Whole).ok_or_else(|| D::Error::custom("not a number"))
    }
}

/// Reads a whole number that must be there.
pub(super) fn required<'de, D: Deserializer<'de>, T: TryFrom<u64>>(deserializer: D) -> Result<T, D::Error> {
    Whole::deserialize(deserializer).map(|Whole(number)| number)
}

/// Reads a whole number that may be absent or null.
pub(super) fn whole<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64>,
{
    let Some(number) = Option::<Number>::deserialize(deserializer)? else {
        return Ok(None);
    };
    let whole = number.as_u64().or_else(|| number.as_f64().and_then(exact));
    let fitting = whole.and_then(|whole| T::try_from(whole).ok());
    fitting
        .map(Some)
        .ok_or_else(|| D::Error::custom("not a whole number that fits"))
}

fn exact(float: f64) -> Option<u64> {
    let is_whole = (0.0..=MAX_EXACT).contains(&float) && float.fract() <= 0.0;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is whole, not negative, and far below 2^64"
    )]
    is_whole.then_some(float as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Field {
        #[serde(default, deserialize_with = "whole")]
        n: Option<u32>,
    }

    fn read(text: &str) -> serde_json::Result<Option<u32>> {
        serde_json::from_str::<Field>(text).map(|field| field.n)
    }

    #[test]
    fn a_list_is_no_object() {
        assert!(
            serde_json::from_str::<Field>("[7]").is_ok(),
            "then this type is needed no longer"
        );
        for bad in ["[7]", "[]", "7", "null"] {
            assert!(serde_json::from_str::<Object<Field>>(bad).is_err(), "{bad}");
        }
        let Object(field) = serde_json::from_str::<Object<Field>>(r#"{"n": 7}"#).unwrap();
        assert_eq!(field.n, Some(7));
    }

    #[test]
    fn a_whole_number_is_one_however_it_is_written() {
        for (text, number) in [
            (r#"{"n":7}"#, 7),
            (r#"{"n":7.0}"#, 7),
            (r#"{"n":7e2}"#, 700),
            (r#"{"n":-0.0}"#, 0),
        ] {
            assert_eq!(read(text).unwrap(), Some(number), "{text}");
        }
        assert_eq!((read("{}").unwrap(), read(r#"{"n":null}"#).unwrap()), (None, None));
        for bad in ["7.5", "-1", "4294967296", "1e300", "\"7\"", "[7]", "true"] {
            assert!(read(&format!("{{\"n\":{bad}}}")).is_err(), "{bad}");
        }
    }
}
