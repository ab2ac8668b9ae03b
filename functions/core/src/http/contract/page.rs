//! The contract as one page to read: no script, no image, no request of its own.

use std::{fmt::Write as _, sync::LazyLock};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{Operation, document, operations, problems, schemas};
use crate::http::Code;

const STYLE: &str = include_str!("page.css");

static HTML: LazyLock<String> = LazyLock::new(build);
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let digest = BASE64_STANDARD.encode(Sha256::digest(STYLE));
    format!(
        "default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
});

/// The page.
#[must_use]
pub fn html() -> &'static str {
    &HTML
}

/// What the page may do in a browser: be styled by its own style sheet, and nothing else.
#[must_use]
pub fn content_security_policy() -> &'static str {
    &POLICY
}

fn build() -> String {
    let info = document()["info"].clone();
    let mut page = Page(format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>Reelay API</title>\n<style>{STYLE}</style>\n"
    ));
    page.element("h1", "", "Reelay API");
    for paragraph in text(&info["description"]).split("\n\n") {
        page.element("p", "", paragraph);
    }
    page.html("<p>The same for programs: <a href=\"openapi.json\">openapi.json</a> (OpenAPI 3.1).</p>\n");
    page.contents();
    let mut tag = "";
    for operation in operations() {
        if operation.tag != tag {
            tag = operation.tag;
            page.element("h2", "", tag);
        }
        page.operation(operation);
    }
    page.problems();
    page.element("h2", "", "Objects");
    for (name, schema) in schemas() {
        page.object(name, &schema);
    }
    page.html("</html>\n");
    page.0
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A page that grows. Everything but its own markup is escaped.
struct Page(String);

impl Page {
    fn html(&mut self, html: &str) {
        self.0.push_str(html);
    }

    /// An element with text, in which `...` between backquotes is code.
    fn element(&mut self, name: &str, id: &str, text: &str) {
        let id = if id.is_empty() {
            String::new()
        } else {
            format!(" id=\"{}\"", escaped(id))
        };
        let _ = writeln!(self.0, "<{name}{id}>{}</{name}>", inline(text));
    }

    fn row(&mut self, cells: &[&str]) {
        self.html("<tr>");
        for cell in cells {
            let _ = write!(self.0, "<td>{}</td>", inline(cell));
        }
        self.html("</tr>\n");
    }

    fn head(&mut self, cells: &[&str]) {
        self.html("<table><thead><tr>");
        for cell in cells {
            let _ = write!(self.0, "<th>{}</th>", inline(cell));
        }
        self.html("</tr></thead><tbody>\n");
    }

    fn end_table(&mut self) {
        self.html("</tbody></table>\n");
    }

    fn contents(&mut self) {
        self.html("<nav><ul>\n");
        for operation in operations() {
            let (id, method, path) = (operation.id, operation.method, operation.path);
            let _ = writeln!(self.0, "<li><a href=\"#{id}\"><code>{method} {path}</code></a></li>");
        }
        self.html("<li><a href=\"#errors\">Errors</a></li>\n</ul></nav>\n");
    }

    fn operation(&mut self, operation: &Operation) {
        let (id, method, path) = (operation.id, operation.method, operation.path);
        let _ = writeln!(
            self.0,
            "<section id=\"{id}\"><h3><span class=\"method\">{method}</span> <code>{path}</code></h3>"
        );
        self.element("p", "", &format!("{}. {}", operation.summary, operation.description));
        if !operation.signed_in {
            self.element("p", "", "Needs no token.");
        }
        if !operation.aliases.is_empty() {
            let paths: Vec<_> = operation.aliases.iter().map(|(path, _)| format!("`{path}`")).collect();
            self.element("p", "", &format!("Also: {}", paths.join(", ")));
        }
        if !operation.parameters.is_empty() {
            self.head(&["parameter", "in", "values", "what"]);
            for parameter in &operation.parameters {
                let values = kind(&parameter["schema"]);
                self.row(&[
                    &format!("`{}`", text(&parameter["name"])),
                    text(&parameter["in"]),
                    &values,
                    text(&parameter["description"]),
                ]);
            }
            self.end_table();
        }
        if let Some((schema, example)) = &operation.request {
            self.example(&format!("Body: {schema}"), example);
        }
        let answer = &operation.answer;
        self.element("p", "", &format!("Answers {}: {}", answer.status, answer.description));
        if let Some(content) = &answer.content {
            self.example(content.media_type, &content.example);
        }
        let codes: Vec<_> = operation
            .all_problems()
            .into_iter()
            .map(|code| format!("<a href=\"#{0}\"><code>{0}</code></a>", code.as_str()))
            .collect();
        if !codes.is_empty() {
            let _ = writeln!(self.0, "<p>Errors: {}</p>", codes.join(", "));
        }
        self.html("</section>\n");
    }

