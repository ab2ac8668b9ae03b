//! Password hashing: argon2id, stored as PHC strings that carry their own parameters.

use std::sync::LazyLock;

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};

/// OWASP's minimum for argon2id: 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// Hashing did not work.
#[derive(Debug, Clone, Copy, thiserror::Error)]
pub(crate) enum HashError {
    /// The parameters or the machine do not allow a hash.
    #[error("a password cannot be hashed")]
    Hashing,
    /// What is stored is no PHC string.
    #[error("a stored password hash cannot be read")]
    Stored,
}

impl HashError {
    /// The stable code of this error.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Hashing => "hashing_failed",
            Self::Stored => "password_hash_unreadable",
        }
    }
}

fn hasher() -> Result<Argon2<'static>, HashError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|_| HashError::Hashing)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// Hashes a password with a new salt. Takes tens of milliseconds of CPU.
pub(crate) fn hash(password: &str) -> Result<String, HashError> {
    let hash = hasher()?
        .hash_password(password.as_bytes())
        .map_err(|_| HashError::Hashing)?;
    Ok(hash.to_string())
}

/// Whether the password is the stored one. Without a stored hash the same work is done for nothing, so that an unknown
/// address takes as long as a wrong password.
pub(crate) fn verify(password: &str, stored: Option<&str>) -> Result<bool, HashError> {
    static DUMMY: LazyLock<Option<String>> = LazyLock::new(|| hash("nobody's password").ok());
    let text = stored.or(DUMMY.as_deref()).ok_or(HashError::Hashing)?;
    let parsed = PasswordHash::new(text).map_err(|_| HashError::Stored)?;
    let matches = hasher()?.verify_password(password.as_bytes(), &parsed).is_ok();
    Ok(matches && stored.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_carries_its_parameters_and_a_salt_of_its_own() {
        let (first, second) = (hash("correct horse").unwrap(), hash("correct horse").unwrap());
        assert!(first.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{first}");
        assert_ne!(first, second);
    }

    #[test]
    fn only_the_exact_password_verifies() {
        let long = "x".repeat(80);
        let stored = hash(&long).unwrap();
        assert!(verify(&long, Some(&stored)).unwrap());
        assert!(
            !verify(&format!("{long}y"), Some(&stored)).unwrap(),
            "no cut at 72 bytes"
        );
        assert!(!verify(&format!(" {long}"), Some(&stored)).unwrap());
        assert!(!verify("nobody's password", None).unwrap(), "the dummy opens nothing");
    }
}
