//! Log set-up, the same for every command: as text or as JSON lines, to wherever the caller says.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Sends logs to `writer` from now on, a whole line in each write. `filter` is a level or a `tracing` filter such as
/// `info,starlift_worker=debug`; an unreadable one falls back to `info` and says so.
pub fn init<W>(format: LogFormat, filter: &str, colours: bool, writer: W)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (parsed, complaint) = match EnvFilter::try_new(filter) {
        Ok(parsed) => (parsed, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(parsed).with_writer(writer).with_ansi(colours);
    // A second call (several commands in one test process) keeps the first set-up.
    let _already_set = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if let Some(error) = complaint {
        eprintln!("starlift: log filter `{filter}` is unreadable, using `info`: {error}");
    }
}
