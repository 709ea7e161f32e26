//! `/livez`, `/readyz` and `/healthz`, as upstream words them.

use axum::body::Body;
use http::{Response, StatusCode};

use super::Api;
use super::query::Query;
use super::respond::text_response;

/// One thing that must be well.
pub trait HealthCheck: Send + Sync + 'static {
    /// Its name, as in `/readyz/NAME`.
    fn name(&self) -> &str;

    /// Whether it is well.
    ///
    /// # Errors
    /// Why not, for the log and for people.
    fn check(&self) -> Result<(), String>;

    /// Whether a failure means that the process must be restarted: then it
    /// counts for `/livez` and not only for `/readyz`.
    fn is_vital(&self) -> bool {
        false
    }
}

impl Api {
    pub(super) fn health(&self, kind: &'static str, only: Option<&str>, query: &Query) -> Response<Body> {
        let mut results: Vec<(String, Result<(), String>)> = vec![("ping".to_owned(), Ok(()))];
        for check in self.checks.iter().filter(|check| kind != "livez" || check.is_vital()) {
            results.push((check.name().to_owned(), check.check()));
        }
        if kind != "livez" {
            let draining = self.draining.is_cancelled();
            let result = if draining { Err("the master is shutting down".to_owned()) } else { Ok(()) };
            results.push(("shutdown".to_owned(), result));
        }
        if let Some(only) = only {
            let Some((name, result)) = results.into_iter().find(|(name, _)| name == only) else {
                return text_response(StatusCode::NOT_FOUND, "404 page not found\n".to_owned());
            };
            return match result {
                Ok(()) => text_response(StatusCode::OK, "ok".to_owned()),
                Err(why) => text_response(StatusCode::INTERNAL_SERVER_ERROR, format!("{name} check failed: {why}\n")),
            };
        }
        let excluded: Vec<&str> = query.all("exclude").collect();
        let mut text = String::new();
        let mut failed = false;
        for (name, result) in &results {
            match result {
                _ if excluded.contains(&name.as_str()) => text.push_str(&format!("[+]{name} excluded: ok\n")),
                Ok(()) => text.push_str(&format!("[+]{name} ok\n")),
                Err(why) => {
                    failed = true;
                    text.push_str(&format!("[-]{name} failed: {why}\n"));
                }
            }
        }
        if failed {
            text.push_str(&format!("{kind} check failed\n"));
            return text_response(StatusCode::INTERNAL_SERVER_ERROR, text);
        }
        if query.get("verbose").is_some() {
            text.push_str(&format!("{kind} check passed\n"));
            return text_response(StatusCode::OK, text);
        }
        text_response(StatusCode::OK, "ok".to_owned())
    }
}
