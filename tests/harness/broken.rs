//! A service that does not answer as it should, on loopback.

use anyhow::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What it does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Answers that it failed, and says much about itself.
    Fails,
    /// Never answers.
    Hangs,
    /// Closes the connection.
    Resets,
}

/// A running one; it ends with this value.
#[derive(Debug)]
pub struct Broken {
    /// Where it listens.
    pub url: String,
    task: JoinHandle<()>,
}

impl Drop for Broken {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What no client may ever see of a failure.
pub const INTERNALS: &str = "arn:aws:dynamodb:us-east-1:000000000000:table/secret-name";

impl Broken {
    /// Starts one.
    pub async fn start(fault: Fault) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let task = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                // Its end is the connection's, whatever that is.
                tokio::spawn(async move { serve(connection, fault).await.ok() });
            }
        });
        Ok(Self { url, task })
    }
}

async fn serve(mut connection: TcpStream, fault: Fault) -> std::io::Result<()> {
    let mut buffer = vec![0; 65_536];
    loop {
        if connection.read(&mut buffer).await? == 0 {
            return Ok(());
        }
        match fault {
            Fault::Fails => {
                let body = format!(r#"{{"__type":"com.amazonaws#InternalServerError","message":"{INTERNALS}"}}"#);
                let answer = format!(
                    "HTTP/1.1 500 Internal Server Error\r\ncontent-type: application/x-amz-json-1.0\r\n\
                     content-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                connection.write_all(answer.as_bytes()).await?;
                return connection.shutdown().await;
            }
            Fault::Hangs => {}
            Fault::Resets => return Ok(()),
        }
    }
}
