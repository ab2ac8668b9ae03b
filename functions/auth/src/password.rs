//! Passwords: which are accepted, and how they are kept. argon2id, stored as PHC strings that carry their own parameters.

use std::sync::{Arc, Mutex};

use argon2::{
    ARGON2ID_IDENT, Algorithm, Argon2, Block, Params, Version,
    password_hash::{
        PasswordHasher as _,
        phc::{Output, PasswordHash},
    },
};
use reelay_core::domain::{account::check_password_length, create::FieldError};

/// One lane: a function has no second core to hash on.
const LANES: u32 = 1;
/// What is hashed with when there is nothing to compare with. No secret: the result is thrown away.
const DUMMY_SALT: &[u8; 16] = b"reelay dummysalt";

/// The name of this service, as the start of nobody's password.
const SERVICE: &str = "reelay";
/// Where the list comes from, and its licence, is in its first lines.
const COMMON: &str = include_str!("common_passwords.txt");
/// The code of a password that anybody would try first.
const TOO_COMMON: &str = "password_too_common";

/// Hashing did not work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
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

/// What came of comparing a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is another one.
    Wrong,
    /// It is the stored one.
    Right,
    /// It is the stored one, and its hash was made with less work than is configured now: make a new one.
    Outdated,
}

/// Hashes with the configured parameters.
#[derive(Clone)]
pub(crate) struct Hasher {
    params: Params,
    /// What comparing fills, kept from one to the next: getting fresh pages from the kernel costs as much as filling them,
    /// and not the same for every size.
    memory: Arc<Mutex<Vec<Block>>>,
    /// The work of all comparisons so far.
    #[cfg(test)]
    spent: Arc<std::sync::atomic::AtomicU64>,
}

impl Hasher {
    /// With so much memory and so many passes over it; the bounds are the template's.
    pub(crate) fn new(memory_kib: u32, passes: u32) -> Result<Self, HashError> {
        Ok(Self {
            params: Params::new(memory_kib, passes, LANES, None).map_err(|_| HashError::Hashing)?,
            memory: Arc::default(),
            #[cfg(test)]
            spent: Arc::default(),
        })
    }

    /// Hashes a password with a new salt. Takes tens of milliseconds of CPU.
    pub(crate) fn hash(&self, password: &str) -> Result<String, HashError> {
        let hash = argon2id(self.params.clone())
            .hash_password(password.as_bytes())
            .map_err(|_| HashError::Hashing)?;
        Ok(hash.to_string())
    }

    /// Compares a password with what is stored. Whatever is wrong with it takes the same work: also when nothing is
    /// stored, and when what is stored took less.
    pub(crate) fn verify(&self, password: &str, stored: Option<&str>) -> Result<Verdict, HashError> {
        let Some(stored) = stored else {
            self.fill(&self.params, password, DUMMY_SALT)?;
            return Ok(Verdict::Wrong);
        };
        let stored = PasswordHash::new(stored).map_err(|_| HashError::Stored)?;
        let (Some(salt), Some(expected), Some(19)) = (&stored.salt, &stored.hash, stored.version) else {
            return Err(HashError::Stored);
        };
        if stored.algorithm != ARGON2ID_IDENT || expected.len() != Params::DEFAULT_OUTPUT_LEN {
            return Err(HashError::Stored);
        }
        let params = Params::try_from(&stored).map_err(|_| HashError::Stored)?;
        // Outputs are compared in constant time.
        let matches = self.fill(&params, password, salt)? == *expected;
        let missing = work(&self.params).saturating_sub(work(&params));
        Ok(match (matches, missing) {
            (true, 0) => Verdict::Right,
            (true, _) => Verdict::Outdated,
            (false, missing) => {
                self.make_up_for(password, missing)?;
                Verdict::Wrong
            }
        })
    }

    /// Spends so much work, in passes over one KiB.
    fn make_up_for(&self, password: &str, work: u64) -> Result<(), HashError> {
        let passes = self.params.t_cost();
        let memory_kib = u32::try_from(work / u64::from(passes)).unwrap_or(u32::MAX);
        if memory_kib < Params::MIN_M_COST {
            return Ok(());
        }
        let params = Params::new(memory_kib, passes, LANES, None).map_err(|_| HashError::Hashing)?;
        self.fill(&params, password, DUMMY_SALT).map(|_| ())
    }

    /// The hash itself, in the memory that is kept.
    fn fill(&self, params: &Params, password: &str, salt: &[u8]) -> Result<Output, HashError> {
        #[cfg(test)]
        self.spent.fetch_add(work(params), std::sync::atomic::Ordering::Relaxed);
        let mut memory = self.memory.lock().map_err(|_| HashError::Hashing)?;
        if memory.len() < params.block_count() {
            memory.resize(params.block_count(), Block::default());
        }
        let mut output = [0; Params::DEFAULT_OUTPUT_LEN];
        argon2id(params.clone())
            .hash_password_into_with_memory(password.as_bytes(), salt, &mut output, memory.as_mut_slice())
            .map_err(|_| HashError::Hashing)?;
        Output::new(&output).map_err(|_| HashError::Hashing)
    }
}

