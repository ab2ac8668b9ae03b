//! Pure rules: no I/O, no SDK type, no HTTP. Compiled without any feature.
//!
//! What belongs here decides; what reads or writes belongs to an adapter or to a function.

pub mod account;
pub mod audio;
pub mod audit;
pub mod create;
pub mod estimate;
pub mod failure;
pub mod filename;
pub mod geometry;
pub mod hls;
pub mod id;
pub mod job;
pub mod json;
pub mod keys;
pub mod limits;
pub mod magic;
pub mod message;
pub mod mp4;
pub mod plan;
pub mod probe;
pub mod spec;
pub mod task;
pub mod time;
pub mod timeline;
pub mod upload;
mod words;
