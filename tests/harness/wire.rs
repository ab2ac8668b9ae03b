//! The wire between a function and the services: it counts the calls, and it can break at any of them.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, TRANSFER_ENCODING};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::harness::Harness;

/// A wire. It ends with this value.
#[derive(Debug)]
pub struct Wire {
    /// What the function is to take for the services.
    pub url: String,
    broken: watch::Receiver<bool>,
    task: AbortHandle,
}

/// What the connections share.
#[derive(Debug)]
struct Line {
    http: reqwest::Client,
    services: String,
    calls: AtomicUsize,
    last: usize,
    broken: watch::Sender<bool>,
}

impl Harness {
    /// Lays a wire that breaks at the call of this number: that one still arrives and is carried out, but neither its
    /// answer nor anything after it gets through.
    pub async fn wire(&self, last: usize) -> Result<Wire> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let (sender, broken) = watch::channel(false);
        let line = Arc::new(Line {
            http: self.http.clone(),
            services: self.name("AWS_ENDPOINT_URL")?.to_owned(),
            calls: AtomicUsize::new(0),
            last,
            broken: sender,
        });
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, Arc::clone(&line)));
            }
        });
        Ok(Wire {
            url,
            broken,
            task: task.abort_handle(),
        })
    }
}

impl Wire {
    /// Waits until it is broken.
    pub async fn broken(&mut self) -> Result<()> {
        self.broken.wait_for(|broken| *broken).await?;
        Ok(())
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Breaks the wire when its call is over, also when the function gives the call up.
struct Breaks<'a>(&'a watch::Sender<bool>);

impl Drop for Breaks<'_> {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

async fn converse(stream: TcpStream, line: Arc<Line>) {
    let service = service_fn(|request| carry(request, &line));
    // An error is a client that has gone, or a wire that has broken.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn carry(request: Request<Incoming>, line: &Line) -> Result<Response<Full<Bytes>>> {
    let call = line.calls.fetch_add(1, Ordering::Relaxed) + 1;
    if call > line.last {
        return std::future::pending().await;
    }
    let breaks = (call == line.last).then(|| Breaks(&line.broken));
    let (head, body) = request.into_parts();
    let path = head.uri.path_and_query().context("no path")?;
    // With the headers as they are: they are signed, the name of the wire's end among them.
    let onward = line
        .http
        .request(head.method, format!("{}{path}", line.services))
        .headers(head.headers)
        .body(body.collect().await?.to_bytes());
    let answer = onward.send().await?;
    let mut response = Response::new(Full::default());
    *response.status_mut() = answer.status();
    response.headers_mut().clone_from(answer.headers());
    for hop in [CONNECTION, TRANSFER_ENCODING] {
        response.headers_mut().remove(hop);
    }
    *response.body_mut() = answer.bytes().await?.into();
    if breaks.is_some() {
        drop(breaks);
        return std::future::pending().await;
    }
    Ok(response)
}
