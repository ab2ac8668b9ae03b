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
            .problems(&[Code::ValidationFailed, Code::EmailTaken]),
        Operation::new(FUNCTION, "POST", "/auth/login", "login")
            .says(
                TAG,
                "Sign in",
                "An unknown address is answered like a wrong password, and as slowly.",
            )
            .open()
            .body("Credentials", credentials)
            .answers(200, "A token for the header `Authorization`.", "Login", login())
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
        "Any characters; none are asked for.",
    );
    vec![
        (
            "Registration",
            object(
                "Who wants an account.",
                vec![("email", email), ("password", password)],
                &[],
            ),
        ),
        (
            "Credentials",
            object("Who signs in.", vec![("email", text()), ("password", text())], &[]),
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
        "expires_in_seconds": 3_600, "account": account()})
}
