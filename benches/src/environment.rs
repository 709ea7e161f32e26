//! On what the numbers were taken.

use serde_json::{Value, json};

/// Machine, kernel, commit and binary.
pub fn describe() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        text.lines()
            .find(|line| line.starts_with(name))
            .and_then(|line| line.split_once(':'))
            .map(|(_, value)| value.trim().to_owned())
    };
    json!({
        "cpus": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "cpu": field(&read("/proc/cpuinfo"), "model name"),
        "memory": field(&read("/proc/meminfo"), "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "binary": barque_tests::process::barque(),
        "commit": output("git", &["rev-parse", "--short", "HEAD"]),
        "etcd": output("etcd", &["--version"]).map(|text| text.lines().next().unwrap_or_default().to_owned()),
    })
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let mut command = std::process::Command::new(program);
    let output = command.args(arguments).current_dir(barque_tests::workspace_root()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
