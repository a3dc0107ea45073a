//! Errors as OpenAI clients expect them: `{"error": {"message", "type", "param", "code"}}`.
//!
//! | status | `type` | `code` | when |
//! |---|---|---|---|
//! | 400 | `invalid_request_error` | `null`, `context_length_exceeded`, `unsupported_value`, … | the request cannot be served as it is |
//! | 401 | `authentication_error` | `invalid_api_key` | the key is missing or unknown |
//! | 403 | `permission_error` | `origin_not_allowed` | a web page of another origin called a host without keys |
//! | 403 | `permission_error` | `operators_only` | the tenant is not an operator of this host |
//! | 404 | `not_found_error` | `model_not_found`, `reply_not_found`, `route_not_found` | there is no such thing |
//! | 405 | `invalid_request_error` | `method_not_allowed` | the path exists, the method does not |
//! | 408 | `invalid_request_error` | `body_too_slow` | the body did not arrive in time |
//! | in a stream | `invalid_request_error` | `reply_unread` | the client fell too far behind its reply |
//! | 413 | `invalid_request_error` | `body_too_large` | the body is over the limit |
//! | 429 | `rate_limit_error` | `rate_limit_exceeded` | too many requests wait, or are open; carries `retry-after` |
//! | 500 | `server_error` | `null` | the host failed; never because of an update |
//! | 503 | `server_error` | `starting`, `draining`, `overloaded` | try again; carries `retry-after` |

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header::RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::engine::{Refusal, refused};

/// Seconds that a client should wait before it tries again. Clients of the official library double it themselves.
const RETRY_SECONDS: u64 = 1;

/// An error on its way to a client.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    status: StatusCode,
    kind: &'static str,
    code: Option<&'static str>,
    param: Option<String>,
    message: String,
    retry_after: Option<u64>,
}

#[derive(Serialize)]
struct Body<'a> {
    error: Inner<'a>,
}

#[derive(Serialize)]
struct Inner<'a> {
    message: &'a str,
    r#type: &'static str,
    param: Option<&'a str>,
    code: Option<&'static str>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            code: None,
            param: None,
            message: message.into(),
            retry_after: None,
        }
    }

    /// The request is wrong at `param`.
    pub(crate) fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message);
        Self {
            param: Some(param.into()),
            ..error
        }
    }

    /// The request asks for something that this host does not do.
    pub(crate) fn unsupported(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::invalid(param, message).code("unsupported_value")
    }

    /// The body is not a JSON object.
    pub(crate) fn body(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message).code("invalid_body")
    }

    /// The body did not arrive in time; clients try such a request again.
    pub(crate) fn slow(limit: Duration) -> Self {
        let seconds = limit.as_secs();
        let message = format!("The body took longer than {seconds} s to arrive; try again.");
        let kind = "invalid_request_error";
        Self::new(StatusCode::REQUEST_TIMEOUT, kind, message).code("body_too_slow")
    }

    /// The client does not read its reply; it is told so if it ever does.
    pub(crate) fn unread() -> Self {
        let message = "The reply was cut off: it was not read as fast as it was written.";
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "invalid_request_error",
            message,
        )
        .code("reply_unread")
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        let message = format!("The body is larger than {limit} bytes.");
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "invalid_request_error",
            message,
        )
        .code("body_too_large")
    }

    pub(crate) fn unauthorized(message: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "authentication_error", message).code("invalid_api_key")
    }

    pub(crate) fn foreign_origin() -> Self {
        let message = "A web page of another origin may not call a host that has no API keys.";
        Self::new(StatusCode::FORBIDDEN, "permission_error", message).code("origin_not_allowed")
    }

    pub(crate) fn operators_only(tenant: &str) -> Self {
        let message = format!(
            "The history of the weights is of all tenants together: the tenant `{tenant}` is not in `operators`."
        );
        Self::new(StatusCode::FORBIDDEN, "permission_error", message).code("operators_only")
    }

    /// The application refused an operator's request, in its own words.
    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    pub(crate) fn unknown_model(asked: &str, there_is: &[String]) -> Self {
        let message = format!(
            "The model `{asked}` does not exist; there is: {}.",
            there_is.join(", ")
        );
        let error = Self::new(StatusCode::NOT_FOUND, "not_found_error", message);
        Self {
            param: Some("model".into()),
            ..error
        }
        .code("model_not_found")
    }

    pub(crate) fn unknown_reply(id: &str) -> Self {
        let message = format!("There is no reply with the id `{id}`.");
        let error = Self::new(StatusCode::NOT_FOUND, "not_found_error", message);
        Self {
            param: Some("id".into()),
            ..error
        }
        .code("reply_not_found")
    }

    pub(crate) fn unknown_route() -> Self {
        let message = "There is nothing at this path; the API begins at /v1.";
        Self::new(StatusCode::NOT_FOUND, "not_found_error", message).code("route_not_found")
    }

    pub(crate) fn method_not_allowed() -> Self {
        let message = "This path does not answer that method.";
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "invalid_request_error",
            message,
        )
        .code("method_not_allowed")
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message)
    }

    pub(crate) fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message).code(code);
        Self {
            retry_after: Some(RETRY_SECONDS),
            ..error
        }
    }

    pub(crate) fn busy(message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message)
            .code("rate_limit_exceeded");
        Self {
            retry_after: Some(RETRY_SECONDS),
            ..error
        }
    }

    fn code(self, code: &'static str) -> Self {
        Self {
            code: Some(code),
            ..self
        }
    }

    #[cfg(test)]
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// The body, also used inside of a stream that has begun.
    pub(crate) fn json(&self) -> String {
        let body = Body {
            error: Inner {
                message: &self.message,
                r#type: self.kind,
                param: self.param.as_deref(),
                code: self.code,
            },
        };
        // Strings and nothing else: serialising them cannot fail.
        serde_json::to_string(&body).unwrap_or_default()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (
            self.status,
            [(axum::http::header::CONTENT_TYPE, "application/json")],
            self.json(),
        )
            .into_response();
        if let Some(seconds) = self.retry_after {
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            Refusal::PromptTooLong { .. } => {
                Self::invalid("messages", message).code("context_length_exceeded")
            }
            Refusal::Invalid { .. } => Self::body(message),
            Refusal::UnknownAdapter { .. } => {
                let error = Self::new(StatusCode::NOT_FOUND, "not_found_error", message);
                Self {
                    param: Some("model".into()),
                    ..error
                }
                .code("model_not_found")
            }
            Refusal::QueueFull { .. } | Refusal::TenantFull { .. } => Self::busy(message),
            Refusal::WaitedTooLong { .. } => Self::unavailable("overloaded", message),
            Refusal::Draining => Self::unavailable("draining", message),
            Refusal::Stopped { .. } => Self::internal(message),
        }
    }
}

impl From<policy::Error> for ApiError {
    fn from(error: policy::Error) -> Self {
        match error {
            policy::Error::PromptTooLong { .. } => {
                Self::invalid("messages", error.to_string()).code("context_length_exceeded")
            }
            error => refused(error).into(),
        }
    }
}

impl From<rl::Error> for ApiError {
    fn from(error: rl::Error) -> Self {
        let message = error.to_string();
        match error {
            rl::Error::Refused { .. } => {
                Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
            }
            error if error.is_retryable() => Self::unavailable("overloaded", message),
            _ => Self::internal(message),
        }
    }
}
