//! Parts that schemas are made of.

#![expect(
    clippy::needless_pass_by_value,
    reason = "schemas are put together in one expression, in which every part is made where it is needed"
)]

use std::{fmt::Display, ops::RangeInclusive};

use serde_json::{Map, Value, json};

/// An object with these fields. All of them are there unless they are named in `optional`.
pub(super) fn object(description: &str, fields: Vec<(&str, Value)>, optional: &[&str]) -> Value {
    let required: Vec<_> = fields
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| !optional.contains(name))
        .collect();
    let properties: Map<_, _> = fields
        .iter()
        .map(|(name, schema)| ((*name).to_owned(), schema.clone()))
        .collect();
    let mut object = json!({"type": "object", "description": description, "properties": properties});
    if !required.is_empty() {
        object["required"] = json!(required);
    }
    object
}

/// The same, with a sentence about it.
pub(super) fn said(mut schema: Value, description: impl Display) -> Value {
    schema["description"] = json!(description.to_string());
    schema
}

/// The same, or null.
pub(super) fn nullable(mut schema: Value) -> Value {
    if schema.get("$ref").is_some() {
        return json!({"oneOf": [schema, {"type": "null"}]});
    }
    if let Some(Value::Array(words)) = schema.get_mut("enum") {
        words.push(Value::Null);
    }
    if let Some(kind) = schema.get("type").cloned() {
        schema["type"] = json!([kind, "null"]);
    }
    schema
}

/// Another schema, by its name.
pub(super) fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

pub(super) fn list(items: Value) -> Value {
    json!({"type": "array", "items": items})
}

pub(super) fn text() -> Value {
    json!({"type": "string"})
}

/// A text whose length in characters is bounded.
pub(super) fn text_of(chars: RangeInclusive<usize>) -> Value {
    json!({"type": "string", "minLength": chars.start(), "maxLength": chars.end()})
}

/// A text in one line: no control characters (Unicode's category Cc).
pub(super) fn line_of(chars: RangeInclusive<usize>) -> Value {
    let mut text = text_of(chars);
    text["pattern"] = json!("^[^\\u0000-\\u001f\\u007f-\\u009f]*$");
    text
}

/// One of these words.
pub(super) fn words<T: Copy>(all: &[T], spelled: fn(T) -> &'static str) -> Value {
    let words: Vec<_> = all.iter().map(|word| spelled(*word)).collect();
    json!({"type": "string", "enum": words})
}

/// A whole number, not negative.
pub(super) fn count() -> Value {
    json!({"type": "integer", "minimum": 0})
}

/// A whole number within bounds.
pub(super) fn count_of<T: serde::Serialize>(range: &RangeInclusive<T>) -> Value {
    json!({"type": "integer", "minimum": range.start(), "maximum": range.end()})
}

/// A number, not negative.
pub(super) fn number() -> Value {
    json!({"type": "number", "minimum": 0})
}

pub(super) fn flag() -> Value {
    json!({"type": "boolean"})
}

pub(super) fn time() -> Value {
    json!({"type": "string", "format": "date-time"})
}

/// An identifier of a kind.
pub(super) fn id(prefix: &str) -> Value {
    json!({"type": "string", "pattern": format!("^{prefix}_[0-9a-f]{{32}}$")})
}

pub(super) fn sha256() -> Value {
    json!({"type": "string", "pattern": "^[0-9a-f]{64}$"})
}

/// A parameter in the path.
pub(super) fn in_path(name: &str, description: &str, schema: Value, example: Value) -> Value {
    json!({"name": name, "in": "path", "required": true, "description": description, "schema": schema,
        "example": example})
}

/// A parameter in the query, which may be left out.
pub(super) fn in_query(name: &str, description: &str, schema: Value, example: Value) -> Value {
    json!({"name": name, "in": "query", "required": false, "description": description, "schema": schema,
        "example": example})
}
