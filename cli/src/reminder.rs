//! When a server's log says that its certificate runs out: long enough before the end, and not with every look at it.

use starlift_link::tls::Certificate;

const DAY_S: u64 = 24 * 3600;
/// Time enough to have another one made. The alerts in deploy/prometheus begin here too.
const AHEAD_S: u64 = 14 * DAY_S;

/// What there is to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reminder {
    RunsOut,
    IsOver,
}

/// Remembers what was said, and of which certificate.
#[derive(Debug, Default)]
pub(crate) struct Reminders {
    /// With the end of that certificate, and when it was said.
    last: Option<(Reminder, u64, u64)>,
}

impl Reminders {
    /// What to say at this Unix time: at once what is new, be it the certificate or that it is over, and the same
    /// again after a day.
    pub(crate) fn due(&mut self, certificate: &Certificate, now_s: u64) -> Option<Reminder> {
        let expires_s = certificate.expires_s;
        let reminder = match expires_s {
            _ if now_s > expires_s => Reminder::IsOver,
            _ if now_s + AHEAD_S >= expires_s => Reminder::RunsOut,
            _ => return None,
        };
        let was_said = self.last.is_some_and(|(said, end_s, at_s)| {
            (said, end_s) == (reminder, expires_s) && now_s < at_s.saturating_add(DAY_S)
        });
        if was_said {
            return None;
        }
        self.last = Some((reminder, expires_s, now_s));
        Some(reminder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: u64 = 1_900_000_000;

    fn until(expires_s: u64) -> Certificate {
        Certificate { path: "server.crt".into(), expires_s }
    }

    /// Looks once a minute; the moments at which something was said.
    fn said(from_s: u64, to_s: u64) -> Vec<(u64, Reminder)> {
        let mut reminders = Reminders::default();
        (from_s..to_s)
            .step_by(60)
            .filter_map(|now_s| reminders.due(&until(END), now_s).map(|said| (now_s, said)))
            .collect()
    }

    #[test]
    fn nothing_is_said_until_two_weeks_before_the_end_and_then_once_a_day() {
        assert_eq!(said(END - 20 * DAY_S, END - 14 * DAY_S), []);
        let moments: Vec<(u64, Reminder)> =
            (0..14).map(|day| (END - (14 - day) * DAY_S, Reminder::RunsOut)).collect();
        assert_eq!(said(END - 20 * DAY_S, END), moments);
    }

    #[test]
    fn the_end_itself_is_said_at_once() {
        let moments = [(END - 600, Reminder::RunsOut), (END + 60, Reminder::IsOver)];
        assert_eq!(said(END - 600, END + DAY_S), moments);
        assert_eq!(said(END + 7, END + DAY_S), [(END + 7, Reminder::IsOver)]);
    }

    #[test]
    fn another_certificate_that_runs_out_is_said_at_once_and_a_long_one_ends_it() {
        let mut reminders = Reminders::default();
        assert_eq!(reminders.due(&until(END), END - DAY_S), Some(Reminder::RunsOut));
        assert_eq!(reminders.due(&until(END + 60), END - DAY_S + 60), Some(Reminder::RunsOut));
        assert_eq!(reminders.due(&until(END + 90 * DAY_S), END - DAY_S + 120), None);
        assert_eq!(reminders.due(&until(u64::MAX), END), None);
    }
}
