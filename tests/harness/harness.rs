//! One test's connections to the stack.
//!
//! Connections belong to a test's own runtime and end with it, so only names are shared between tests.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::Credentials;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::account::Account;
use crate::stack::{self, Shared};

const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// How long somebody goes on who is told to come later.
const PATIENCE: Duration = Duration::from_mins(2);
/// Long enough for every rule, and the same for everybody: no test is about guessing it.
pub const PASSWORD: &str = "correct horse battery staple";

/// A test's way in.
#[derive(Debug)]
pub struct Harness {
    pub(crate) shared: &'static Shared,
    pub(crate) http: reqwest::Client,
    /// How to reach the stack's services.
    pub sdk: SdkConfig,
    /// The tables, for what no helper of `behind` tells.
    pub dynamodb: aws_sdk_dynamodb::Client,
    pub(crate) s3: aws_sdk_s3::Client,
    pub(crate) sqs: aws_sdk_sqs::Client,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The request, for messages.
    pub asked: String,
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

/// A mail that the stack sent.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Mail {
    /// Who sent it.
    pub source: String,
    /// Who got it.
    pub to: Vec<String>,
    /// Its subject.
    pub subject: String,
    /// The plain part.
    pub body_text: String,
    /// The HTML part.
    pub body_html: Option<String>,
}

impl Harness {
    /// Connects to the stack; the first call of a run starts it.
    pub async fn open() -> Result<Self> {
        Self::connect(stack::shared().await?).await
    }

    /// A stack of this test's own, for what would disturb all others. Its name is its folder's.
    pub async fn open_apart(name: &str) -> Result<Self> {
        Self::connect(stack::apart(name).await?).await
    }

    /// Connects to the second stack, whose limits are so low that a test can reach them.
    pub async fn open_strict() -> Result<Self> {
        Self::connect(stack::strict().await?).await
    }

    async fn connect(shared: &'static Shared) -> Result<Self> {
        let get = |name: &str| {
            shared
                .environment
                .get(name)
                .with_context(|| format!("the stack has no {name}"))
        };
        let key = Credentials::new(
            get("AWS_ACCESS_KEY_ID")?,
            get("AWS_SECRET_ACCESS_KEY")?,
            None,
            None,
            "e2e",
        );
        let sdk: SdkConfig = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .endpoint_url(get("AWS_ENDPOINT_URL")?)
            .region(Region::new(get("AWS_REGION")?.clone()))
            .credentials_provider(key)
            .load()
            .await;
        // A redirect is an answer to look at.
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(ANSWER_LIMIT);
        Ok(Self {
            shared,
            http: http.build()?,
            dynamodb: aws_sdk_dynamodb::Client::new(&sdk),
            s3: aws_sdk_s3::Client::new(&sdk),
            sqs: aws_sdk_sqs::Client::new(&sdk),
            sdk,
        })
    }

