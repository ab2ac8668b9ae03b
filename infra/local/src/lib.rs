//! The whole stack on one machine, from the template that is deployed to AWS.
//!
//! ```text
//! tools    pinned Python tools in venvs, ffmpeg      -> <target>/tools
//! build    cargo build, one zip a function           -> <target>/local/cache
//! emulator AWS on loopback, behind a guard           -> a state folder
//! deploy   `sam deploy`, then what the emulator dropped
//! stack    the four above in order: what `up`, `with`, `demo` and the tests call
//! ```
//!
//! Nothing outside of the cargo target folder is written, but for `./out` of a demo and ffmpeg's cache in the user's
//! cache folder. No state outlives a stack: each start is an empty one.
//!
//! The functions know nothing of all this. They get `AWS_ENDPOINT_URL`, as any program on AWS may.

pub mod build;
pub mod cli;
pub mod demo;
mod deploy;
mod doctor;
pub mod emulator;
pub mod environment;
mod logs;
mod process;
pub mod stack;
mod terminal;
pub mod tools;
mod with;
pub mod workspace;
