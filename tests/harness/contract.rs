//! The API's own document, and what it says of an answer.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Harness};

/// The document that a stack serves.
#[derive(Debug)]
pub struct Document(pub Value);

/// An operation of it.
#[derive(Clone, Copy, Debug)]
pub struct Operation<'d> {
    /// The verb, in upper case.
    pub method: &'d str,
    /// Its path, with its parameters in braces.
    pub path: &'d str,
    document: &'d Document,
    described: &'d Value,
}

impl Document {
    /// Asks for it.
    pub async fn fetch(harness: &Harness) -> Result<Self> {
        let request = harness.request(Method::GET, &harness.url("/openapi.json")?);
        Ok(Self(harness.send(request, 200).await?.json()?))
    }

    /// Every operation, alternative paths too.
    pub fn operations(&self) -> impl Iterator<Item = Operation<'_>> {
        const METHODS: [(&str, &str); 4] = [("get", "GET"), ("post", "POST"), ("put", "PUT"), ("delete", "DELETE")];
        let paths = self.0["paths"].as_object().into_iter().flatten();
        paths.flat_map(move |(path, item)| {
            METHODS.iter().filter_map(move |(name, method)| {
                Some(Operation {
                    method,
                    path,
                    document: self,
                    described: item.get(name)?,
                })
            })
        })
    }

    /// Every code of a problem.
    pub fn codes(&self) -> Result<Vec<&str>> {
        let codes = self.0["components"]["schemas"]["Problem"]["properties"]["code"]["enum"].as_array();
        Ok(codes.context("no codes")?.iter().filter_map(Value::as_str).collect())
    }
}

impl<'d> Operation<'d> {
    /// What it is the same as, when its path is an alternative one.
    pub fn alias_of(&self) -> Option<&'d str> {
        let path = self.described["description"].as_str()?.strip_prefix("The same as `")?;
        path.strip_suffix("`.")?.split(' ').nth(1)
    }

    /// Whether it wants a token.
    pub fn needs_token(&self) -> bool {
        self.described["security"] != json!([])
    }

    /// The path, filled in.
    pub fn path_for(&self, job_id: &str) -> String {
        self.path.replace("{id}", job_id).replace("{file}", "index.m3u8")
    }

    /// The body that it shows as an example.
    pub fn example(&self) -> Option<Value> {
        self.described
            .pointer("/requestBody/content/application~1json/example")
            .cloned()
    }

    /// The status when all is well.
    pub fn good_status(&self) -> Result<u16> {
        let responses = self.described["responses"].as_object().context("no responses")?;
        let statuses = responses.keys().filter_map(|status| status.parse().ok());
        statuses.min().context("no status")
    }

    /// Checks that an answer is one of the documented ones: status, type, headers, and a body that has all that is
    /// described and nothing else.
    pub fn check(&self, answer: &Answer) -> Result<()> {
        let asked = format!("{} {}", self.method, self.path);
        let status = answer.status.as_u16();
        let described = self.described["responses"].get(status.to_string()).with_context(|| {
            format!(
                "{asked}: {status} is not documented: {:?}",
                String::from_utf8_lossy(&answer.body)
            )
        })?;
        for name in described["headers"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, _)| name)
        {
            answer.header(name)?;
        }
        let Some(content) = described["content"].as_object() else {
            ensure!(answer.body.is_empty(), "{asked}: {status} has a body");
            return Ok(());
        };
        let media_type = answer.header("content-type")?;
        let essence = media_type.split(';').next().unwrap_or_default();
        let content = content
            .get(essence)
            .with_context(|| format!("{asked}: {media_type} is not documented for {status}"))?;
        let body = if essence.ends_with("json") {
            answer.json()?
        } else {
            json!(String::from_utf8(answer.body.clone())?)
        };
        let mut schema = content["schema"].clone();
        schema["components"] = json!({"schemas": self.document.0["components"]["schemas"]});
        for schema in schema["components"]["schemas"].as_object_mut().into_iter().flatten() {
            if schema.1["properties"].is_object() {
                schema.1["additionalProperties"] = json!(false);
            }
        }
        let validator = jsonschema::options().should_validate_formats(true).build(&schema);
        let validator = validator.map_err(|error| anyhow::anyhow!("{asked}: {error}"))?;
        let errors: Vec<_> = validator
            .iter_errors(&body)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        ensure!(errors.is_empty(), "{asked}: {status}: {errors:?} in {body}");
        Ok(())
    }
}

/// The methods that a document knows for a path.
pub fn methods_of(document: &Document, path: &str) -> BTreeSet<String> {
    let at_path = document.operations().filter(|operation| operation.path == path);
    at_path.map(|operation| operation.method.to_owned()).collect()
}
