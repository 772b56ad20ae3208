//! How the files of a server have been read since it started: until when its certificate is good, when they were last in
//! order, and how often they were not. Whoever reads them notes it here; `/metrics` of coordinators and workers shows it,
//! under the same names behind their prefixes.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use crate::guard::Guard;

/// What is read again together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    CertificatesAndTokens,
    Datasources,
}

impl Files {
    const ALL: [Self; 2] = [Self::CertificatesAndTokens, Self::Datasources];

    /// A label in metrics, so it stays.
    fn as_str(self) -> &'static str {
        match self {
            Self::CertificatesAndTokens => "certificates_or_tokens",
            Self::Datasources => "datasources",
        }
    }
}

/// Cheap to clone; all clones see what is noted.
#[derive(Debug, Clone, Default)]
pub struct Readings {
    guard: Guard,
    notes: Arc<[Note; Files::ALL.len()]>,
}

#[derive(Debug, Default)]
struct Note {
    /// Unix time in seconds.
    good_at_s: AtomicU64,
    failed: AtomicU64,
}

impl Readings {
    /// Everything was read at this Unix time, and in order.
    pub fn new(guard: Guard, now_s: u64) -> Self {
        let readings = Self { guard, notes: Arc::default() };
        for files in Files::ALL {
            readings.note(files, true, now_s);
        }
        readings
    }

    /// They were read again; with faults, they were not taken up.
    pub fn note(&self, files: Files, is_good: bool, now_s: u64) {
        let note = &self.notes[files as usize];
        if is_good {
            note.good_at_s.store(now_s, Ordering::Relaxed);
        } else {
            note.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Collector for Readings {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let gauge = |seconds: u64| ConstGauge::new(i64::try_from(seconds).unwrap_or(i64::MAX));
        let unit = Some(&Unit::Seconds);
        let expires = gauge(self.guard.certificate().map_or(0, |certificate| certificate.expires_s));
        let help = "Unix time at which the certificate of --tls-cert expires";
        let name = "certificate_expiry_timestamp";
        expires.encode(encoder.encode_descriptor(name, help, unit, expires.metric_type())?)?;

        let (help, kind) =
            ("Unix time at which the files were last read without a fault", gauge(0).metric_type());
        let mut family = encoder.encode_descriptor("files_read_timestamp", help, unit, kind)?;
        for files in Files::ALL {
            let good_at = gauge(self.notes[files as usize].good_at_s.load(Ordering::Relaxed));
            good_at.encode(family.encode_family(&[("file", files.as_str())])?)?;
        }

        let kind = ConstCounter::new(0u64).metric_type();
        let help = "Files read again with a fault, so that the old ones stay in force";
        let mut family = encoder.encode_descriptor("reloads_failed", help, None, kind)?;
        for files in Files::ALL {
            let failed = ConstCounter::new(self.notes[files as usize].failed.load(Ordering::Relaxed));
            failed.encode(family.encode_family(&[("file", files.as_str())])?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::guard::GuardSettings;
    use crate::testing::Authority;

    fn page(readings: &Readings) -> String {
        let mut registry = Registry::with_prefix("x");
        registry.register_collector(Box::new(readings.clone()));
        let mut page = String::new();
        text::encode(&mut page, &registry).expect("text");
        page
    }

    #[test]
    fn a_failed_reading_counts_and_leaves_the_time_of_the_last_good_one() {
        let readings = Readings::new(Guard::default(), 100);
        readings.note(Files::CertificatesAndTokens, true, 160);
        readings.note(Files::Datasources, false, 170);
        let page = page(&readings);
        for line in [
            "x_certificate_expiry_timestamp_seconds 0",
            "x_files_read_timestamp_seconds{file=\"certificates_or_tokens\"} 160",
            "x_files_read_timestamp_seconds{file=\"datasources\"} 100",
            "x_reloads_failed_total{file=\"certificates_or_tokens\"} 0",
            "x_reloads_failed_total{file=\"datasources\"} 1",
        ] {
            assert!(page.contains(line), "{line} in\n{page}");
        }
    }

    #[test]
    fn the_certificate_that_is_in_force_is_told() {
        let authority = Authority::new();
        let dated = |year| {
            let mut params = rcgen::CertificateParams::new(Vec::new()).expect("no names");
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
            authority.issue_with("server", params)
        };
        let guard = Guard::new(GuardSettings { tls: dated(2050), ..GuardSettings::default() });
        let guard = guard.expect("good files");
        let readings = Readings::new(guard.clone(), 0);
        assert!(page(&readings).contains("expiry_timestamp_seconds 2524608000"), "{}", page(&readings));
        dated(2051);
        guard.reload().expect("good files");
        assert!(page(&readings).contains("expiry_timestamp_seconds 2556144000"), "{}", page(&readings));
    }
}
