//! What an operation is made of.

use serde_json::Value;

use crate::http::Code;

/// One thing that a client can ask for.
#[derive(Debug, Clone)]
pub struct Operation {
    /// The function that answers it.
    pub function: &'static str,
    /// In upper case.
    pub method: &'static str,
    /// Relative to the base.
    pub path: &'static str,
    /// Its name in generated clients.
    pub id: &'static str,
    /// More paths that the same handler answers, with the names of their own that generated clients need.
    pub aliases: &'static [(&'static str, &'static str)],
    /// The chapter that it stands in.
    pub(super) tag: &'static str,
    pub(super) summary: &'static str,
    pub(super) description: &'static str,
    pub(super) signed_in: bool,
    pub(super) parameters: Vec<Value>,
    /// The schema's name, and an example.
    pub(super) request: Option<(&'static str, Value)>,
    pub(super) answer: Answer,
    pub(super) problems: Vec<Code>,
}

/// The answer when all is well. Each operation has exactly one.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) description: &'static str,
    pub(super) content: Option<Content>,
    /// Names of response headers, which `document` describes.
    pub(super) headers: &'static [&'static str],
    /// Whether `/id` of the body is the `{id}` of other operations.
    pub(super) names_a_job: bool,
    /// Whether `If-None-Match` may be answered with 304.
    pub(super) is_tagged: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Content {
    pub(super) media_type: &'static str,
    pub(super) schema: Value,
    pub(super) example: Value,
}

impl Operation {
    /// An operation whose answer is empty so far.
    pub(super) fn new(function: &'static str, method: &'static str, path: &'static str, id: &'static str) -> Self {
        Self {
            function,
            method,
            path,
            id,
            aliases: &[],
            tag: "",
            summary: "",
            description: "",
            signed_in: true,
            parameters: Vec::new(),
            request: None,
            answer: Answer {
                status: 204,
                description: "Done.",
                content: None,
                headers: &[],
                names_a_job: false,
                is_tagged: false,
            },
            problems: Vec::new(),
        }
    }

    /// Chapter, title, and what else there is to know.
    pub(super) fn says(mut self, tag: &'static str, summary: &'static str, description: &'static str) -> Self {
        (self.tag, self.summary, self.description) = (tag, summary, description);
        self
    }

    pub(super) fn aliases(mut self, aliases: &'static [(&'static str, &'static str)]) -> Self {
        self.aliases = aliases;
        self
    }

    /// For everybody, without a token.
    pub(super) fn open(mut self) -> Self {
        self.signed_in = false;
        self
    }

    pub(super) fn takes(mut self, parameter: Value) -> Self {
        self.parameters.push(parameter);
        self
    }

    pub(super) fn body(mut self, schema: &'static str, example: Value) -> Self {
        self.request = Some((schema, example));
        self
    }

    /// A JSON answer of a named schema.
    pub(super) fn answers(self, status: u16, description: &'static str, schema: &str, example: Value) -> Self {
        self.answers_with(
            status,
            description,
            "application/json",
            super::schema::reference(schema),
            example,
        )
    }

    pub(super) fn answers_with(
        mut self,
        status: u16,
        description: &'static str,
        media_type: &'static str,
        schema: Value,
        example: Value,
    ) -> Self {
        (self.answer.status, self.answer.description) = (status, description);
        self.answer.content = Some(Content {
            media_type,
            schema,
            example,
        });
        self
    }

    /// A redirect to a signed URL.
    pub(super) fn redirects(mut self, description: &'static str) -> Self {
        (self.answer.status, self.answer.description) = (302, description);
        self.headers(&["Location"])
    }

    pub(super) fn headers(mut self, headers: &'static [&'static str]) -> Self {
        self.answer.headers = headers;
        self
    }

    /// The answer has an entity tag.
    pub(super) fn tagged(mut self) -> Self {
        self.answer.is_tagged = true;
        self.headers(&["ETag"])
    }

    /// The answer's body is a job, whose `id` other operations take.
    pub(super) fn names_a_job(mut self) -> Self {
        self.answer.names_a_job = true;
        self
    }

    pub(super) fn problems(mut self, problems: &[Code]) -> Self {
        self.problems.extend(problems);
        self
    }

    /// Its own path and the alternative ones, each with its name.
    pub(super) fn paths(&self) -> impl Iterator<Item = (&'static str, &'static str)> + use<> {
        std::iter::once((self.path, self.id)).chain(self.aliases.iter().copied())
    }

    /// Every code that it may be answered with: its own, and those of all that are like it.
    pub(super) fn all_problems(&self) -> Vec<Code> {
        let mut all = self.problems.clone();
        if self.signed_in {
            all.extend([Code::Unauthenticated, Code::RateLimited]);
        }
        if self.request.is_some() {
            all.extend([Code::InvalidRequest, Code::BodyTooLarge, Code::UnsupportedMediaType]);
        }
        if self.parameters.iter().any(|parameter| parameter["in"] == "query") {
            all.push(Code::InvalidRequest);
        }
        if self.path.contains("{id}") {
            all.push(Code::NotFound);
        }
        if self.signed_in || self.request.is_some() {
            all.extend([Code::InternalError, Code::ServiceUnavailable]);
        }
        all.sort_by_key(|code| (code.status(), code.as_str()));
        all.dedup();
        all
    }
}
