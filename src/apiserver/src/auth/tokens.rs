//! The file of static bearer tokens: `token,user,uid,"group1,group2"`.

use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::{AUTHENTICATED, User};

/// Why a token file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenFileError {
    /// A line does not have the fields.
    #[error("token file, line {line}: {problem}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// The tokens of one file. Tokens are kept as digests, so that looking one up
/// takes the same time whatever it shares with a valid one.
#[derive(Default)]
pub struct TokenFile {
    users: HashMap<[u8; 32], Arc<User>>,
}

impl TokenFile {
    /// Parses the file's text. Empty lines and lines that begin with `#` are
    /// skipped.
    ///
    /// # Errors
    /// When a line has fewer than three fields, an empty token or user, or a
    /// token occurs twice.
    pub fn parse(text: &str) -> Result<Self, TokenFileError> {
        let mut users = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let line_number = index + 1;
            let wrong = |problem| TokenFileError::Line { line: line_number, problem };
            if line.trim().is_empty() || line.trim_start().starts_with('#') {
                continue;
            }
            let fields = split(line).ok_or_else(|| wrong("a quotation mark is not closed"))?;
            let [token, name, uid, rest @ ..] = fields.as_slice() else {
                return Err(wrong("expected at least: token,user,uid"));
            };
            if token.is_empty() {
                return Err(wrong("the token is empty"));
            }
            if name.is_empty() {
                return Err(wrong("the user is empty"));
            }
            let mut groups: Vec<String> = rest
                .first()
                .map(|list| list.split(',').map(str::trim).filter(|g| !g.is_empty()).map(ToOwned::to_owned).collect())
                .unwrap_or_default();
            groups.push(AUTHENTICATED.to_owned());
            let user = User { name: name.clone(), uid: uid.clone(), groups, ..User::default() };
            if users.insert(digest(token), Arc::new(user)).is_some() {
                return Err(wrong("the token occurs twice"));
            }
        }
        Ok(Self { users })
    }

    /// The user of a token.
    #[must_use]
    pub fn user(&self, token: &str) -> Option<Arc<User>> {
        self.users.get(&digest(token)).cloned()
    }

    /// Number of tokens.
    #[must_use]
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether there are no tokens.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Splits one CSV line; `None` when a quotation mark is not closed.
fn split(line: &str) -> Option<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.trim_end_matches('\r').chars().peekable();
    while let Some(c) = chars.next() {
        let field = fields.last_mut().expect("it starts with one field");
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            other => field.push(other),
        }
    }
    (!quoted).then(|| fields.iter().map(|f| f.trim().to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gives_users_with_their_groups() {
        let file = TokenFile::parse("# comment\n\nabc,alice,1,\"dev,system:masters\"\r\nxyz, bob ,2\n").expect("valid");
        assert_eq!(file.len(), 2);
        let alice = file.user("abc").expect("known");
        assert_eq!((alice.name.as_str(), alice.uid.as_str()), ("alice", "1"));
        assert_eq!(alice.groups, ["dev", "system:masters", "system:authenticated"]);
        assert_eq!(file.user("xyz").expect("known").groups, ["system:authenticated"]);
        assert!(file.user("ab").is_none());
    }

    #[test]
    fn broken_lines_are_named() {
        for (text, line) in [("a,b", 1), ("a,b,c\n,u,1", 2), ("a,b,c\na,d,e", 2), ("a,\"b,c", 1), ("a,,1", 1)] {
            let Err(TokenFileError::Line { line: found, .. }) = TokenFile::parse(text) else { panic!("{text}") };
            assert_eq!(found, line, "{text}");
        }
    }
}
