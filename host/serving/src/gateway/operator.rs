//! `POST /v1/history`: an operator's request, handed to the application and answered line by line.
//!
//! Who asks is checked before the body is read. What is asked and answered is the application's: nothing here reads it but the
//! word `error` of a first line, which becomes the status.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::Value;
use tokio::sync::mpsc;

use super::api_error::ApiError;
use super::bodies::{declared, read_large};
use super::routes::Shared;

pub(super) async fn answer(State(service): Shared, request: Request) -> Result<Response, ApiError> {
    let caller = service.keys.check(request.headers())?;
    let backend = service.backend()?;
    let operator = backend.operator.clone();
    if !(operator.admits)(&caller.tenant) {
        return Err(ApiError::operators_only(caller.tenant.as_str()));
    }
    let length = declared(&request);
    let is_large = length.is_none_or(|length| length > service.config.max_body_bytes);
    let alone = match is_large {
        true => Some(
            Arc::clone(&service.large)
                .try_acquire_owned()
                .map_err(|_| {
                    let message =
                        "Another large request is being answered; try again when it is done.";
                    ApiError::unavailable("overloaded", message)
                })?,
        ),
        false => None,
    };
    let (bytes, room) = if is_large {
        let bytes = read_large(request, operator.largest).await?;
        (bytes, None)
    } else {
        let in_words = length.is_some_and(|length| length <= service.words.most());
        let bodies = if in_words {
            &service.words
        } else {
            &service.bodies
        };
        let (bytes, room) = bodies.read(&caller.tenant, request).await?;
        (bytes, Some(room))
    };
    let asked: Value = serde_json::from_slice(&bytes)
        .map_err(|error| ApiError::body(format!("The body is not JSON: {error}.")))?;
    drop(bytes);
    let (sender, mut lines) = mpsc::unbounded_channel();
    let run = Arc::clone(&operator.answer);
    tokio::task::spawn_blocking(move || {
        // A client that went away hears nothing more.
        run(asked, &mut |line| match sender.send(line) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        });
        drop((room, alone));
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
