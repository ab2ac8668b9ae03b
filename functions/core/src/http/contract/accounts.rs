//! Operations and schemas of `/auth`.

use serde_json::{Value, json};

use super::{
    operation::Operation,
    schema::{count, id, object, reference, said, text, text_of, time, words},
};
use crate::{
    domain::account::{MAX_EMAIL_BYTES, MAX_PASSWORD_CHARS, MIN_PASSWORD_CHARS, Role},
    http::Code,
};

const TAG: &str = "Accounts";
const FUNCTION: &str = "auth";
const REFRESH_TOKEN: &str = "cmVmcmVzaCB0b2tlbg";

pub(super) fn operations() -> Vec<Operation> {
    let credentials = json!({"email": "ada@example.com", "password": "correct horse battery"});
    vec![
        Operation::new(FUNCTION, "POST", "/auth/register", "register")
            .says(
                TAG,
                "Open an account",
                "The address is kept in lower case; results are mailed to it.",
            )
            .open()
            .body("Registration", credentials.clone())
            .answers(201, "The account.", "AccountAnswer", json!({"account": account()}))
            .problems(&[Code::ValidationFailed, Code::EmailTaken, Code::RateLimited]),
        Operation::new(FUNCTION, "POST", "/auth/login", "login")
            .says(
                TAG,
                "Sign in",
                "An unknown address is answered like a wrong password, and as slowly.",
            )
            .open()
            .body("Credentials", credentials)
            .answers(200, "A token for the header `Authorization`.", "Login", login())
            .problems(&[Code::InvalidCredentials, Code::LoginThrottled, Code::RateLimited]),
        Operation::new(FUNCTION, "POST", "/auth/refresh", "refresh")
            .says(
                TAG,
                "Go on with a session",
                "A refresh token is good for one use, and for a repetition of it by the same client. Whoever uses an old \
                 one again ends the session.",
            )
            .open()
            .body("RefreshRequest", json!({"refresh_token": REFRESH_TOKEN}))
            .answers(200, "New tokens; the old refresh token is used up.", "Login", login())
            .problems(&[Code::InvalidRefreshToken, Code::RateLimited]),
        Operation::new(FUNCTION, "POST", "/auth/change-password", "changePassword")
            .says(TAG, "Change the password", "Every other session of the account ends.")
            .body(
                "PasswordChange",
                json!({"current_password": "correct horse battery", "new_password": "staple of the horse"}),
            )
            .answers(200, "Tokens of a new session.", "Login", login())
            .problems(&[Code::InvalidCredentials, Code::ValidationFailed]),
        Operation::new(FUNCTION, "DELETE", "/auth/me", "deleteMe")
            .says(TAG, "Close the account", "Its sessions end at once.")
            .body("AccountDeletion", json!({"password": "correct horse battery"}))
            .problems(&[Code::InvalidCredentials]),
        Operation::new(FUNCTION, "POST", "/auth/logout", "logout").says(
            TAG,
            "Sign out",
            "The token is worth nothing from then on. Other logins of the account stay.",
        ),
        Operation::new(FUNCTION, "GET", "/auth/me", "getMe")
            .says(TAG, "The signed-in account", "")
            .answers(200, "The account.", "AccountAnswer", json!({"account": account()})),
    ]
}

pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let email = said(
        json!({"type": "string", "format": "email", "maxLength": MAX_EMAIL_BYTES}),
        "An e-mail address. Case, and spaces around it, mean nothing.",
    );
    let password = said(
        text_of(MIN_PASSWORD_CHARS..=MAX_PASSWORD_CHARS),
        "Any characters; none are asked for. What anybody would try first is refused.",
    );
    vec![
        (
            "Registration",
            object(
                "Who wants an account.",
                vec![("email", email), ("password", password.clone())],
                &[],
            ),
        ),
        (
            "Credentials",
            object("Who signs in.", vec![("email", text()), ("password", text())], &[]),
        ),
        (
            "RefreshRequest",
            object("Which session.", vec![("refresh_token", text())], &[]),
        ),
        (
            "PasswordChange",
            object(
                "The old password and the new one.",
                vec![("current_password", text()), ("new_password", password)],
                &[],
            ),
        ),
        (
            "AccountDeletion",
            object("Proof that it is the owner.", vec![("password", text())], &[]),
        ),
        (
            "Account",
            object(
                "An account.",
                vec![
                    ("id", id("acct")),
                    ("email", said(text(), "In lower case.")),
                    ("role", words(Role::ALL, Role::as_str)),
                    ("created_at", time()),
                ],
                &[],
            ),
        ),
        (
            "AccountAnswer",
            object("An account.", vec![("account", reference("Account"))], &[]),
        ),
        (
            "Login",
            object(
                "A login.",
                vec![
                    (
                        "access_token",
                        said(text(), "Opaque. It stands for the account: keep it secret."),
                    ),
                    ("token_type", json!({"const": "Bearer"})),
                    ("expires_in_seconds", said(count(), "The stack's AccessTokenSeconds.")),
                    (
                        "refresh_token",
                        said(
                            text(),
                            "Opaque, for `/auth/refresh`. Keep it where no script can read it.",
                        ),
                    ),
                    ("refresh_expires_in_seconds", said(count(), "Until the session ends.")),
                    ("account", reference("Account")),
                ],
                &[],
            ),
        ),
    ]
}

fn account() -> Value {
    json!({"id": "acct_019aa5f2c3d47e8f9a0b1c2d3e4f5a6b", "email": "ada@example.com", "role": "user",
        "created_at": "2026-03-01T09:00:00.000Z"})
}

fn login() -> Value {
    json!({"access_token": "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJIUzI1NiJ9.e30.c2ln", "token_type": "Bearer",
        "expires_in_seconds": 900, "refresh_token": REFRESH_TOKEN, "refresh_expires_in_seconds": 2_592_000,
        "account": account()})
}
