//! Operations about the API itself.

use serde_json::json;

use super::operation::Operation;

const TAG: &str = "Service";
const FUNCTION: &str = "status";

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::new(FUNCTION, "GET", "/openapi.json", "getOpenapi")
            .says(TAG, "This document", "OpenAPI 3.1.")
            .open()
            .answers_with(
                200,
                "The document.",
                "application/json",
                json!({"type": "object", "required": ["openapi", "info", "paths"]}),
                json!({"openapi": "3.1.0", "info": {"title": "Reelay", "version": "1"}, "paths": {}}),
            ),
        Operation::new(FUNCTION, "GET", "/docs", "getDocs")
            .says(
                TAG,
                "This document, to read",
                "One page without scripts, images or requests of its own. The `type` of an error leads to its section.",
            )
            .open()
            .answers_with(
                200,
                "The page.",
                "text/html",
                json!({"type": "string"}),
                json!("<!doctype html>"),
            ),
    ]
}
