//! What was done, by whom, to what: entries that an operator can read later.

use serde::{Deserialize, Serialize};

use super::{id::AccountId, time::UtcTime, words::words};

words! {
    /// What was done.
    Action {
        /// An account was made.
        Register = "register",
        /// Somebody signed in, or tried to.
        Login = "login",
        /// A session was ended by its owner.
        Logout = "logout",
        /// A session was renewed.
        Refresh = "refresh",
        /// A refresh token came that was used before: stolen, or copied.
        RefreshReuse = "refresh_reuse",
        /// The password was changed, or that was tried.
        ChangePassword = "change_password",
        /// An account got another role.
        ChangeRole = "change_role",
        /// An account was deleted.
        DeleteAccount = "delete_account",
        /// A job was made.
        CreateJob = "create_job",
        /// A job was stopped.
        CancelJob = "cancel_job",
        /// A job was run again.
        RetryJob = "retry_job",
        /// A job was deleted with its outputs.
        DeleteJob = "delete_job",
    }
}

words! {
    /// What came of it.
    Outcome {
        /// It was done.
        Ok = "ok",
        /// It was refused.
        Failed = "failed",
    }
}

/// Longest user agent that is kept, in characters.
const MAX_USER_AGENT_CHARS: usize = 200;

/// One entry. It never holds a token, a password or a mail address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    pub at: UtcTime,
    /// What.
    pub action: Action,
    /// What came of it.
    pub outcome: Outcome,
    /// Whose account; none when the address has no account.
    #[serde(default)]
    pub account_id: Option<AccountId>,
    /// What it was done to, by its id; none when that is the account itself.
    #[serde(default)]
    pub resource: Option<String>,
    /// Where the request came from, as API Gateway saw it.
    pub source_address: String,
    /// What the client calls itself; see [`plain`].
    pub user_agent: String,
    /// The request.
    pub request_id: String,
}

/// A text of a stranger in a form that can do no harm in a log or on a screen: no control and no format characters, and
/// not long.
#[must_use]
pub fn plain(text: &str) -> String {
    // The second half turns the writing direction, or is invisible.
    let harmful = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.chars()
        .map(|c| if harmful(c) { ' ' } else { c })
        .take(MAX_USER_AGENT_CHARS)
        .collect::<String>()
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_agents_are_trimmed_and_cannot_forge_a_line() {
        assert_eq!(plain(" curl/8.5.0 "), "curl/8.5.0");
        assert_eq!(
            plain("a\r\n{\"level\":\"ERROR\"}\u{1b}[2J\u{202e}x"),
            "a  {\"level\":\"ERROR\"} [2J x"
        );
        assert_eq!(plain(&"ä".repeat(1_000)).chars().count(), MAX_USER_AGENT_CHARS);
    }
}