    /// One of the names that the stack goes by, such as `SOURCE_BUCKET`.
    pub fn name(&self, name: &str) -> Result<&'static str> {
        let value = self.shared.environment.get(name);
        value
            .map(String::as_str)
            .with_context(|| format!("the stack has no {name}"))
    }

    /// The folder that tools may be kept in.
    pub fn target(&self) -> &Path {
        &self.shared.target
    }

    /// The URL of a path below the versioned base: `/jobs`.
    pub fn url(&self, path: &str) -> Result<String> {
        Ok(format!("{}{path}", self.name("API_URL")?))
    }

    /// The URL of any path of the API: `/api/jobs`.
    pub fn url_at_root(&self, path: &str) -> Result<String> {
        let url = self.name("API_URL")?;
        let root = url
            .strip_suffix("/api/v1")
            .with_context(|| format!("{url} does not end with its base"))?;
        Ok(format!("{root}{path}"))
    }

    /// Starts a request to any URL.
    pub fn request(&self, method: Method, url: &str) -> RequestBuilder {
        self.http.request(method, url)
    }

    /// Sends a request that must be answered with this status.
    pub async fn send(&self, request: RequestBuilder, expected: u16) -> Result<Answer> {
        self.send_any(request).await?.expect(expected)
    }

    /// Sends a request that may be answered with any status.
    pub async fn send_any(&self, request: RequestBuilder) -> Result<Answer> {
        let request = request.build()?;
        let asked = format!("{} {}", request.method(), request.url().path());
        let answer = self.http.execute(request).await.with_context(|| asked.clone())?;
        Ok(Answer {
            status: answer.status(),
            headers: answer.headers().clone(),
            body: answer.bytes().await.with_context(|| asked.clone())?.to_vec(),
            asked,
        })
    }

    /// An address that nobody has.
    pub fn new_address() -> String {
        format!("e2e-{}@example.org", uuid::Uuid::new_v4().simple())
    }

    /// Registers somebody new and signs in. On a stack with low limits it waits for its turn.
    pub async fn account(&self) -> Result<Account<'_>> {
        let email = Self::new_address();
        let credentials = json!({"email": email, "password": PASSWORD});
        let register = self
            .request(Method::POST, &self.url("/auth/register")?)
            .json(&credentials);
        let id = self.send_patiently(register, 201).await?.text("/account/id")?;
        let token = self.login(&email).await?;
        Ok(Account {
            harness: self,
            id,
            email,
            token,
        })
    }

    /// Signs in once more; returns the token.
    pub async fn login(&self, email: &str) -> Result<String> {
        let credentials = json!({"email": email, "password": PASSWORD});
        let login = self.request(Method::POST, &self.url("/auth/login")?).json(&credentials);
        self.send_patiently(login, 200).await?.text("/access_token")
    }

    /// Signs in, or tries to.
    pub async fn sign_in(&self, email: &str, password: &str, expected: u16) -> Result<Answer> {
        let credentials = json!({"email": email, "password": password});
        self.post("/auth/login", &credentials, expected).await
    }

    /// Sends JSON to a path below the base, as nobody in particular.
    pub async fn post(&self, path: &str, body: &Value, expected: u16) -> Result<Answer> {
        let request = self.request(Method::POST, &self.url(path)?).json(body);
        self.send(request, expected).await
    }

    /// As [`send`](Self::send), as often as the answer says that it was too often, and when it says.
    pub async fn send_patiently(&self, request: RequestBuilder, expected: u16) -> Result<Answer> {
        let until = Instant::now() + PATIENCE;
        loop {
            let again = request.try_clone().context("a body that cannot be sent twice")?;
            let answer = self.send_any(again).await?;
            if answer.status != StatusCode::TOO_MANY_REQUESTS || Instant::now() > until {
                return answer.expect(expected);
            }
            let seconds = answer.header("retry-after")?.parse()?;
            tokio::time::sleep(Duration::from_secs(seconds)).await;
        }
    }

    /// All mails to an address so far.
    pub async fn mails(&self, address: &str) -> Result<Vec<Mail>> {
        let answer = self
            .send(self.request(Method::GET, self.name("MAIL_URL")?), 200)
            .await?;
        let Value::Object(by_account) = answer.value("/messages")? else {
            bail!("the mails are of another shape");
        };
        let mut mails = Vec::new();
        for of_account in by_account.into_values() {
            mails.extend(serde_json::from_value::<Vec<Mail>>(of_account)?);
        }
        mails.retain(|mail| mail.to.iter().any(|to| to == address));
        Ok(mails)
    }
}

impl Answer {
    /// This answer, if it has this status.
    pub fn expect(self, expected: u16) -> Result<Self> {
        ensure!(
            self.status.as_u16() == expected,
            "{}: {} instead of {expected}: {}",
            self.asked,
            self.status,
            String::from_utf8_lossy(&self.body)
        );
        Ok(self)
    }

    /// The whole body.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("{}: {}", self.asked, String::from_utf8_lossy(&self.body)))
    }

    /// A part of the body.
    pub fn value(&self, pointer: &str) -> Result<Value> {
        let body: Value = self.json()?;
        let part = body.pointer(pointer).cloned();
        part.with_context(|| format!("{}: no {pointer} in {body}", self.asked))
    }

    /// A text in the body.
    pub fn text(&self, pointer: &str) -> Result<String> {
        let part = self.value(pointer)?;
        part.as_str()
            .map(str::to_owned)
            .with_context(|| format!("{}: {pointer} is {part}", self.asked))
    }

    /// A header that must be there.
    pub fn header(&self, name: &str) -> Result<&str> {
        let value = self
            .headers
            .get(name)
            .with_context(|| format!("{}: no header {name}", self.asked))?;
        Ok(value.to_str()?)
    }

    /// Checks that this is a problem document with this code, whole and true to itself; returns it.
    pub fn problem(&self, code: &str) -> Result<Value> {
        let asked = &self.asked;
        let media_type = self.header(CONTENT_TYPE.as_str())?;
        ensure!(
            media_type == "application/problem+json; charset=utf-8",
            "{asked}: a problem of type {media_type}"
        );
        let body: Value = self.json()?;
        ensure!(body["code"] == code, "{asked}: {body} instead of {code}");
        ensure!(
            body["status"] == self.status.as_u16(),
            "{asked}: {body} with {}",
            self.status
        );
        for field in ["type", "title", "request_id"] {
            let filled = body[field].as_str().is_some_and(|text| !text.is_empty());
            ensure!(filled, "{asked}: no {field} in {body}");
        }
        Ok(body)
    }

    /// The fields that a problem document points at.
    pub fn pointers(&self) -> Result<Vec<String>> {
        let Value::Array(errors) = self.value("/errors")? else {
            bail!("{}: errors is no list", self.asked);
        };
        let pointers = errors.iter().filter_map(|error| error["pointer"].as_str());
        Ok(pointers.map(str::to_owned).collect())
    }
}
