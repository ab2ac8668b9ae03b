//! Behind the API: tables, buckets, queues and functions.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result, bail, ensure};
use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_sqs::types::QueueAttributeName;
use reqwest::header::AUTHORIZATION;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::harness::Harness;
use crate::{SHORT_LIMIT, events, eventually};

/// An object of a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its key.
    pub key: String,
    /// Its length.
    pub size_bytes: u64,
    /// What was stored and when: another write of the same bytes is another one.
    pub version: String,
}

impl Harness {
    /// All items of a job, by their sort key.
    pub async fn items(&self, job_id: &str) -> Result<BTreeMap<String, Value>> {
        let mut pages = self
            .dynamodb
            .query()
            .table_name(self.name("JOBS_TABLE")?)
            .key_condition_expression("job_id = :job")
            .expression_attribute_values(":job", AttributeValue::S(job_id.to_owned()))
            .consistent_read(true)
            .into_paginator()
            .items()
            .send();
        let mut items = BTreeMap::new();
        while let Some(item) = pages.next().await {
            let item: Value = serde_dynamo::from_item(item?)?;
            let sort_key = item["item"].as_str().context("an item without a sort key")?.to_owned();
            items.insert(sort_key, item);
        }
        Ok(items)
    }

    /// As [`items`](Self::items), once the end of the job has led to all it leads to, but for a mail.
    pub async fn settled_items(&self, job_id: &str) -> Result<BTreeMap<String, Value>> {
        eventually(&format!("the settlement of {job_id}"), SHORT_LIMIT, async || {
            let items = self.items(job_id).await?;
            let is_settled = items.get("usage").is_none_or(|usage| usage.get("open_state").is_none());
            Ok(is_settled.then_some(items))
        })
        .await
    }

    /// One item of a job.
    pub async fn item(&self, job_id: &str, sort_key: &str) -> Result<Value> {
        let found = self.items(job_id).await?.remove(sort_key);
        found.with_context(|| format!("{job_id} has no item {sort_key}"))
    }

    /// Stores an item as it is. For states that only a crash leaves behind.
    pub async fn store_item(&self, item: &Value) -> Result<()> {
        self.store_in("JOBS_TABLE", item).await
    }

    /// The same for a table by its name in the stack's environment.
    pub async fn store_in(&self, table: &str, item: &Value) -> Result<()> {
        let item: HashMap<String, AttributeValue> = serde_dynamo::to_item(item)?;
        self.dynamodb
            .put_item()
            .table_name(self.name(table)?)
            .set_item(Some(item))
            .send()
            .await?;
        Ok(())
    }

    /// One item of the accounts table.
    pub async fn account_item(&self, pk: &str, sk: &str) -> Result<Value> {
        let item = self.find_account_item(pk, sk).await?;
        item.with_context(|| format!("there is no {pk} {sk}"))
    }

    /// One item of the accounts table, if it is there.
    pub async fn find_account_item(&self, pk: &str, sk: &str) -> Result<Option<Value>> {
        let answer = self
            .dynamodb
            .get_item()
            .table_name(self.name("ACCOUNTS_TABLE")?)
            .key("pk", AttributeValue::S(pk.to_owned()))
            .key("sk", AttributeValue::S(sk.to_owned()))
            .consistent_read(true)
            .send()
            .await?;
        Ok(answer.item.map(serde_dynamo::from_item).transpose()?)
    }

    /// Makes an account an operator's, as whoever runs the stack would.
    pub async fn make_operator(&self, account_id: &str) -> Result<()> {
        self.dynamodb
            .update_item()
            .table_name(self.name("ACCOUNTS_TABLE")?)
            .key("pk", AttributeValue::S(format!("account#{account_id}")))
            .key("sk", AttributeValue::S("profile".into()))
            .update_expression("SET #role = :operator")
            .condition_expression("attribute_exists(pk)")
            .expression_attribute_names("#role", "role")
            .expression_attribute_values(":operator", AttributeValue::S("operator".into()))
            .send()
            .await?;
        Ok(())
    }

    /// All objects of a bucket below a prefix; the bucket by its name in the stack's environment.
    pub async fn objects(&self, bucket: &str, prefix: &str) -> Result<Vec<Object>> {
        let answer = self
            .s3
            .list_objects_v2()
            .bucket(self.name(bucket)?)
            .prefix(prefix)
            .send()
            .await?;
        ensure!(answer.is_truncated != Some(true), "more than a page of objects");
        let objects = answer.contents.unwrap_or_default().into_iter().map(|object| {
            let size_bytes = u64::try_from(object.size.unwrap_or_default())?;
            let version = format!("{:?} {:?}", object.e_tag, object.last_modified);
            Ok(Object {
                key: object.key.unwrap_or_default(),
                size_bytes,
                version,
            })
        });
        objects.collect()
    }

