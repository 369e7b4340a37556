//! The command line: one file a verb. Each has `Args` and `run`, which returns whether all
//! went well ([`Outcome`]); errors end in one line on stderr and exit code 1. Wrong usage is
//! exit code 2 (clap's own). Everything is printed through `out`, so that `head` may end it.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod adopt;
pub mod backup;
pub mod bench;
pub mod camera;
pub mod check;
pub mod config;
mod daemon;
pub mod eval;
pub mod export;
pub mod fsck;
pub mod import;
pub mod intake;
mod out;
pub mod outbox;
pub mod restore;
pub mod run;
pub mod segment;
pub mod sync;
pub mod train;
mod training;
pub mod version;

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
    /// Run the appliance: capture, segment, store, show the live page
    Run(run::Args),
    /// Segment image files
    Segment(segment::Args),
    /// Compare predicted label images with true ones
    Eval(eval::Args),
    /// Train a model from images and label images
    Train(train::Args),
    /// Measure how fast this box segments
    Bench(bench::Args),
    /// List cameras and what they can do
    Camera(camera::Args),
    /// Look over this box: what is right, what is wrong, what to do
    Check(check::Args),
    /// Check, show and explain the configuration
    Config(config::Args),
    /// Check every invariant of the store
    Fsck(fsck::Args),
    /// Copy the database while the daemon works, and check the copy
    Backup(backup::Args),
    /// Put a backup in the place of the database
    Restore(restore::Args),
    /// See how far deliveries are, and make, repeat or verify them
    Sync(sync::Args),
    /// See what waits to be delivered, and what was never taken
    Outbox(outbox::Args),
    /// See what became of the images of a watched folder
    Intake(intake::Args),
    /// Write a session's frames, label images and tables for other programs
    Export(export::Args),
    /// Save label images of other programs as results of a session
    Import(import::Args),
    /// Say what exactly is running
    Version(version::Args),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.verb {
        Verb::Run(args) => run::run(args),
        Verb::Segment(args) => segment::run(args),
        Verb::Eval(args) => eval::run(args),
        Verb::Train(args) => train::run(args),
        Verb::Bench(args) => bench::run(args),
        Verb::Camera(args) => camera::run(args),
        Verb::Check(args) => check::run(args),
        Verb::Config(args) => config::run(args),
        Verb::Fsck(args) => fsck::run(args),
        Verb::Backup(args) => backup::run(args),
        Verb::Restore(args) => restore::run(args),
        Verb::Sync(args) => sync::run(args),
        Verb::Outbox(args) => outbox::run(args),
        Verb::Intake(args) => intake::run(args),
        Verb::Export(args) => export::run(args),
        Verb::Import(args) => import::run(args),
        Verb::Version(args) => version::run(args),
    };
    match done {
        Ok(Outcome::Fine) => ExitCode::SUCCESS,
        Ok(Outcome::WithFailures) => ExitCode::FAILURE,
        Err(error) => {
            out::tell_lines(format_args!("reticle: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
