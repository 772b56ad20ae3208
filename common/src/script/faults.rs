//! Collects what is wrong with a script, so that everything is told at once.

use std::cell::RefCell;

use crate::problem::{Code, Problem};

/// Shared by all readers of one script.
#[derive(Debug, Default)]
pub(super) struct Faults {
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<String>>,
}

impl Faults {
    /// The script is wrong at `pointer`.
    pub(super) fn error(&self, pointer: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.push(Code::InvalidScript, pointer, message.into(), hint.into());
    }

    /// The script is right, but this part of it is not built.
    pub(super) fn unsupported(&self, pointer: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.push(Code::Unsupported, pointer, message.into(), hint.into());
    }

    pub(super) fn warn(&self, pointer: &str, message: impl AsRef<str>) {
        self.warnings.borrow_mut().push(format!("{pointer}: {}", message.as_ref()));
    }

    fn push(&self, code: Code, pointer: &str, message: String, hint: String) {
        let problem = Problem::new(code, message).at(pointer).hint(hint);
        self.problems.borrow_mut().push(problem);
    }

    /// Problems and warnings, in the order of the walk.
    pub(super) fn into_parts(self) -> (Vec<Problem>, Vec<String>) {
        (self.problems.into_inner(), self.warnings.into_inner())
    }
}
