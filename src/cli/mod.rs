//! The command line: one file a verb. Each has `Args` and `run`, which returns whether all
//! went well ([`Outcome`]); errors end in one line on stderr and exit code 1. Wrong usage is
//! exit code 2 (clap's own).

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub mod camera;
pub mod fsck;
pub mod tables;
pub mod train;

/// How a verb ended when nothing stopped it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All is well: exit code 0.
    Fine,
    /// It ran to its end, and something on the way failed and was reported: exit code 1.
    WithFailures,
}

/// Segments cells as the microscope captures them.
#[derive(Parser)]
#[command(name = "reticle", version, propagate_version = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// List cameras and what they can do
    Camera(camera::Args),
    /// Check every invariant of the store
    Fsck(fsck::Args),
    /// Train
    Train(train::Args),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.verb {
        Verb::Camera(args) => camera::run(args),
        Verb::Fsck(args) => fsck::run(args),
        Verb::Train(args) => train::run(args),
    };
    match done {
        Ok(Outcome::Fine) => ExitCode::SUCCESS,
        Ok(Outcome::WithFailures) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("reticle: {error:#}");
            ExitCode::FAILURE
        }
    }
}
