//! What can be wrong with an expression, when it is compiled and when it runs.

use std::fmt;

/// One problem at one place of an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// Where, in characters from the start.
    pub at: u32,
    /// What.
    pub message: String,
}

/// Why an expression does not compile. Displayed as cel-go does, with the line
/// and a mark under the place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompileError {
    /// The problems, in order of place.
    pub issues: Vec<Issue>,
    text: String,
}

impl CompileError {
    pub(crate) fn new(text: &str, mut issues: Vec<Issue>) -> Self {
        issues.sort_by_key(|issue| issue.at);
        issues.truncate(crate::limits::MAX_ISSUES);
        Self { issues, text: text.to_owned() }
    }
}

impl std::error::Error for CompileError {}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, issue) in self.issues.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            let (line, column, content) = locate(&self.text, issue.at as usize);
            write!(f, "ERROR: <input>:{line}:{}: {}", column + 1, issue.message)?;
            write!(f, "\n | {}\n | ", content.replace('\t', " "))?;
            let mut chars = content.chars();
            for _ in 0..column {
                // Wide marks keep the columns aligned under wide characters.
                f.write_str(if chars.next().is_some_and(|c| c.len_utf8() > 1) { "．" } else { "." })?;
            }
            f.write_str(if chars.next().is_some_and(|c| c.len_utf8() > 1) { "＾" } else { "^" })?;
        }
        Ok(())
    }
}

/// Line (from 1), column (from 0) and the line's text at a character.
fn locate(text: &str, at: usize) -> (usize, usize, &str) {
    let (mut number, mut start) = (1, 0);
    let mut lines = text.split('\n').peekable();
    while let Some(line) = lines.next() {
        let length = line.chars().count();
        if at <= start + length || lines.peek().is_none() {
            return (number, at.saturating_sub(start).min(length), line);
        }
        start += length + 1;
        number += 1;
    }
    (1, 0, "")
}

/// Which kind of failure an evaluation met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvalErrorKind {
    /// The expression's own: a missing key, an overflow, a wrong type.
    Failed,
    /// The cost limit was reached.
    CostLimit,
}

/// Why an expression has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EvalError {
    /// The kind of failure.
    pub kind: EvalErrorKind,
    /// Text as cel-go words it.
    pub message: String,
}

impl EvalError {
    /// A failure of the expression.
    pub fn new(message: impl Into<String>) -> Self {
        Self { kind: EvalErrorKind::Failed, message: message.into() }
    }

    pub(crate) fn cost_limit() -> Self {
        Self { kind: EvalErrorKind::CostLimit, message: "operation cancelled: actual cost limit exceeded".to_owned() }
    }

    pub(crate) fn overflow(what: &str) -> Self {
        Self::new(format!("{what} overflow"))
    }

    pub(crate) fn no_such_overload() -> Self {
        Self::new("no such overload")
    }

    pub(crate) fn no_such_key(key: impl fmt::Display) -> Self {
        Self::new(format!("no such key: {key}"))
    }
}
