//! Log set-up, the same for every command: to stderr, as text or as JSON lines.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Sends logs to stderr from now on, with colours on a terminal only. `filter` is a level or a `tracing` filter such as `info,starlift_worker=debug`;
/// an unreadable one falls back to `info` and says so.
pub fn init(format: LogFormat, filter: &str) {
    let (parsed, complaint) = match EnvFilter::try_new(filter) {
        Ok(parsed) => (parsed, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    let colours =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
    let builder =
        tracing_subscriber::fmt().with_env_filter(parsed).with_writer(std::io::stderr).with_ansi(colours);
    // A second call (several commands in one test process) keeps the first set-up.
    let _already_set = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if let Some(error) = complaint {
        eprintln!("starlift: log filter `{filter}` is unreadable, using `info`: {error}");
    }
}
