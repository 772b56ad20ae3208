//! What a command comes to, and its exit code. Pure.

use starlift_common::problem::{Code, Mend, Problem};
use starlift_proto as pb;

/// The exit code after Ctrl-C, as shells have it.
pub(crate) const INTERRUPTED: u8 = 130;

/// What a command came to, other than by problems of its own.
pub(crate) enum End {
    Done,
    /// A job ended, well or badly; its report was printed.
    Job(Box<pb::FinalReport>),
    /// A check found something to be mended; it was printed. By whom, says the first problem.
    Unfit(Code),
    /// Ctrl-C; what was done is kept.
    Interrupted,
}

pub(crate) type Outcome = Result<End, Vec<Problem>>;

pub(crate) fn one(problem: Problem) -> Vec<Problem> {
    vec![problem]
}

/// 0 done, 1 the job failed, 2 mend the input, 3 mend something outside.
pub(crate) fn exit_code(outcome: &Outcome) -> u8 {
    match outcome {
        Ok(End::Done) => 0,
        Ok(End::Job(report)) => of_job(report),
        Ok(End::Unfit(code)) => mended_by(*code),
        Ok(End::Interrupted) => INTERRUPTED,
        Err(problems) => problems.first().map_or(1, |problem| mended_by(problem.code)),
    }
}

/// The exit code of a finished job.
fn of_job(report: &pb::FinalReport) -> u8 {
    match (report.state.as_str(), &report.error) {
        ("SUCCEEDED", _) => 0,
        (_, Some(error)) => mended_by(Code::from_name(&error.code)),
        _ => 1,
    }
}

fn mended_by(code: Code) -> u8 {
    match code.mend() {
        Mend::Job => 1,
        Mend::Input => 2,
        Mend::Outside => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(state: &str, code: Option<&str>) -> pb::FinalReport {
        let error = code.map(|code| pb::Problem { code: code.into(), ..Default::default() });
        pb::FinalReport { state: state.into(), error, ..Default::default() }
    }

    #[test]
    fn exit_codes_say_who_can_mend_it() {
        assert_eq!(of_job(&report("SUCCEEDED", None)), 0);
        assert_eq!(of_job(&report("FAILED", Some("ROWS_REFUSED"))), 1);
        assert_eq!(of_job(&report("CANCELLED", None)), 1);
        assert_eq!(of_job(&report("FAILED", Some("UNKNOWN_COLUMN"))), 2);
        assert_eq!(of_job(&report("FAILED", Some("NO_BACKEND_ALIVE"))), 3);
        assert_eq!(of_job(&report("FAILED", Some("FROM_THE_FUTURE"))), 1);
    }
}