    /// How many versions and delete markers a bucket has below a prefix.
    pub async fn versions(&self, bucket: &str, prefix: &str) -> Result<usize> {
        let request = self.s3.list_object_versions().bucket(self.name(bucket)?);
        let answer = request.prefix(prefix).send().await?;
        Ok(answer.versions().len() + answer.delete_markers().len())
    }

    /// Stores an object behind the back of everybody.
    pub async fn store_object(&self, bucket: &str, key: &str, bytes: &'static [u8]) -> Result<()> {
        let request = self.s3.put_object().bucket(self.name(bucket)?).key(key);
        request.body(ByteStream::from_static(bytes)).send().await?;
        Ok(())
    }

    /// How many uploads in parts are under way in the source bucket, below a prefix.
    pub async fn open_uploads(&self, prefix: &str) -> Result<usize> {
        let request = self.s3.list_multipart_uploads().bucket(self.name("SOURCE_BUCKET")?);
        let answer = request.prefix(prefix).send().await?;
        ensure!(answer.is_truncated != Some(true), "more than a page of uploads");
        Ok(answer.uploads().len())
    }

    /// What is stored of the request with a key that created a job.
    pub async fn request_record(&self, job_id: &str) -> Result<Value> {
        let mut pages = self
            .dynamodb
            .scan()
            .table_name(self.name("JOBS_TABLE")?)
            .filter_expression("created_job = :job")
            .expression_attribute_values(":job", AttributeValue::S(job_id.to_owned()))
            .into_paginator()
            .items()
            .send();
        let found = pages.next().await.context("no request created this job")??;
        Ok(serde_dynamo::from_item(found)?)
    }

    /// An object's bytes.
    pub async fn object(&self, bucket: &str, key: &str) -> Result<Vec<u8>> {
        let answer = self
            .s3
            .get_object()
            .bucket(self.name(bucket)?)
            .key(key)
            .send()
            .await
            .context(key.to_owned())?;
        Ok(answer.body.collect().await?.to_vec())
    }

    /// Sends a message to a queue, named as in the stack's environment.
    pub async fn send_message(&self, queue: &str, group: &str, body: &str) -> Result<()> {
        let message = self.sqs.send_message().queue_url(self.name(queue)?).message_body(body);
        message.message_group_id(group).send().await?;
        Ok(())
    }

    /// Messages of a queue, visible or not, whose body holds a text.
    pub async fn messages(&self, queue: &str, holding: &str) -> Result<Vec<String>> {
        // The emulator's own way of looking without receiving.
        let peek = format!("{}/_ministack/sqs/messages", self.name("AWS_ENDPOINT_URL")?);
        let request = self
            .request(Method::GET, &peek)
            .query(&[("QueueUrl", self.name(queue)?)]);
        let mut bodies = Vec::new();
        collect_bodies(&self.send(request, 200).await?.value("/messages")?, &mut bodies);
        bodies.retain(|body| body.contains(holding));
        Ok(bodies)
    }

    /// Makes a queue that no function reads; returns its URL. It ends with the stack.
    pub async fn own_queue(&self) -> Result<String> {
        let name = format!("test-{}", uuid::Uuid::new_v4().simple());
        let answer = self.sqs.create_queue().queue_name(name).send().await?;
        answer.queue_url.context("a queue without a URL")
    }

    /// Waits until no message about a job is left in either queue.
    pub async fn queues_forget(&self, job_id: &str) -> Result<()> {
        eventually(&format!("the last message of {job_id}"), SHORT_LIMIT, async || {
            let high = self.messages("HIGH_QUEUE_URL", job_id).await?;
            let low = self.messages("LOW_QUEUE_URL", job_id).await?;
            Ok((high.is_empty() && low.is_empty()).then_some(()))
        })
        .await
    }

    /// How many messages a queue holds that somebody could receive.
    pub async fn waiting(&self, queue: &str) -> Result<usize> {
        let name = QueueAttributeName::ApproximateNumberOfMessages;
        let request = self
            .sqs
            .get_queue_attributes()
            .queue_url(self.name(queue)?)
            .attribute_names(name.clone());
        let answer = request.send().await?;
        let count = answer.attributes().and_then(|all| all.get(&name)).context("no count")?;
        Ok(count.parse()?)
    }

    /// Calls a function, named as in the stack's environment, and waits for its answer; its own error is an error.
    pub async fn invoke(&self, function: &str, event: &Value) -> Result<Value> {
        let path = format!("{}/invocations", self.name(function)?);
        let answer = self.send(self.lambda(Method::POST, &path)?.json(event), 200).await?;
        ensure!(
            answer.headers.get("x-amz-function-error").is_none(),
            "{function}: {}",
            String::from_utf8_lossy(&answer.body)
        );
        if answer.body.is_empty() {
            Ok(Value::Null)
        } else {
            answer.json()
        }
    }

