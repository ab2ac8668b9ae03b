//! The contract: every operation of the API as data, and the documents made from it.
//!
//! This is the one description of the API. The `OpenAPI` document (`GET /openapi.json`) and its page (`GET /docs`) are made
//! from it, `Allow` and the difference between 404 and 405 come from it, and each function's tests hold its router
//! against it. Words, codes and bounds are taken from the constants that the code itself decides by, so they cannot differ.
//!
//! ```text
//! operation   what an operation is made of       schema     parts that schemas are made of
//! accounts    operations and schemas of /auth    jobs       of /jobs: what is made, shown and done
//! create      the body that makes a job          outputs    of what a job made
//! uploads     of uploads in parts                audit      of what operators look at
//! service     the document and its page          problems   errors, and what to do about each
//! document    all of it as OpenAPI               page       all of it as HTML
//! ```
//!
//! A new resource is a file with `operations()` and `schemas()`, and a line in each of the two lists below.

mod accounts;
mod audit;
mod create;
mod document;
mod jobs;
mod operation;
mod outputs;
mod page;
mod problems;
mod schema;
mod service;
#[cfg(test)]
mod tests;
mod uploads;

use std::{collections::BTreeSet, sync::LazyLock};

use axum::http::Method;
use serde_json::Value;

pub use document::{document, json};
pub use operation::Operation;
pub use page::{content_security_policy, html};
pub use problems::problem_type;

static OPERATIONS: LazyLock<Vec<Operation>> = LazyLock::new(|| {
    [
        accounts::operations(),
        jobs::operations(),
        uploads::operations(),
        outputs::operations(),
        audit::operations(),
        service::operations(),
    ]
    .concat()
});

/// Every operation.
#[must_use]
pub fn operations() -> &'static [Operation] {
    &OPERATIONS
}

/// Every schema, by its name.
fn schemas() -> Vec<(&'static str, Value)> {
    [
        accounts::schemas(),
        create::schemas(),
        jobs::schemas(),
        uploads::schemas(),
        outputs::schemas(),
        audit::schemas(),
        problems::schemas(),
    ]
    .concat()
}

/// The routes that a function must have: method, and path relative to the base; alternative paths too.
#[must_use]
pub fn routes_of(function: &str) -> BTreeSet<(&'static str, &'static str)> {
    let own = operations().iter().filter(|operation| operation.function == function);
    own.flat_map(|operation| {
        operation
            .paths()
            .map(|(path, _)| (operation.method, path))
            .collect::<Vec<_>>()
    })
    .collect()
}

/// The methods that a path, relative to the base, is answered for by whatever function; none for an unknown path.
#[must_use]
pub fn methods_at(path: &str) -> BTreeSet<&'static str> {
    let fitting = || {
        let all = operations().iter().flat_map(|operation| {
            let paths = operation.paths();
            paths.map(move |(template, _)| (template, operation.method))
        });
        all.filter(|(template, _)| fits(template, path))
    };
    // As a router has it: what is spelled out goes before what stands for anything.
    let is_open = |template: &str| {
        template
            .split('/')
            .map(|part| part.starts_with('{'))
            .collect::<Vec<_>>()
    };
    let first = fitting()
        .map(|(template, _)| template)
        .min_by_key(|template| is_open(template));
    let mut methods: BTreeSet<_> = fitting()
        .filter(|(template, _)| Some(*template) == first)
        .map(|(_, method)| method)
        .collect();
    if methods.contains(Method::GET.as_str()) {
        methods.insert("HEAD");
    }
    methods
}

/// Whether a path is one of those that a template stands for.
fn fits(template: &str, path: &str) -> bool {
    let (mut wanted, mut given) = (template.split('/'), path.split('/'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return true,
            (Some(wanted), Some(given)) if wanted == given || (wanted.starts_with('{') && !given.is_empty()) => {}
            _ => return false,
        }
    }
}
