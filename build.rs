//! Has the program built again when the page in `ui/dist` changes. What is embedded follows the
//! changes of the files that were there; this also sees files that were not.

use std::io::Write as _;

fn main() -> std::io::Result<()> {
    // A path that does not exist counts as changed each time.
    std::fs::create_dir_all("ui/dist")?;
    writeln!(std::io::stdout(), "cargo::rerun-if-changed=ui/dist")
}
