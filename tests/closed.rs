//! What does not answer closes the API, and does not open it: no table, no token; no count, no request.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::broken::{Broken, Fault};
use e2e::routes::{ROUTES, Route};
use e2e::{Harness, events};
use futures_util::{TryStreamExt as _, stream};
use serde_json::{Value, json};

/// The functions' own time limit, and less than API Gateway waits.
const FUNCTION_LIMIT: Duration = Duration::from_secs(10);
/// Functions at the same time: they mostly wait.
const AT_ONCE: usize = 6;
/// What a problem of ours consists of when there is nothing to say but that it is one.
const FIELDS: [&str; 5] = ["code", "request_id", "status", "title", "type"];

fn check(route: &Route, fault: Fault, answer: &Value) -> Result<()> {
    let told = || format!("{route:?} {fault:?}: {answer}");
    ensure!(answer["statusCode"] == 503, "{}", told());
    let header = |name: &str| {
        let one = answer["headers"][name].as_str();
        one.or_else(|| answer["multiValueHeaders"][name][0].as_str())
            .with_context(told)
    };
    ensure!(
        header("content-type")? == "application/problem+json; charset=utf-8",
        "{}",
        told()
    );
    ensure!(header("retry-after")?.parse::<u32>()? >= 1, "{}", told());
    let body: Value = serde_json::from_str(answer["body"].as_str().with_context(told)?)?;
    ensure!(body["code"] == "service_unavailable", "{}", told());
    // Nothing but these: no name of a table, no text of a client's library.
    let fields: Vec<_> = body
        .as_object()
        .with_context(told)?
        .keys()
        .map(String::as_str)
        .collect();
    ensure!(fields == FIELDS, "{}", told());
    ensure!(body["title"] == "Try again shortly", "{}", told());
    Ok(())
}

/// Every route, while a service has this fault.
async fn all_routes(fault: Fault, service: &str, routes: impl Iterator<Item = &'static Route>) -> Result<()> {
    let harness = &Harness::open().await?;
    let account = &harness.account().await?;
    let id = &account.create(&json!({"filename": "a.mp4", "size_bytes": 1})).await?.id;
    let broken = &Broken::start(fault).await?;
    stream::iter(routes.map(anyhow::Ok))
        .try_for_each_concurrent(AT_ONCE, async |route| {
            let path = route.path_for(id);
            let body = route.body();
            let event = events::request(route.function, route.method, &path, Some(&account.token), body.as_ref())?;
            let began = Instant::now();
            let variables = [(service, broken.url.as_str())];
            let answer = harness.run_under_rie_with(route.function, &event, &variables).await?;
            let took = began.elapsed();
            ensure!(took < FUNCTION_LIMIT, "{route:?} {fault:?}: {took:?}");
            check(route, fault, &answer)
        })
        .await
}

const TABLES: &str = "AWS_ENDPOINT_URL_DYNAMODB";

#[tokio::test]
async fn a17_tables_that_fail_close_every_route() -> Result<()> {
    all_routes(Fault::Fails, TABLES, ROUTES.iter().filter(|route| route.needs_tables())).await
}

#[tokio::test]
async fn a17_tables_that_hang_close_every_route() -> Result<()> {
    all_routes(Fault::Hangs, TABLES, ROUTES.iter().filter(|route| route.needs_tables())).await
}

#[tokio::test]
async fn a17_tables_that_hang_up_close_every_route() -> Result<()> {
    all_routes(
        Fault::Resets,
        TABLES,
        ROUTES.iter().filter(|route| route.needs_tables()),
    )
    .await
}

#[tokio::test]
async fn a17_nothing_that_answers_closes_every_function() -> Result<()> {
    for fault in [Fault::Fails, Fault::Hangs, Fault::Resets] {
        let one_of_each = ["/auth/me", "/jobs", "/jobs/{id}"];
        let routes = ROUTES.iter().filter(|route| one_of_each.contains(&route.path));
        all_routes(fault, "AWS_ENDPOINT_URL", routes).await?;
    }
    Ok(())
}
