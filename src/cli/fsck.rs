//! Stub, replaced by its owner.

use super::Outcome;

/// Arguments.
#[derive(clap::Args)]
pub struct Args {}

/// Runs the verb.
///
/// # Errors
/// None yet.
pub fn run(_args: Args) -> anyhow::Result<Outcome> {
    Ok(Outcome::Fine)
}