    fn example(&mut self, title: &str, example: &Value) {
        let example = match example {
            Value::String(text) => text.clone(),
            other => serde_json::to_string_pretty(other).unwrap_or_default(),
        };
        let _ = writeln!(
            self.0,
            "<details><summary>{}</summary><pre>{}</pre></details>",
            escaped(title),
            escaped(&example)
        );
    }

    fn problems(&mut self) {
        self.element("h2", "errors", "Errors");
        self.element(
            "p",
            "",
            "Problem documents (RFC 9457) of the type `application/problem+json`. The `code` is what to decide by, and \
             `type` leads to its section here. A path that exists is answered with 405 for other methods than its own; \
             `Allow` names those.",
        );
        for code in Code::ALL {
            let _ = write!(self.0, "<section id=\"{}\">", code.as_str());
            self.element("h3", "", &format!("`{}`: {}", code.as_str(), code.status().as_u16()));
            self.element("p", "", &format!("{}. {}", code.title(), code.meaning()));
            self.element("p", "", problems::advice(*code));
            self.html("</section>\n");
        }
    }

    fn object(&mut self, name: &str, schema: &Value) {
        self.element("h3", name, name);
        self.element("p", "", text(&schema["description"]));
        let Some(properties) = schema["properties"].as_object() else {
            return;
        };
        let required = schema["required"].as_array();
        self.head(&["field", "values", "what"]);
        for (field, schema) in properties {
            let is_required = required.is_some_and(|names| names.iter().any(|name| name == field));
            let mark = if is_required { "" } else { " (optional)" };
            self.row(&[&format!("`{field}`{mark}"), &kind(schema), text(&schema["description"])]);
        }
        self.end_table();
    }
}

/// What values a schema stands for, in a few words.
fn kind(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        return reference.rsplit('/').next().unwrap_or_default().to_owned();
    }
    if let Some(several) = schema["oneOf"].as_array() {
        return several.iter().map(kind).collect::<Vec<_>>().join(" or ");
    }
    if let Some(words) = schema["enum"].as_array() {
        return words
            .iter()
            .map(|word| format!("`{word}`"))
            .collect::<Vec<_>>()
            .join(" ");
    }
    if let Some(value) = schema.get("const") {
        return format!("`{value}`");
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().map(text).collect::<Vec<_>>().join(" or "),
        kind => text(kind).to_owned(),
    };
    let mut words = vec![kind];
    if schema["items"].is_object() {
        words.push(format!("of {}", self::kind(&schema["items"])));
    }
    for (name, said) in [
        ("format", ""),
        ("minimum", "from "),
        ("exclusiveMinimum", "above "),
        ("maximum", "to "),
        ("minLength", "characters: from "),
        ("maxLength", "characters: to "),
        ("maxItems", "entries: to "),
        ("pattern", "like "),
    ] {
        match schema.get(name) {
            Some(Value::String(value)) => words.push(format!("{said}`{value}`")),
            Some(value) => words.push(format!("{said}{value}")),
            None => {}
        }
    }
    words.join(", ")
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Escaped text, with code where there are backquotes.
fn inline(text: &str) -> String {
    let mut html = String::new();
    for (n, part) in text.split('`').enumerate() {
        if n % 2 == 1 {
            let _ = write!(html, "<code>{}</code>", escaped(part));
        } else {
            html.push_str(&escaped(part));
        }
    }
    html
}