fn argon2id(params: Params) -> Argon2<'static> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// What a hash takes: passes over one KiB. Lanes change nothing, they are filled one after the other.
fn work(params: &Params) -> u64 {
    u64::from(params.m_cost()) * u64::from(params.t_cost())
}

/// Checks a new password of the account with this address.
pub(crate) fn check(pointer: &str, password: &str, email: &str) -> Result<(), FieldError> {
    check_password_length(pointer, password)?;
    if is_guessable(password, email) {
        return Err(FieldError::new(pointer, "is one of the first that anybody would try").code(TOO_COMMON));
    }
    Ok(())
}

/// Whether a password is a common one, in whatever case, or says no more than whose it is and where.
fn is_guessable(password: &str, email: &str) -> bool {
    let password = password.trim().to_lowercase();
    let name = email.rsplit_once('@').map_or(email, |(name, _)| name);
    // What is left without digits and signs around it: `Reelay2026!`, `ada_1234`.
    let core = core_of(&password);
    COMMON.lines().any(|common| common == password)
        || password == email
        || password == name
        || [SERVICE, core_of(name)].contains(&core) && !core.is_empty()
}

fn core_of(text: &str) -> &str {
    text.trim_matches(|c: char| !c.is_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMAIL: &str = "ada.l@example.org";

    fn hasher() -> Hasher {
        Hasher::new(19_456, 2).unwrap()
    }

    #[test]
    fn a_hash_carries_its_parameters_and_a_salt_of_its_own() {
        let (first, second) = (
            hasher().hash("correct horse").unwrap(),
            hasher().hash("correct horse").unwrap(),
        );
        assert!(first.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{first}");
        assert_ne!(first, second);
    }

    #[test]
    fn only_the_exact_password_verifies() {
        let long = "x".repeat(80);
        let stored = hasher().hash(&long).unwrap();
        let verify = |password: &str| hasher().verify(password, Some(&stored)).unwrap();
        assert_eq!(verify(&long), Verdict::Right);
        assert_eq!(verify(&format!("{long}y")), Verdict::Wrong, "no cut at 72 bytes");
        assert_eq!(verify(&format!(" {long}")), Verdict::Wrong);
        assert_eq!(hasher().verify(&long, None).unwrap(), Verdict::Wrong);
        assert_eq!(hasher().verify(&long, Some("{SHA}x")), Err(HashError::Stored));
    }

    #[test]
    fn a_hash_of_less_work_is_outdated_and_one_of_more_is_not() {
        let weak = Hasher::new(8_192, 1).unwrap().hash("correct horse").unwrap();
        assert_eq!(hasher().verify("correct horse", Some(&weak)), Ok(Verdict::Outdated));
        assert_eq!(hasher().verify("another horse", Some(&weak)), Ok(Verdict::Wrong));
        // OWASP's other choice for the same strength: more memory, one pass.
        let other = Hasher::new(47_104, 1).unwrap().hash("correct horse").unwrap();
        assert_eq!(hasher().verify("correct horse", Some(&other)), Ok(Verdict::Right));
    }

    /// What that takes of a processor is measured by `infra/bench/accounts.py`.
    #[test]
    fn a_wrong_password_takes_the_same_work_whatever_is_stored() {
        let current = hasher().hash("correct horse").unwrap();
        let outdated = Hasher::new(8_192, 1).unwrap().hash("correct horse").unwrap();
        let works = [Some(current.as_str()), Some(outdated.as_str()), None].map(|stored| {
            let hasher = hasher();
            assert_eq!(hasher.verify("wrong horse", stored), Ok(Verdict::Wrong));
            hasher.spent.load(std::sync::atomic::Ordering::Relaxed)
        });
        assert_eq!(works, [work(&hasher().params); 3]);
    }

    #[test]
    fn the_list_has_the_common_passwords_of_a_length_that_is_accepted() {
        let words: Vec<_> = COMMON.lines().filter(|line| !line.starts_with("# ")).collect();
        assert!(words.len() > 3_000);
        for common in ["password", "12345678", "qwertyuiop", "1q2w3e4r", "iloveyou"] {
            assert!(words.contains(&common), "{common}");
        }
        assert!(COMMON.contains("Redistribution and use in source and binary forms"));
    }

    #[test]
    fn what_anybody_would_try_first_is_refused() {
        for bad in [
            "password",
            "PassWord",
            " password ",
            "12345678",
            "reelay2026",
            "Reelay!!!",
            "!!reelay",
            EMAIL,
            "Ada.L@Example.ORG",
            "ada.l_1234",
            "2026ada.l",
        ] {
            let error = check("/password", bad, EMAIL).unwrap_err();
            assert_eq!(error.code, Some(TOO_COMMON), "{bad}");
        }
        for good in [
            "correct horse battery staple",
            "reelay is what I use",
            "        ",
            "12345679012345",
            "ada.love",
        ] {
            assert_eq!(check("/password", good, EMAIL), Ok(()), "{good}");
        }
        assert_eq!(check("/password", "short", EMAIL).unwrap_err().code, None);
        // An address without letters must not make every password of digits its own.
        assert_eq!(check("/password", "90817263540918", "12@example.org"), Ok(()));
    }
}
