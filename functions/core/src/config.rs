//! Configuration: environment variables, read once, with every mistake reported together.

use std::{fmt, str::FromStr};

/// Everything that is wrong with a function's configuration.
#[derive(Debug, thiserror::Error)]
#[error("invalid configuration: {}", .0.join(", "))]
pub struct ConfigError(Vec<String>);

/// Reads variables and remembers what was wrong.
#[derive(Debug, Default)]
pub struct Env {
    problems: Vec<String>,
}

impl Env {
    /// Starts reading.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A variable that must be set to something that parses.
    pub fn required<T>(&mut self, name: &'static str) -> Option<T>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        #[expect(clippy::disallowed_methods, reason = "this is the one reader")]
        let value = std::env::var(name).ok().filter(|value| !value.is_empty());
        let Some(value) = value else {
            self.problems.push(format!("{name} is not set"));
            return None;
        };
        match value.parse() {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                self.problems.push(format!("{name}: {error}"));
                None
            }
        }
    }

    /// The configuration that was built, if nothing was wrong.
    ///
    /// # Errors
    /// Names every variable that was missing or did not parse.
    pub fn finish<T>(mut self, build: impl FnOnce(&mut Self) -> Option<T>) -> Result<T, ConfigError> {
        match build(&mut self) {
            Some(config) if self.problems.is_empty() => Ok(config),
            _ => Err(ConfigError(self.problems)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_missing_variable_is_named_at_once() {
        let result = Env::new().finish(|env| {
            let first = env.required::<String>("REELAY_TEST_ABSENT_A");
            let second = env.required::<u64>("REELAY_TEST_ABSENT_B");
            Some((first?, second?))
        });
        let text = result.unwrap_err().to_string();
        assert!(
            text.contains("REELAY_TEST_ABSENT_A") && text.contains("REELAY_TEST_ABSENT_B"),
            "{text}"
        );
    }
}
