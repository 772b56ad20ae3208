//! The name somebody probably meant. Pure; used wherever an unknown name is reported.

/// The candidate most like `name`; `None` when none is near enough to be worth a guess. Case does not count.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = name.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&wanted, &candidate.to_lowercase()), candidate))
        .filter(|(likeness, _)| *likeness >= 0.8)
        .max_by(|(left, _), (right, _)| left.total_cmp(right))
        .map(|(_, candidate)| candidate)
}

/// ``did you mean `x`?``, or nothing.
pub fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, candidates).map_or_else(String::new, |near| format!("did you mean `{near}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_recognised_and_a_stranger_is_not() {
        assert_eq!(nearest("splitPK", ["table", "splitPk", "where"]), Some("splitPk"));
        assert_eq!(nearest("Writter", ["Reader", "Writer"]), Some("Writer"));
        assert_eq!(nearest("zebra", ["table", "splitPk"]), None);
    }
}
