//! The journeys: what people and clients do, and what must come of it, on the stack of template.yaml.
//!
//! The first test that needs the stack builds and starts it; it ends with this process. To test a stack that runs
//! already, name a file with the lines of `cargo local env` in `REELAY_E2E_ENV_FILE`.

mod accounts;
mod actions;
mod adapters;
mod audit;
mod bad_file;
mod browser;
mod chunks;
mod closed;
mod contract;
mod crash;
mod crash_points;
mod delete;
mod downloads;
mod duplicates;
mod frames;
mod happy_path;
mod idempotency;
mod leases;
mod limits;
mod lists;
mod local_invoke;
mod multipart;
mod overwritten;
mod promises;
mod readme;
mod refused;
mod routes;
mod shapes;
mod sources;
mod strangers;
mod sweep;
mod throttle;
mod uppy;
mod usage;
