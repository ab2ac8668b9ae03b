use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::*;
use crate::{
    domain::{
        create::CreateJob,
        failure::{Failure, FailureCode, Stage},
        id::{AccountId, JobId},
        job::Job,
        time::UtcTime,
    },
    http::{Code, view::JobView},
};

/// A schema, with the document's own behind its references.
fn validator(schema: &Value) -> jsonschema::Validator {
    let mut schema = schema.clone();
    schema["components"] = json!({"schemas": closed(&document()["components"]["schemas"])});
    jsonschema::options()
        .should_validate_formats(true)
        .build(&schema)
        .unwrap()
}

/// The same schemas, but for clients that know every field: what is not described is not valid.
fn closed(schemas: &Value) -> Value {
    let mut schemas = schemas.clone();
    for schema in schemas.as_object_mut().unwrap().values_mut() {
        if schema["properties"].is_object() {
            schema["additionalProperties"] = json!(false);
        }
    }
    schemas
}

fn assert_valid(schema: &Value, value: &Value, what: &str) {
    let errors: Vec<_> = validator(schema)
        .iter_errors(value)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert_eq!(errors, [""; 0], "{what}");
}

fn every_operation() -> impl Iterator<Item = (String, &'static Value)> {
    let paths = document()["paths"].as_object().unwrap();
    paths.iter().flat_map(|(path, item)| {
        item.as_object()
            .unwrap()
            .iter()
            .map(move |(method, operation)| (format!("{method} {path}"), operation))
    })
}

#[test]
fn every_operation_has_examples_that_fit_its_schemas() {
    let mut checked = 0;
    for (name, operation) in every_operation() {
        let bodies = operation["responses"].as_object().unwrap().iter();
        let mut contents: Vec<_> = bodies
            .map(|(status, answer)| (status.as_str(), &answer["content"]))
            .collect();
        contents.push(("request", &operation["requestBody"]["content"]));
        for (part, content) in contents {
            let Some(content) = content.as_object() else {
                assert!(
                    ["request", "204", "302", "304"].contains(&part),
                    "{name}: {part} has no body"
                );
                continue;
            };
            for content in content.values() {
                let single = content.get("example").cloned();
                let several = content["examples"].as_object().into_iter().flatten();
                let examples: Vec<_> = single
                    .into_iter()
                    .chain(several.map(|(_, example)| example["value"].clone()))
                    .collect();
                assert!(!examples.is_empty(), "{name}: {part} has no example");
                for example in examples {
                    assert_valid(&content["schema"], &example, &format!("{name}: {part}"));
                    checked += 1;
                }
            }
        }
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            assert_valid(&parameter["schema"], &parameter["example"], &name);
            checked += 1;
        }
    }
    assert!(checked > 100, "only {checked} examples");
}

#[test]
fn names_are_unique_and_every_reference_leads_somewhere() {
    let mut ids = BTreeSet::new();
    for (name, operation) in every_operation() {
        assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{name}");
        for field in ["summary", "tags", "responses", "security"] {
            assert!(!operation[field].is_null(), "{name} has no {field}");
        }
    }
    let text = json();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(document().pointer(pointer).is_some(), "{pointer}");
    }
    for name in document()["components"]["schemas"].as_object().unwrap().keys() {
        assert!(
            text.contains(&format!("\"#/components/schemas/{name}\"")),
            "nobody uses {name}"
        );
    }
}

#[test]
fn every_code_is_in_the_document_with_its_status_and_nothing_else() {
    let mut statuses = BTreeMap::new();
    for (name, operation) in every_operation() {
        for (status, answer) in operation["responses"].as_object().unwrap() {
            let examples = &answer["content"]["application/problem+json"]["examples"];
            for (code, example) in examples.as_object().into_iter().flatten() {
                assert_eq!(example["value"]["code"], **code, "{name}");
                assert_eq!(example["value"]["status"].to_string(), *status, "{name}");
                statuses.insert(code.clone(), status.clone());
            }
        }
    }
    // It is the answer where there is no operation.
    statuses.insert("method_not_allowed".into(), "405".into());
    let codes = Code::ALL
        .iter()
        .map(|code| (code.as_str().to_owned(), code.status().as_u16().to_string()))
        .collect();
    assert_eq!(statuses, codes);
}

