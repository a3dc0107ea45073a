//! Messages and tools of a request, from OpenAI's JSON to the host's vocabulary.
//!
//! Text parts are joined with a line break. Parts that this host cannot read (images, audio, files) are refused by
//! name, never dropped. Start at [`messages`].

use rl::{Message, Role, ToolCall, ToolSpec};
use serde_json::Value;

use super::api_error::ApiError;
use super::fields::{Fields, wrong_type};

/// Function names as OpenAI allows them.
const MAX_NAME: usize = 64;

/// Which calls the reply may or must make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ToolChoice {
    /// Tools are not shown to the model.
    None,
    /// The model decides.
    Auto,
    /// The reply begins as a call; the model picks the function.
    Required,
    /// The reply begins as a call of this function.
    Named(String),
}

/// `messages`
pub(crate) fn messages(root: Fields<'_, '_>) -> Result<Vec<Message>, ApiError> {
    root.required("messages")?;
    let list = root
        .list("messages")?
        .map(Vec::as_slice)
        .unwrap_or_default();
    if list.is_empty() {
        return Err(ApiError::invalid(
            "messages",
            "`messages` must hold at least one message.",
        ));
    }
    list.iter()
        .enumerate()
        .map(|(index, value)| message(value, &format!("messages[{index}]")))
        .collect()
}

fn message(value: &Value, path: &str) -> Result<Message, ApiError> {
    let fields = Fields::at(value, path)?;
    let role = match fields.required_text("role")? {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" => Role::Tool,
        other => {
            let name = fields.name("role");
            let message = format!(
                "`{name}` is `{other}`, but must be system, developer, user, assistant or tool."
            );
            return Err(ApiError::invalid(name, message));
        }
    };
    let tool_calls = if role == Role::Assistant {
        tool_calls(fields)?
    } else {
        Vec::new()
    };
    let content = match fields.get("content") {
        Some(content) => text_of(content, &fields.name("content"))?,
        None if role == Role::Assistant => String::new(),
        None => return Err(missing(&fields, "content")),
    };
    let reasoning = fields
        .text("reasoning_content")?
        .or(fields.text("reasoning")?);
    let tool_call_id = match role {
        Role::Tool => Some(fields.required_text("tool_call_id")?.to_owned()),
        _ => None,
    };
    Ok(Message {
        role,
        content,
        reasoning: reasoning
            .filter(|_| role == Role::Assistant)
            .map(str::to_owned),
        tool_calls,
        tool_call_id,
        name: fields.text("name")?.map(str::to_owned),
    })
}

fn missing(fields: &Fields<'_, '_>, field: &str) -> ApiError {
    let name = fields.name(field);
    ApiError::invalid(&name, format!("Missing required parameter: `{name}`."))
}

fn text_of(content: &Value, path: &str) -> Result<String, ApiError> {
    let parts = match content {
        Value::String(text) => return Ok(text.clone()),
        Value::Array(parts) => parts,
        other => return Err(wrong_type(path, "a string or an array of parts", other)),
    };
    let mut texts = Vec::with_capacity(parts.len());
    for (index, part) in parts.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let part = Fields::at(part, &path)?;
        match part.required_text("type")? {
            "text" | "input_text" | "output_text" => texts.push(part.required_text("text")?),
            "refusal" => texts.push(part.required_text("refusal")?),
            other => {
                let message = format!("`{path}` is of type `{other}`; this model reads text only.");
                return Err(ApiError::unsupported(path, message));
            }
        }
    }
    Ok(texts.join("\n"))
}

fn tool_calls(message: Fields<'_, '_>) -> Result<Vec<ToolCall>, ApiError> {
    let Some(list) = message.list("tool_calls")? else {
        return Ok(Vec::new());
    };
    let base = message.name("tool_calls");
    list.iter()
        .enumerate()
        .map(|(index, value)| {
            let path = format!("{base}[{index}]");
            let call = Fields::at(value, &path)?;
            is_function(&call)?;
            let function_path = call.name("function");
            let function = Fields::at(call.required("function")?, &function_path)?;
            Ok(ToolCall {
                id: call.required_text("id")?.to_owned(),
                name: function.required_text("name")?.to_owned(),
                arguments: function.required_text("arguments")?.to_owned(),
            })
        })
        .collect()
}

fn is_function(fields: &Fields<'_, '_>) -> Result<(), ApiError> {
    match fields.text("type")? {
        None | Some("function") => Ok(()),
        Some(other) => {
            let name = fields.name("type");
            let message = format!("`{name}` is `{other}`; only functions are supported.");
            Err(ApiError::unsupported(name, message))
        }
    }
}

/// `tools`
pub(crate) fn tools(root: Fields<'_, '_>) -> Result<Vec<ToolSpec>, ApiError> {
    for legacy in ["functions", "function_call"] {
        if root.get(legacy).is_some() {
            let message = format!("`{legacy}` is not supported; use `tools` and `tool_choice`.");
            return Err(ApiError::unsupported(legacy, message));
        }
    }
    let list = root.list("tools")?.map(Vec::as_slice).unwrap_or_default();
    list.iter()
        .enumerate()
        .map(|(index, value)| tool(value, &format!("tools[{index}]")))
        .collect()
}

fn tool(value: &Value, path: &str) -> Result<ToolSpec, ApiError> {
    let tool = Fields::at(value, path)?;
    is_function(&tool)?;
    let function_path = tool.name("function");
    let function = Fields::at(tool.required("function")?, &function_path)?;
    let name = function.required_text("name")?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(allowed) {
        let path = function.name("name");
        let message = format!("`{path}` must be 1 to {MAX_NAME} letters, digits, `_` or `-`.");
        return Err(ApiError::invalid(path, message));
    }
    let parameters = match function.get("parameters") {
        Some(value @ Value::Object(_)) => value.to_string(),
        Some(other) => return Err(wrong_type(&function.name("parameters"), "an object", other)),
        None => r#"{"type":"object","properties":{}}"#.to_owned(),
    };
    Ok(ToolSpec {
        name: name.to_owned(),
        description: function.text("description")?.unwrap_or_default().to_owned(),
        parameters,
    })
}

/// `tool_choice`
pub(crate) fn tool_choice(
    root: Fields<'_, '_>,
    tools: &[ToolSpec],
) -> Result<ToolChoice, ApiError> {
    let refuse = |message: String| Err(ApiError::invalid("tool_choice", message));
    let choice = match root.get("tool_choice") {
        None => {
            return Ok(if tools.is_empty() {
                ToolChoice::None
            } else {
                ToolChoice::Auto
            });
        }
        Some(Value::String(word)) => match word.as_str() {
            "none" => ToolChoice::None,
            "auto" => ToolChoice::Auto,
            "required" => ToolChoice::Required,
            other => {
                return refuse(format!(
                    "`tool_choice` is `{other}`, but must be none, auto, required or a function."
                ));
            }
        },
        Some(value) => {
            let choice = Fields::at(value, "tool_choice")?;
            is_function(&choice)?;
            let function = Fields::at(choice.required("function")?, "tool_choice.function")?;
            ToolChoice::Named(function.required_text("name")?.to_owned())
        }
    };
    match &choice {
        ToolChoice::Required if tools.is_empty() => {
            refuse("`tool_choice` is required, but `tools` is empty.".into())
        }
        ToolChoice::Named(name) if !tools.iter().any(|tool| tool.name == *name) => refuse(format!(
            "`tool_choice` names `{name}`, which `tools` does not hold."
        )),
        _ => Ok(choice),
    }
}
