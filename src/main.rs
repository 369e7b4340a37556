//! Parse, set up logging, dispatch, exit code. Nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    reticle::cli::main()
}