#[test]
fn the_page_explains_every_code_operation_and_object() {
    for code in Code::ALL {
        let id = problem_type(*code).split_once('#').unwrap().1.to_owned();
        assert_eq!(id, code.as_str());
        let section = html().split(&format!("<section id=\"{id}\">")).nth(1).unwrap();
        let section = section.split("</section>").next().unwrap();
        assert!(section.contains(&code.status().as_u16().to_string()), "{section}");
        assert_eq!(section.matches("<p>").count(), 2, "{section}");
        assert!(
            code.meaning().ends_with('.') && problems::advice(*code).ends_with('.'),
            "{code:?}"
        );
    }
    for operation in operations() {
        assert!(html().contains(&format!("<section id=\"{}\">", operation.id)));
    }
    let ids: Vec<_> = html()
        .split(" id=\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    assert_eq!(
        ids.iter().collect::<BTreeSet<_>>().len(),
        ids.len(),
        "two sections have one name"
    );
    for link in html().split("href=\"#").skip(1) {
        let id = link.split('"').next().unwrap();
        assert!(ids.contains(&id), "a link leads to {id}");
    }
}

#[test]
fn the_page_asks_for_nothing() {
    for outside in [
        "<script", "<img", "<link", "<iframe", "style=", "src=", "@import", "url(",
    ] {
        assert!(!html().contains(outside), "{outside}");
    }
    for link in html().split("href=\"").skip(1) {
        assert!(
            link.starts_with('#') || link.starts_with("openapi.json\""),
            "{link:.40}"
        );
    }
    assert!(content_security_policy().starts_with("default-src 'none'; style-src 'sha256-"));
}

#[test]
fn paths_are_told_from_methods() {
    assert_eq!(methods_at("/jobs"), BTreeSet::from(["GET", "HEAD", "POST"]));
    assert_eq!(methods_at("/auth/login"), BTreeSet::from(["POST"]));
    assert_eq!(methods_at("/videos/tasks/anything"), BTreeSet::from(["GET", "HEAD"]));
    let parts = "/s3/multipart/x";
    assert_eq!(methods_at(&format!("{parts}/complete")), BTreeSet::from(["POST"]));
    assert_eq!(methods_at(&format!("{parts}/7")), BTreeSet::from(["GET", "HEAD"]));
    for unknown in ["", "/", "/nothing", "/jobs/", "/jobs/x/nothing", "/jobs/x/progress/y"] {
        assert!(methods_at(unknown).is_empty(), "{unknown}");
    }
}

#[test]
fn a_job_is_shown_as_it_is_described() {
    let body = json!({"filename": "a.mp4", "size_bytes": 10, "metadata": {"n": 1}, "title": "t"});
    let new = serde_json::from_value::<CreateJob>(body)
        .unwrap()
        .validate(100)
        .unwrap();
    let now = UtcTime::from_epoch_ms(0);
    let job = Job::pending(
        JobId::generate(),
        AccountId::generate(),
        new,
        now,
        std::time::Duration::from_mins(1),
    );
    let failed = Job {
        error: Some(Failure::new(FailureCode::NoSpace, Stage::Encode, 1, "no space")),
        completed_at: Some(now),
        ..job.clone()
    };
    for job in [job, failed] {
        let view = serde_json::to_value(JobView::new(job, None)).unwrap();
        assert_valid(&json!({"$ref": "#/components/schemas/Job"}), &view, "a job");
    }
}

