//! `loadgen`: measures an echo server, and verifies every byte of it.

mod args;
mod hold;
mod output;
mod progress;
mod signals;

use std::process::ExitCode;
use std::time::Duration;

use loadgen::{Progress, Report, units};
use output::{Problem, say};

fn main() -> ExitCode {
    let args = args::parse();
    match run(&args) {
        Ok(code) => code,
        Err(problem) => {
            problem.print();
            ExitCode::FAILURE
        }
    }
}

fn run(args: &args::Args) -> Result<ExitCode, Problem> {
    let stop = signals::stop_flag()?;
    let target = args.resolve()?;
    if args.hold {
        return hold::hold(args, target, &stop);
    }

    let plan = args.plan(target);
    let quiet = args.json_to_stdout();
    let mut announced = quiet;
    let mut bar = progress::Bar::default();
    let result = loadgen::run(&plan, &stop, |progress| {
        if !announced && !matches!(progress, Progress::Connecting { .. }) {
            announced = true;
            bar.clear();
            say(&format!(
                "Running {} test @ {target}\n{}",
                units::duration(plan.duration),
                plan.load()
            ));
        }
        bar.show(progress);
    });
    bar.clear();
    let report = result?;
    if !quiet {
        say(&report.to_string());
    }
    output::write_json(args, &report)?;
    Ok(verdict(&report, plan.timeout))
}

/// A run in which anything went wrong is a failure, whatever it measured.
fn verdict(report: &Report, timeout: Duration) -> ExitCode {
    let late = report.errors.timeout;
    if let Some(failure) = &report.failure {
        Problem::new(&failure.what, failure.hint.as_deref()).print();
    } else if late > 0 {
        let what = format!(
            "{late} messages took longer than {}",
            units::duration(timeout)
        );
        let hint = "the server does not keep up: ask for less, or wait longer (--timeout)";
        Problem::new(&what, Some(hint)).print();
    } else {
        return ExitCode::SUCCESS;
    }
    ExitCode::FAILURE
}