    /// Has the sweep look at all jobs now, instead of waiting for its minute.
    pub async fn sweep(&self) -> Result<()> {
        let answer = self.invoke("SWEEP_FUNCTION", &events::read("sweep-schedule")?).await?;
        ensure!(answer.is_null(), "the sweep answers {answer}");
        Ok(())
    }

    /// The environment that a deployed function was given.
    pub async fn function_environment(&self, function: &str) -> Result<BTreeMap<String, String>> {
        let path = format!("{}/configuration", self.name(function)?);
        let answer = self.send(self.lambda(Method::GET, &path)?, 200).await?;
        Ok(serde_json::from_value(answer.value("/Environment/Variables")?)?)
    }

    /// What a function has logged so far, named as in the stack's environment: the lines that hold a text.
    pub async fn logged(&self, function: &str, holding: &str) -> Result<Vec<String>> {
        let group = format!("/aws/lambda/{}", self.name(function)?);
        let (mut lines, mut token) = (Vec::new(), Value::Null);
        loop {
            let mut body = json!({"logGroupName": group});
            if !token.is_null() {
                body["nextToken"] = token;
            }
            let request = self
                .signed(Method::POST, "/", "logs")?
                .header("x-amz-target", "Logs_20140328.FilterLogEvents")
                .header("content-type", "application/x-amz-json-1.1")
                .body(body.to_string());
            let page: Value = self.send(request, 200).await?.json()?;
            let events = page["events"].as_array().context("no events")?;
            let messages = events.iter().filter_map(|event| event["message"].as_str());
            lines.extend(messages.filter(|line| line.contains(holding)).map(str::to_owned));
            token = page["nextToken"].clone();
            if token.is_null() {
                return Ok(lines);
            }
        }
    }

    /// All items of the accounts table.
    pub async fn accounts_table(&self) -> Result<Vec<Value>> {
        let pages = self.dynamodb.scan().table_name(self.name("ACCOUNTS_TABLE")?);
        let mut pages = pages.consistent_read(true).into_paginator().items().send();
        let mut items = Vec::new();
        while let Some(item) = pages.next().await {
            items.push(serde_dynamo::from_item(item?)?);
        }
        Ok(items)
    }

    /// An account's own item, as it is stored.
    pub async fn profile(&self, account_id: &str) -> Result<Option<Value>> {
        self.find_account_item(&format!("account#{account_id}"), "profile")
            .await
    }

    fn lambda(&self, method: Method, path: &str) -> Result<RequestBuilder> {
        self.signed(method, &format!("/2015-03-31/functions/{path}"), "lambda")
    }

    /// A request to the API of Lambda or the logs. It is a few calls of them, for which the SDK's clients would be compiled
    /// in whole; the emulator takes any signature of a key that it knows.
    fn signed(&self, method: Method, path: &str, service: &str) -> Result<RequestBuilder> {
        let url = format!("{}{path}", self.name("AWS_ENDPOINT_URL")?);
        let scope = format!(
            "{}/20260101/{}/{service}/aws4_request",
            self.name("AWS_ACCESS_KEY_ID")?,
            self.name("AWS_REGION")?
        );
        let signed = format!(
            "AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature={}",
            "0".repeat(64)
        );
        Ok(self
            .request(method, &url)
            .header(AUTHORIZATION, signed)
            .header("x-amz-date", "20260101T000000Z"))
    }
}

/// The message that starts a job's plan task.
pub fn plan_message(job_id: &str, generation: u32) -> String {
    json!({"version": 1, "type": "plan", "job_id": job_id, "generation": generation}).to_string()
}

/// The message that starts a chunk's encode task.
pub fn encode_message(job_id: &str, generation: u32, chunk: u32) -> String {
    json!({"version": 1, "type": "encode", "job_id": job_id, "generation": generation, "chunk": chunk}).to_string()
}

/// The message that starts a job's assemble task.
pub fn assemble_message(job_id: &str, generation: u32) -> String {
    json!({"version": 1, "type": "assemble", "job_id": job_id, "generation": generation}).to_string()
}

/// The sort key of a chunk's encode task.
pub fn encode_task(generation: u32, chunk: u32) -> String {
    format!("task#{generation}#encode#{chunk:04}")
}

/// The ids of the messages that a worker's answer gives back to the queue.
pub fn given_back(answer: &Value) -> Result<Vec<&str>> {
    let Some(failures) = answer["batchItemFailures"].as_array() else {
        bail!("{answer} is no batch answer");
    };
    Ok(failures
        .iter()
        .filter_map(|failure| failure["itemIdentifier"].as_str())
        .collect())
}

fn collect_bodies(value: &Value, bodies: &mut Vec<String>) {
    match value {
        Value::Array(messages) => {
            bodies.extend(
                messages
                    .iter()
                    .filter_map(|message| message["Body"].as_str())
                    .map(str::to_owned),
            );
        }
        Value::Object(groups) => groups.values().for_each(|group| collect_bodies(group, bodies)),
        _ => {}
    }
}