/// Bodies at each bound and just behind it: the schema and the code must say the same.
#[test]
#[expect(clippy::too_many_lines, reason = "it is a table")]
fn schema_and_code_accept_the_same_bodies() {
    let schema = json!({"$ref": "#/components/schemas/CreateJob"});
    let open = {
        let mut schema = schema.clone();
        schema["components"] = document()["components"].clone();
        jsonschema::validator_for(&schema).unwrap()
    };
    let cases = [
        (
            "filename",
            vec![json!("a"), json!("a".repeat(255)), json!("ä".repeat(255))],
            vec![
                json!(""),
                json!("a".repeat(256)),
                json!("a\nb"),
                json!("\u{85}"),
                json!(null),
                json!(7),
            ],
        ),
        (
            "source_file",
            vec![json!(null), json!("b")],
            vec![json!(""), json!("\u{0}")],
        ),
        (
            "size_bytes",
            vec![json!(1), json!(7.0), json!(create::LARGEST_SOURCE_BYTES)],
            vec![
                json!(0),
                json!(create::LARGEST_SOURCE_BYTES + 1),
                json!(-1),
                json!(1.5),
                json!("1"),
                json!(null),
            ],
        ),
        (
            "content_type",
            vec![json!("video/mp4"), json!("application/octet-stream"), json!(null)],
            vec![
                json!("image/png"),
                json!("video/"),
                json!("video"),
                json!("video/a b"),
                json!("a".repeat(128)),
            ],
        ),
        (
            "priority",
            vec![json!("high"), json!("low"), json!(null)],
            vec![json!("HIGH"), json!("")],
        ),
        (
            "title",
            vec![json!(""), json!("a".repeat(200)), json!(null)],
            vec![json!("a".repeat(201)), json!("\t")],
        ),
        (
            "description",
            vec![json!("a\nb"), json!("a".repeat(2_000))],
            vec![json!("a".repeat(2_001))],
        ),
        (
            "metadata",
            vec![json!({}), json!({"": [1, null]}), json!(null)],
            vec![json!([]), json!("{}")],
        ),
        (
            "duration_seconds",
            vec![json!(0.001), json!(43_200), json!(null)],
            vec![json!(0), json!(-1), json!(43_200.5), json!(5e-324), json!("1")],
        ),
        (
            "outputs",
            vec![
                json!(null),
                json!([{"format": "mp4"}]),
                json!([{"format": "hls", "qualities": []}]),
                json!([{"format": "webm", "quality": "720p", "qualities": ["360p"]}]),
            ],
            vec![
                json!([]),
                json!({}),
                json!([{}]),
                json!([{"format": "exe"}]),
                json!([{"format": "mp4", "quality": "1p"}]),
                json!(vec![json!({"format": "mp4"}); 13]),
            ],
        ),
        (
            "target_format",
            vec![json!("hls"), json!(null)],
            vec![json!("exe"), json!(1)],
        ),
        (
            "upload",
            vec![json!("put"), json!("multipart"), json!(null)],
            vec![json!("post"), json!(1)],
        ),
        (
            "part_size_bytes",
            vec![json!(5 << 20), json!(null)],
            vec![json!((5 << 20) - 1), json!("x")],
        ),
        (
            "sha256",
            vec![json!("a".repeat(64)), json!("A".repeat(64)), json!(null)],
            vec![json!("a".repeat(63)), json!("g".repeat(64))],
        ),
        (
            "thumbnails",
            vec![json!({}), json!({"count": 0}), json!({"count": 20}), json!(null)],
            vec![json!({"count": 21}), json!({"count": -1}), json!(3), json!([3])],
        ),
        (
            "compression",
            vec![
                json!({"crf": 1, "preset": "veryslow"}),
                json!({"crf": 51, "max_bitrate_bps": 50_000,
            "audio_bitrate_bps": 512_000}),
                json!({"crf": null}),
            ],
            vec![
                json!({"crf": 0}),
                json!({"crf": 52}),
                json!({"preset": "best"}),
                json!({"max_bitrate_bps": 49_999}),
                json!({"max_bitrate_bps": 100_000_001}),
                json!({"audio_bitrate_bps": 31_999}),
                json!({"audio_bitrate_bps": 512_001}),
            ],
        ),
    ];
    let described: BTreeSet<_> = document()["components"]["schemas"]["CreateJob"]["properties"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(described, cases.iter().map(|(field, ..)| *field).collect());
    for (field, good, bad) in cases {
        for (values, expected) in [(good, true), (bad, false)] {
            for value in values {
                let mut body = json!({"filename": "a.mp4", "size_bytes": 10});
                body[field] = value;
                let code = serde_json::from_value::<CreateJob>(body.clone())
                    .is_ok_and(|create| create.validate(create::LARGEST_SOURCE_BYTES).is_ok());
                assert_eq!(code, expected, "the code: {body:.200}");
                assert_eq!(open.is_valid(&body), expected, "the schema: {body:.200}");
            }
        }
    }
}
