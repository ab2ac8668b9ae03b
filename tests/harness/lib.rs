//! What the journeys share: one stack for all of them, a client of its API, media, and a look behind the scenes.
//!
//! Every journey has accounts of its own, so all can run side by side on the one stack:
//!
//! ```text
//! stack       starts the stack once, or attaches to one that runs
//! harness     one test's connections to it
//! account     a person at the API: jobs, uploads, mail
//! studio      makes media, and looks at what came back
//! barcode     frames that carry their number, in whatever file or playlist
//! beeps       sound that tells the time
//! recordings  sources in the shapes that real ones have
//! behind      tables, buckets, queues and functions, for what the API does not tell
//! broken      services that do not answer as they should
//! routes      every route of the API
//! worker      the processes that encode
//! contract    the API's own document, and what it says of an answer
//! node        Node.js with pinned packages
//! browser     Chromium, and what it saw of a job's outputs
//! rie         a function under the Lambda Runtime Interface Emulator
//! wire        what lies between such a function and the services
//! ```
//!
//! Nothing here sleeps for a fixed time: [`eventually`] asks until the answer is there or its time is up.

pub mod account;
pub mod barcode;
pub mod beeps;
pub mod behind;
pub mod broken;
pub mod browser;
pub mod contract;
pub mod events;
pub mod harness;
pub mod mp4box;
pub mod node;
pub mod recordings;
pub mod rie;
pub mod routes;
mod stack;
pub mod studio;
pub mod wire;
pub mod worker;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

pub use account::{Account, Job, Output, Run};
pub use harness::{Answer, Harness};
pub use studio::{Clip, Studio};

/// How long a job may take that is not interrupted: mostly waiting for its turn.
pub const JOB_LIMIT: Duration = Duration::from_mins(2);
/// How long anything else may take.
pub const SHORT_LIMIT: Duration = Duration::from_secs(20);

/// Asks again and again until there is an answer.
pub async fn eventually<T>(what: &str, limit: Duration, mut ask: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let until = Instant::now() + limit;
    loop {
        if let Some(answer) = ask().await? {
            return Ok(answer);
        }
        if Instant::now() > until {
            bail!("{what}: not within {} s", limit.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
