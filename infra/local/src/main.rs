//! `cargo local`: the whole stack on one machine. See the library for how.

fn main() -> std::process::ExitCode {
    reelay_local::cli::main()
}
