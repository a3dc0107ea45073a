//! `POST /v1/history`: an operator's request, handed to the application and answered line by line.
//!
//! Who asks is checked before the body is read. What is asked and answered is the application's: nothing here reads it but the
//! word `error` of a first line, which becomes the status.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::Value;
use tokio::sync::mpsc;

use super::api_error::ApiError;
use super::routes::Shared;

/// Most bytes of a request: an adapter that is imported is in it, as text.
const MAX_BODY: usize = 1 << 30;

pub(super) async fn answer(State(service): Shared, request: Request) -> Result<Response, ApiError> {
    let caller = service.keys.check(request.headers())?;
    let backend = service.backend()?;
    let operator = backend.operator.clone();
    if !(operator.admits)(&caller.tenant) {
        return Err(ApiError::operators_only(caller.tenant.as_str()));
    }
    let bytes = to_bytes(request.into_body(), MAX_BODY)
        .await
        .map_err(|_| ApiError::body("The body could not be read."))?;
    let asked: Value = serde_json::from_slice(&bytes)
        .map_err(|error| ApiError::body(format!("The body is not JSON: {error}.")))?;
    drop(bytes);
    let (sender, mut lines) = mpsc::unbounded_channel();
    let run = Arc::clone(&operator.answer);
    tokio::task::spawn_blocking(move || {
        // A client that went away hears nothing more; what it asked for is done all the same.
        run(asked, &mut |line| drop(sender.send(line)));
    });
    let Some(first) = lines.recv().await else {
        return Err(ApiError::internal("The host failed to answer."));
    };
    if let Some(message) = first["error"]["message"].as_str() {
        return Err(ApiError::refused(message));
    }
    let rest = stream::unfold(lines, |mut lines| async {
        lines.recv().await.map(|line| (line, lines))
    });
    let all = stream::StreamExt::chain(stream::iter([first]), rest);
    let text = stream::StreamExt::map(all, |line| {
        Ok::<_, std::convert::Infallible>(format!("{line}\n"))
    });
    let kind = [(CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, Body::from_stream(text)).into_response())
}
