//! Log output: to standard error, text or JSON.

use tracing_subscriber::EnvFilter;

use crate::config::LogConfig;

/// Installs the process's log output.
///
/// # Errors
/// When the filter cannot be parsed.
pub fn install(log: &LogConfig) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter = EnvFilter::builder().parse(&log.level)?;
    let output = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    if log.json {
        output.json().init();
    } else {
        output.init();
    }
    Ok(())
}
