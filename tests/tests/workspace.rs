//! Rules about the repository itself: who may depend on whom, what lies
//! where, and sample configurations that work.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use barque_tests::{process, workspace_root};
use serde_json::Value;

/// Who may depend on which other members; see `docs/ARCHITECTURE.md`.
const MAY_DEPEND_ON: &[(&str, &[&str])] = &[
    ("api", &["cel"]),
    ("cel", &[]),
    ("proto", &[]),
    ("store", &["api"]),
    ("raft", &["api", "store", "proto"]),
    ("runtime", &["api", "store"]),
    ("apiserver", &["api", "cel", "store"]),
    ("scheduler", &["api", "runtime", "store"]),
    ("controllers", &["api", "runtime", "store"]),
    ("sessions", &["api", "proto", "runtime", "store"]),
    ("agent", &["api", "proto"]),
    (
        "barque",
        &["agent", "api", "apiserver", "controllers", "proto", "raft", "runtime", "scheduler", "sessions", "store"],
    ),
    // Black boxes: they must not link what they test.
    ("tests", &[]),
    ("bench", &["tests"]),
    ("jepsen", &["tests"]),
];

/// Dependencies that only one member may name.
const ONLY: &[(&str, &str)] =
    &[("openraft", "raft"), ("rocksdb", "raft"), ("bollard", "agent"), ("axum", "apiserver"), ("clap", "barque")];

/// What may lie at the top of the repository.
const TOP_LEVEL: &[&str] = &[
    ".cargo",
    ".ci",
    ".config",
    ".gitignore",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "Makefile",
    "README.md",
    "benches",
    "cluster-configs",
    "clippy.toml",
    "deny.toml",
    "docs",
    "jepsen",
    "proto",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "src",
    "tests",
];

/// A source file with more lines needs splitting.
const MAX_LINES: usize = 1_000;
/// What fits on one screen, generously.
const README_LINES: usize = 80;

