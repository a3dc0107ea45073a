//! The field's vocabulary (`rl`) and the contract's types, in both directions.

use crate::bindings::{environment::exports::nextstate::plugin::environment as env, types};

pub(crate) fn role(role: rl::Role) -> types::Role {
    match role {
        rl::Role::System => types::Role::System,
        rl::Role::User => types::Role::User,
        rl::Role::Assistant => types::Role::Assistant,
        rl::Role::Tool => types::Role::Tool,
    }
}

pub(crate) fn role_back(role: types::Role) -> rl::Role {
    match role {
        types::Role::System => rl::Role::System,
        types::Role::User => rl::Role::User,
        types::Role::Assistant => rl::Role::Assistant,
        types::Role::Tool => rl::Role::Tool,
    }
}

pub(crate) fn message(message: &rl::Message) -> types::Message {
    let call = |call: &rl::ToolCall| types::ToolCall {
        id: call.id.clone(),
        name: call.name.clone(),
        arguments_json: call.arguments.clone(),
    };
    types::Message {
        role: role(message.role),
        content: message.content.clone(),
        reasoning: message.reasoning.clone(),
        tool_calls: message.tool_calls.iter().map(call).collect(),
        tool_call_id: message.tool_call_id.clone(),
        name: message.name.clone(),
    }
}

pub(crate) fn message_back(message: types::Message) -> rl::Message {
    let call = |call: types::ToolCall| rl::ToolCall {
        id: call.id,
        name: call.name,
        arguments: call.arguments_json,
    };
    rl::Message {
        role: role_back(message.role),
        content: message.content,
        reasoning: message.reasoning,
        tool_calls: message.tool_calls.into_iter().map(call).collect(),
        tool_call_id: message.tool_call_id,
        name: message.name,
    }
}

pub(crate) fn messages(list: &[rl::Message]) -> Vec<types::Message> {
    list.iter().map(message).collect()
}

pub(crate) fn messages_back(list: Vec<types::Message>) -> Vec<rl::Message> {
    list.into_iter().map(message_back).collect()
}

pub(crate) fn finish(finish: rl::FinishReason) -> types::Finish {
    match finish {
        rl::FinishReason::Stop => types::Finish::Stop,
        rl::FinishReason::Length => types::Finish::Length,
        rl::FinishReason::ToolCalls => types::Finish::ToolCalls,
        rl::FinishReason::Cancelled => types::Finish::Cancelled,
    }
}

pub(crate) fn turn(turn: &rl::Turn) -> types::Turn {
    types::Turn {
        request: messages(&turn.messages),
        response: message(&turn.reply),
        finish: finish(turn.finish),
    }
}

pub(crate) fn tool(tool: &rl::ToolSpec) -> env::ToolSpec {
    env::ToolSpec {
        name: tool.name.clone(),
        description: tool.description.clone(),
        parameters_json_schema: tool.parameters.clone(),
    }
}

pub(crate) fn tool_back(tool: env::ToolSpec) -> rl::ToolSpec {
    rl::ToolSpec {
        name: tool.name,
        description: tool.description,
        parameters: tool.parameters_json_schema,
    }
}

pub(crate) fn sign(value: rl::VoteValue) -> types::Sign {
    match value {
        rl::VoteValue::Positive => types::Sign::Good,
        rl::VoteValue::Ambiguous => types::Sign::Neutral,
        rl::VoteValue::Negative => types::Sign::Bad,
    }
}

pub(crate) fn sign_back(sign: types::Sign) -> rl::VoteValue {
    match sign {
        types::Sign::Good => rl::VoteValue::Positive,
        types::Sign::Neutral => rl::VoteValue::Ambiguous,
        types::Sign::Bad => rl::VoteValue::Negative,
    }
}
