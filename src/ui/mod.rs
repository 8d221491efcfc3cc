//! Command line and terminal.

mod cli;
mod generate;
mod live;
mod probe;
mod report;
mod route;
mod serve;

use std::process::ExitCode;

use clap::Parser;

use crate::adapters::decoders::run_decode_worker;
use crate::adapters::watchers::{Placement, WORKER_ARGUMENT};

/// Runs the command that the process was started with.
#[must_use]
pub fn run() -> ExitCode {
    // Not a command for people: the engine starts its own program so to decode what strangers send.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == WORKER_ARGUMENT) {
        return run_decode_worker();
    }
    let arguments = cli::Arguments::parse();
    let result = match arguments.command {
        cli::Command::Route(route) => route::run(&route),
        cli::Command::Serve(serve) => serve::run(&serve),
        cli::Command::Gen(generate) => generate::run(&generate),
        cli::Command::Probe(probe) => probe::run(&probe),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Pictures and sound from strangers are decoded in a process of their own: this same program.
fn placement() -> Placement {
    // That stays the same even if another version is put in its place while it runs.
    let program = if cfg!(target_os = "linux") { Ok("/proc/self/exe".into()) } else { std::env::current_exe() };
    program.map_or(Placement::Threads, Placement::Child)
}

/// Why a command ended early.
#[derive(Debug)]
enum Failure {
    /// What was asked for cannot be: exit code 2.
    Usage(String),
    /// Something went wrong while running: exit code 1.
    Runtime(anyhow::Error),
}

impl Failure {
    fn usage(error: impl ToString) -> Self {
        Self::Usage(error.to_string())
    }

    /// One line on stderr.
    #[allow(clippy::print_stderr, reason = "this is what stderr is for")]
    fn report(self) -> ExitCode {
        match self {
            Self::Usage(problem) => {
                eprintln!("anabranch: {problem}");
                ExitCode::from(2)
            }
            Self::Runtime(error) => {
                eprintln!("anabranch: {error:#}");
                ExitCode::FAILURE
            }
        }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Runtime(error.into())
    }
}