fn metadata() -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(workspace_root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn short(package: &str) -> &str {
    package.strip_prefix("barque-").unwrap_or(package)
}

/// Names of a package's dependencies; `dev` ones only when asked for.
fn dependencies(package: &Value, dev: bool) -> BTreeSet<String> {
    let all = package["dependencies"].as_array().unwrap();
    all.iter()
        .filter(|dependency| dev || dependency["kind"] != "dev")
        .map(|dependency| dependency["name"].as_str().unwrap().to_owned())
        .collect()
}

/// Keeps out dependencies that would turn the layers into a knot.
#[test]
fn dependencies_follow_the_table() {
    let metadata = metadata();
    let table: BTreeMap<_, BTreeSet<_>> =
        MAY_DEPEND_ON.iter().map(|(name, allowed)| (*name, allowed.iter().copied().collect())).collect();
    let packages = metadata["packages"].as_array().unwrap();
    let members: BTreeSet<_> = packages.iter().map(|package| package["name"].as_str().unwrap()).collect();
    let mut problems = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let Some(allowed) = table.get(short(name)) else {
            problems.push(format!("{name} is not in the table of docs/ARCHITECTURE.md"));
            continue;
        };
        for dependency in dependencies(package, false) {
            if members.contains(dependency.as_str()) && !allowed.contains(short(&dependency)) {
                problems.push(format!("{name} must not depend on {dependency}"));
            }
        }
        for dependency in dependencies(package, true) {
            for (crate_name, owner) in ONLY {
                let named = dependency == *crate_name || dependency.starts_with(&format!("{crate_name}-"));
                if named && short(name) != *owner && short(name) != "bench" {
                    problems.push(format!("only {owner} may name {crate_name}, {name} names {dependency}"));
                }
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Keeps out versions given twice and members that go their own way.
#[test]
fn members_share_versions_and_lints() {
    let mut problems = Vec::new();
    for package in metadata()["packages"].as_array().unwrap() {
        let manifest = PathBuf::from(package["manifest_path"].as_str().unwrap());
        let text = std::fs::read_to_string(&manifest).unwrap();
        if !text.contains("[lints]\nworkspace = true") {
            problems.push(format!("{}: no `[lints] workspace = true`", manifest.display()));
        }
        let mut inside = false;
        for line in text.lines() {
            if line.starts_with('[') {
                inside = line.contains("dependencies");
            } else if inside && line.contains('=') && !line.contains("workspace") {
                problems.push(format!("{}: version outside the workspace's table: {line}", manifest.display()));
            }
        }
        let directory = manifest.parent().unwrap();
        let within = directory.strip_prefix(workspace_root()).unwrap();
        let name = package["name"].as_str().unwrap();
        if within.starts_with("src") {
            let expected = format!("src/{}", short(name));
            assert_eq!(within, Path::new(&expected), "directory and package name correspond");
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Files as git knows them; everything on disk when this is no checkout.
fn files() -> Vec<PathBuf> {
    let output = Command::new("git").args(["ls-files"]).current_dir(workspace_root()).output();
    if let Ok(output) = output
        && output.status.success()
        && !output.stdout.is_empty()
    {
        let text = String::from_utf8(output.stdout).unwrap();
        return text.lines().map(PathBuf::from).filter(|path| workspace_root().join(path).exists()).collect();
    }
    let mut found = Vec::new();
    let mut pending = vec![workspace_root()];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(directory).unwrap().flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if path.is_dir() {
                if name != "target" && name != ".git" && name != ".barque" {
                    pending.push(path);
                }
            } else {
                found.push(path.strip_prefix(workspace_root()).unwrap().to_path_buf());
            }
        }
    }
    found
}

/// Keeps out root directories full of odds and ends.
#[test]
fn the_top_level_is_tidy() {
    let top: BTreeSet<_> =
        files().iter().map(|path| path.iter().next().unwrap().to_string_lossy().into_owned()).collect();
    let odd: Vec<_> = top.iter().filter(|name| !TOP_LEVEL.contains(&name.as_str())).collect();
    assert!(odd.is_empty(), "does not belong at the top level: {odd:?}");
    for needed in ["README.md", "LICENSE", "CHANGELOG.md", "Makefile", "deny.toml", "docs", "proto", "cluster-configs"]
    {
        assert!(top.contains(needed), "{needed} is missing");
    }
    for needed in ["docs/ARCHITECTURE.md", "docs/README.md", "docs/glossary.md", "docs/performance.md"] {
        assert!(workspace_root().join(needed).is_file(), "{needed} is missing");
    }
}

/// Keeps out unexplained modules and endless files.
#[test]
fn source_files_explain_themselves_and_stay_readable() {
    let mut problems = Vec::new();
    for path in files().into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs")) {
        let text = std::fs::read_to_string(workspace_root().join(&path)).unwrap();
        // A file of nothing but tests is explained by its name.
        if !text.starts_with("//!") && path.file_name().is_none_or(|name| name != "tests.rs") {
            problems.push(format!("{} does not begin with //!", path.display()));
        }
        let lines = text.lines().count();
        if lines > MAX_LINES {
            problems.push(format!("{} has {lines} lines", path.display()));
        }
        if path.file_name().is_some_and(|name| name == "main.rs") && path.starts_with("src") && lines > 150 {
            problems.push(format!("{} composes in {lines} lines, 150 are allowed", path.display()));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Keeps out a README nobody finishes and links that lead nowhere.
#[test]
fn documents_are_short_and_linked() {
    let readme = std::fs::read_to_string(workspace_root().join("README.md")).expect("there is a README.md");
    let lines = readme.lines().count();
    assert!(lines <= README_LINES, "README.md has {lines} lines; one screen is {README_LINES}");
    let mut problems = Vec::new();
    for path in files().into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
        let text = std::fs::read_to_string(workspace_root().join(&path)).unwrap();
        for target in links(&text) {
            let file = target.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") || file.starts_with("mailto:") {
                continue;
            }
            let base = workspace_root().join(path.parent().unwrap());
            if !base.join(file).exists() {
                problems.push(format!("{}: {target}", path.display()));
            }
        }
    }
    assert!(problems.is_empty(), "links that lead nowhere:\n{}", problems.join("\n"));
}

/// Targets of Markdown links outside code blocks.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            code = !code;
        }
        if code {
            continue;
        }
        let mut rest = line;
        while let Some(at) = rest.find("](") {
            rest = &rest[at + 2..];
            if let Some(end) = rest.find(')') {
                found.push(rest[..end].split_whitespace().next().unwrap_or_default().to_owned());
            }
        }
    }
    found
}

#[test]
fn links_are_found() {
    let text = "a [b](c.md) and [d](e.md#f \"t\")\n```\n[x](y)\n```\n![p](q.svg)";
    assert_eq!(links(text), ["c.md", "e.md#f", "q.svg"]);
}

/// Keeps out samples that rotted: each is parsed by the binary itself, with
/// certificates as `barque certs` makes them.
#[test]
fn sample_configurations_are_valid() {
    let directory = workspace_root().join("cluster-configs");
    let mut checked = 0;
    for entry in std::fs::read_dir(&directory).unwrap().flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.contains("agent") || name.contains("dev") {
            continue;
        }
        let output =
            Command::new(process::barque()).args(["server", "--check", "--config"]).arg(&path).output().unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && text.contains("ok"), "{name}: {}\n{text}", output.status);
        checked += 1;
    }
    assert!(checked >= 2, "samples for three and five masters, {checked} found");
}

/// Keeps out a check that accepts everything.
#[test]
fn a_wrong_configuration_is_refused_with_its_reason() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("wrong.yaml");
    std::fs::write(&path, "id: 1\nname: m1\nnonsense: true\n").unwrap();
    let output = Command::new(process::barque()).args(["server", "--check", "--config"]).arg(&path).output().unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("nonsense") || text.contains("wrong.yaml"), "{text}");
}
