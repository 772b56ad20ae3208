//! Which form the bodies of an attempt have, and which one comes next when a value does not fit it. A job that names its
//! delimiters gets those or an error. Otherwise: the planned delimiters, then long random ones, then JSON.

use starlift_common::job::{Delimiter, Format, LoadSpec};
pub(crate) use starlift_remote::starrocks::headers::Form;

use super::Collision;

/// Bytes of a random delimiter; the server takes 50.
const RANDOM_BYTES: usize = 16;

/// How far down an attempt has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rung {
    Planned,
    RandomDelimiters,
    Json,
}

impl Rung {
    /// The next rung that can hold what this one could not; `None`: the row must be refused.
    pub(crate) fn after(self, load: &LoadSpec, collision: Collision) -> Option<Self> {
        if load.named_delimiters || load.format == Format::Json {
            return None;
        }
        match (self, collision) {
            (Self::Planned, Collision::Delimiter) => Some(Self::RandomDelimiters),
            // No delimiter helps against these two.
            (Self::Planned, Collision::NullMark | Collision::BlankLine)
            | (Self::RandomDelimiters, Collision::Delimiter | Collision::NullMark | Collision::BlankLine) => {
                Some(Self::Json)
            }
            (Self::Json, _) | (_, Collision::BareDocument) => None,
        }
    }

    /// `random` comes from the caller and is used on one rung only.
    pub(crate) fn form(self, load: &LoadSpec, random: [u8; 2 * RANDOM_BYTES]) -> Form {
        match (self, load.format) {
            (Self::Planned, _) => Form::planned(load),
            (Self::RandomDelimiters, Format::Csv) => {
                let (column, row) = random.split_at(RANDOM_BYTES);
                Form::Csv { column: delimiter(1, column), row: delimiter(2, row) }
            }
            (Self::Json, _) | (_, Format::Json) => Form::Json,
        }
    }
}

/// `first` occurs nowhere else in it, so that it neither overlaps itself nor meets the other one.
fn delimiter(first: u8, random: &[u8]) -> Delimiter {
    let mut bytes: Vec<u8> = random.iter().map(|byte| 3 + byte % 0x1c).collect();
    bytes[0] = first;
    Delimiter::new(bytes).expect("1 to 50 bytes from 1 to 0x1e, none of them a backslash")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::load_spec;

    fn load(named_delimiters: bool) -> LoadSpec {
        LoadSpec { named_delimiters, ..load_spec() }
    }

    #[test]
    fn the_ladder_ends_with_json() {
        let load = load(false);
        let second = Rung::Planned.after(&load, Collision::Delimiter);
        assert_eq!(second, Some(Rung::RandomDelimiters));
        assert_eq!(Rung::RandomDelimiters.after(&load, Collision::Delimiter), Some(Rung::Json));
        assert_eq!(Rung::Planned.after(&load, Collision::NullMark), Some(Rung::Json));
        assert_eq!(Rung::Json.form(&load, [0; 32]), Form::Json);
    }

    #[test]
    fn named_delimiters_are_never_replaced() {
        assert_eq!(Rung::Planned.after(&load(true), Collision::Delimiter), None);
    }

    #[test]
    fn random_delimiters_never_meet() {
        for seed in 0..=255 {
            let Form::Csv { column, row } = Rung::RandomDelimiters.form(&load(false), [seed; 32]) else {
                panic!("CSV stays CSV on this rung");
            };
            assert_eq!(column.as_bytes().iter().filter(|byte| **byte == 1).count(), 1);
            assert!(!column.as_bytes().contains(&2) && !row.as_bytes().contains(&1));
        }
    }
}
