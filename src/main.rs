//! The program `holdshort`. All it does is in the library; `cli` reads the command line.

use std::process::ExitCode;

use holdshort::{cli, transport::guard};

fn main() -> ExitCode {
    // Before everything else, so that a guard costs next to nothing.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == guard::COMMAND) {
        guard::run();
        return ExitCode::SUCCESS;
    }
    cli::main().into()
}
