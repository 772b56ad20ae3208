//! A task's own share of its job's speed limit, for as long as the coordinator gives out no slices (`budget.rs`): a token
//! bucket over cell bytes. Pure; time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// How far reading may run ahead of its limit.
const BURST: Duration = Duration::from_millis(200);

/// When the bytes read so far are paid for.
#[derive(Debug, Default)]
pub(crate) struct SpeedLimit {
    paid_at: Option<Instant>,
}

impl SpeedLimit {
    /// Charges `bytes` read at `now`; how long to wait before reading on. A changed limit holds from here on.
    pub(crate) fn charge(&mut self, bytes: u64, bytes_per_second: Option<u64>, now: Instant) -> Duration {
        let Some(speed) = bytes_per_second else {
            self.paid_at = None;
            return Duration::ZERO;
        };
        #[expect(clippy::cast_precision_loss, reason = "a speed needs no 53 bits")]
        let price = Duration::from_secs_f64((bytes as f64 / speed as f64).min(3600.0));
        // Time in which nothing was read is not saved up.
        let paid_at = self.paid_at.map_or(now, |paid_at| paid_at.max(now)) + price;
        self.paid_at = Some(paid_at);
        let ahead = paid_at - now;
        if ahead > BURST { ahead } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_limit_holds_over_time_and_lets_short_bursts_through() {
        let mut limit = SpeedLimit::default();
        let start = Instant::now();
        let mut now = start;
        for _ in 0..100 {
            now += limit.charge(10_000, Some(100_000), now);
        }
        let seconds = (now - start).as_secs_f64();
        assert!((9.7..=10.0).contains(&seconds), "1,000,000 bytes took {seconds} s");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_nobody_waits() {
        assert_eq!(SpeedLimit::default().charge(u64::MAX, None, Instant::now()), Duration::ZERO);
    }
}
