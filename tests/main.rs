//! The journeys: what people and clients do, and what must come of it, on the stack of template.yaml.
//!
//! The first test that needs the stack builds and starts it; it ends with this process. To test a stack that runs
//! already, name a file with the lines of `cargo local env` in `REELAY_E2E_ENV_FILE`.

mod actions;
mod adapters;
mod bad_file;
mod browser;
mod chunks;
mod contract;
mod crash;
mod crash_points;
mod downloads;
mod duplicates;
mod frames;
mod happy_path;
mod leases;
mod local_invoke;
mod overwritten;
mod promises;
mod readme;
mod refused;
mod shapes;
mod sources;
mod strangers;
mod sweep;
